"""Greedy search with a key/value cache whose shapes never change, and what every search shares.

Every tensor of the loop has its final size from the start and the position is a tensor, so that
all tokens of all captions run the same compiled graph.

Shape legend: B batch, K captions kept for an image, R = B * K rows, T tokens, L memory tokens,
S cached positions, D width, H heads, d = D / H, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from radcap.model.decoder import KeyValue

if TYPE_CHECKING:
    from collections.abc import Callable

    from radcap.model.decoder import TransformerDecoder
    from radcap.model.loss import OutputLayer


class Searchable(Protocol):
    """What a search asks of a captioner; see `ImageCaptioningModel`."""

    vocab_size: int
    embedding: nn.Embedding
    pos_encoder: nn.Parameter
    decoder: TransformerDecoder
    fc_out: OutputLayer

    def encode_images(self, images: Tensor) -> Tensor:
        """Images -> the decoder's memory [B, L, D]."""

    def modules(self) -> Iterator[nn.Module]:
        """As `nn.Module`'s."""

    def eval(self) -> object:
        """As `nn.Module`'s."""


class Hypotheses(NamedTuple):
    """Captions found for B images, K for each, the likeliest first; on the CPU.

    Attributes:
        ids: int64 [B, K, 1 + T], T that of the longest. A row begins with the start token; the end
            token is not in it; [PAD] follows.
        lengths: int64 [B, K], tokens after the start token.
        log_probs: float32 [B, K], natural logarithm of a caption's probability: the sum over its
            tokens, and over its end token unless the limit came first.
    """

    ids: Tensor
    lengths: Tensor
    log_probs: Tensor


class SearchState(NamedTuple):
    """All that a search carries from token to token, on the device.

    Attributes:
        memory_kv: the memory's keys and values, a pair of [R, H, L, d] a layer.
        cache: self-attention keys and values of the tokens so far, a pair of [R, H, S, d] a layer.
        ids: int64 [R], the newest tokens.
        written: int64 [R, S], the captions, [PAD] where nothing is written yet.
        lengths: int64 [R], tokens in each caption.
        log_probs: float32 [R], of the captions so far.
        ended: bool [R].
        position: int64 [1], of the newest tokens; a tensor, so that every position runs the same
            compiled graph.
    """

    memory_kv: Sequence[KeyValue]
    cache: Sequence[KeyValue]
    ids: Tensor
    written: Tensor
    lengths: Tensor
    log_probs: Tensor
    ended: Tensor
    position: Tensor


def empty_cache(memory_kv: Sequence[KeyValue], num_positions: int) -> list[KeyValue]:
    """A decoder cache for S positions, with the batch, dtype and device of `memory_kv`.

    On a mesh its rows lie where those of `memory_kv` lie: see `_never`.

    Returns:
        A pair of [B, H, S, d] a layer.
    """

    def empty(like: Tensor) -> Tensor:
        batch, heads, _, width = like.shape
        zeros = like.new_zeros(batch, heads, num_positions, width)
        return torch.where(_never(like[:, 0, 0, 0])[:, None, None, None], like[:, :, :1], zeros)

    return [KeyValue(empty(kv.key), empty(kv.value)) for kv in memory_kv]


def _never(values: Tensor) -> Tensor:
    """False for every row: bool [B] from floating [B].

    What does not depend on a sharded tensor begins as a copy on every device. The first token's
    results are spread over the devices, so that the second token would be another graph, and a
    cache would stay whole everywhere. A choice that depends on the rows, yet never falls the other
    way, puts the start where the rows are.
    """
    return values.isnan() & values.isinf()


def decode_step(
    model: Searchable,
    memory_kv: Sequence[KeyValue],
    cache: Sequence[KeyValue],
    ids: Tensor,
    position: Tensor,
) -> Tensor:
    """Read one token a row and return the logits [B, V] of the next.

    Args:
        model: in evaluation mode.
        memory_kv: `model.decoder.project_memory(memory)`, [B, H, L, d] a layer.
        cache: filled for all positions before `position`; written at `position`.
        ids: int64 [B], the tokens at `position`.
        position: int64 [1].
    """
    x = model.embedding(ids[:, None]) + model.pos_encoder.index_select(1, position)
    x = model.decoder.step(x, memory_kv, cache, position)
    return model.fc_out(x[:, 0])


def begin_search(
    model: Searchable,
    images: Tensor,
    max_len: int,
    *,
    start_id: int,
    pad_id: int,
    num_beams: int = 1,
) -> SearchState:
    """Look at images [B, 3, 224, 224] and write the start token of every row.

    Args:
        model: in evaluation mode.
        images: see `ImageCaptioningModel.encode_images`.
        max_len: new tokens S at most.
        start_id, pad_id: special tokens.
        num_beams: rows K for each image, one below the other.
    """
    rows, device = len(images) * num_beams, images.device
    memory_kv = model.decoder.project_memory(model.encode_images(images))
    if num_beams > 1:
        memory_kv = [
            KeyValue(*(part.repeat_interleave(num_beams, dim=0) for part in kv)) for kv in memory_kv
        ]
    ended = _never(memory_kv[0].key[:, 0, 0, 0])

    def spread(value: int, *shape: int) -> Tensor:
        full = torch.full((rows, *shape), value, dtype=torch.int64, device=device)
        return full.masked_fill(ended.view(-1, *(1 for _ in shape)), value + 1)

    return SearchState(
        memory_kv=memory_kv,
        cache=empty_cache(memory_kv, max_len),
        ids=spread(start_id),
        written=spread(pad_id, max_len),
        lengths=spread(0),
        log_probs=spread(0).to(torch.float32),
        ended=ended,
        position=torch.zeros(1, dtype=torch.int64, device=device),
    )


def greedy_step(model: Searchable, state: SearchState, *, end_id: int, pad_id: int) -> SearchState:
    """Write the likeliest next token of every row that has not ended; `state` is used up."""
    logits = decode_step(model, state.memory_kv, state.cache, state.ids, state.position)
    following = logits.argmax(dim=-1)
    logits = logits.to(torch.float32)
    gained = logits.amax(dim=-1) - logits.logsumexp(dim=-1)  # of `following`, without a gather
    ended = state.ended | (following == end_id)
    ids = following.masked_fill(ended, pad_id)
    state.written.index_copy_(1, state.position, ids[:, None])
    return state._replace(
        ids=ids,
        lengths=state.lengths + ~ended,
        log_probs=state.log_probs + gained.masked_fill(state.ended, 0.0),
        ended=ended,
        position=state.position + 1,
    )


def greedy_search(
    model: Searchable,
    images: Tensor,
    max_len: int,
    *,
    start_id: int,
    end_id: int,
    pad_id: int,
    step_boundary: Callable[[], None] | None = None,
    read_every: int = 1,
) -> Hypotheses:
    """Take the likeliest token at every step; see `ImageCaptioningModel.search`."""
    with searching(model, max_len, start_id=start_id, end_id=end_id, pad_id=pad_id):
        state = run_search(
            lambda: begin_search(model, images, max_len, start_id=start_id, pad_id=pad_id),
            lambda state: greedy_step(model, state, end_id=end_id, pad_id=pad_id),
            step_boundary,
            read_every,
        )
    return hypotheses(state, start_id=start_id)


@contextmanager
def searching(model: Searchable, max_len: int, **ids: int) -> Iterator[None]:
    """Evaluation mode without gradients; leaves every module's mode as it was.

    Raises:
        ValueError: `max_len` out of range, or an id outside the vocabulary.
    """
    num_positions = model.pos_encoder.shape[1]
    if not 1 <= max_len <= num_positions:
        raise ValueError(f"max_len must be in [1, {num_positions}], not {max_len}")
    for name, token_id in ids.items():
        if not 0 <= token_id < model.vocab_size:
            raise ValueError(f"{name} {token_id} is outside the vocabulary of {model.vocab_size}")
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def run_search(
    begin: Callable[[], SearchState],
    step: Callable[[SearchState], SearchState],
    step_boundary: Callable[[], None] | None,
    read_every: int,
) -> SearchState:
    """Take steps until all rows have ended or are full.

    Args:
        begin: makes the first state. It is not handed over ready: a caller that kept it would have
            a compiling device compute its used-up cache too, in a graph of its own.
        step: writes one more token; uses its argument up.
        step_boundary, read_every: see `ImageCaptioningModel.generate`.
    """
    state = begin()
    if step_boundary is not None:
        step_boundary()
    max_len = state.written.shape[1]
    for num_written in range(1, max_len + 1):
        state = step(state)
        all_ended = state.ended.all()
        if step_boundary is not None:
            step_boundary()
        if num_written % read_every == 0 and bool(all_ended):
            break
    return state


def hypotheses(state: SearchState, *, start_id: int, num_beams: int = 1) -> Hypotheses:
    """Fetch what a search has written."""
    # Trimmed on the host: a width that depends on the captions would be a new compiled graph.
    written, lengths = _fetched(state.written), _fetched(state.lengths)
    width = int(lengths.max()) if len(lengths) else 0
    start = torch.full((len(written), 1), start_id, dtype=torch.int64)
    ids = torch.cat([start, written[:, :width]], dim=1)
    return Hypotheses(
        ids.unflatten(0, (-1, num_beams)),
        lengths.unflatten(0, (-1, num_beams)),
        _fetched(state.log_probs).unflatten(0, (-1, num_beams)),
    )


def _fetched(tensor: Tensor) -> Tensor:
    """A tensor on the host, wherever it was."""
    return torch.from_numpy(tensor.numpy(force=True))
