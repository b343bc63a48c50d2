"""Greedy decoding with a key/value cache whose shapes never change.

Every tensor of the loop has its final size from the start and the position is a tensor, so that
all tokens of all captions run the same XLA graph.

Shape legend: B batch, L memory tokens, S cached positions, D width, H heads, d = D / H,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from radcap.model.decoder import KeyValue

if TYPE_CHECKING:
    from collections.abc import Callable

    from radcap.model.captioner import ImageCaptioningModel

# On an accelerator, asking whether all rows have ended waits for the device.
_TOKENS_BETWEEN_READS = 8


class SearchState(NamedTuple):
    """All that a search carries from token to token, on the device.

    Attributes:
        memory_kv: the memory's keys and values, a pair of [B, H, L, d] a layer.
        cache: self-attention keys and values of the tokens so far, a pair of [B, H, S, d] a layer.
        ids: int64 [B], the newest tokens.
        written: int64 [B, S], the captions, [PAD] where nothing is written yet.
        lengths: int64 [B], tokens in each caption.
        ended: bool [B].
        position: int64 [1], of the newest tokens; a tensor, so that every position runs the same
            XLA graph.
    """

    memory_kv: Sequence[KeyValue]
    cache: Sequence[KeyValue]
    ids: Tensor
    written: Tensor
    lengths: Tensor
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
    model: ImageCaptioningModel,
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
    model: ImageCaptioningModel, images: Tensor, max_len: int, *, start_id: int, pad_id: int
) -> SearchState:
    """Look at images [B, 3, 224, 224] and write the start token of every row.

    Args:
        model: in evaluation mode.
        images: see `ImageCaptioningModel.encode_images`.
        max_len: new tokens S at most.
        start_id, pad_id: special tokens.
    """
    batch, device = images.shape[0], images.device
    memory_kv = model.decoder.project_memory(model.encode_images(images))
    ended = _never(memory_kv[0].key[:, 0, 0, 0])

    def spread(value: int, *shape: int) -> Tensor:
        full = torch.full((batch, *shape), value, dtype=torch.int64, device=device)
        return full.masked_fill(ended.view(-1, *(1 for _ in shape)), value + 1)

    return SearchState(
        memory_kv=memory_kv,
        cache=empty_cache(memory_kv, max_len),
        ids=spread(start_id),
        written=spread(pad_id, max_len),
        lengths=spread(0),
        ended=ended,
        position=torch.zeros(1, dtype=torch.int64, device=device),
    )


def greedy_step(
    model: ImageCaptioningModel, state: SearchState, *, end_id: int, pad_id: int
) -> SearchState:
    """Write the likeliest next token of every row that has not ended; `state` is used up."""
    logits = decode_step(model, state.memory_kv, state.cache, state.ids, state.position)
    following = logits.argmax(dim=-1)
    ended = state.ended | (following == end_id)
    ids = following.masked_fill(ended, pad_id)
    state.written.index_copy_(1, state.position, ids[:, None])
    return state._replace(
        ids=ids, lengths=state.lengths + ~ended, ended=ended, position=state.position + 1
    )


def greedy_search(
    model: ImageCaptioningModel,
    images: Tensor,
    max_len: int,
    *,
    start_id: int,
    end_id: int,
    pad_id: int,
    step_boundary: Callable[[], None] | None = None,
) -> Tensor:
    """Take the likeliest token at every step; see `ImageCaptioningModel.generate`.

    Works in evaluation mode without gradients and leaves every module's mode as it was.

    Raises:
        ValueError: `max_len` out of range, or an id outside the vocabulary.
    """
    num_positions = model.pos_encoder.shape[1]
    if not 1 <= max_len <= num_positions:
        raise ValueError(f"max_len must be in [1, {num_positions}], not {max_len}")
    for name, token_id in (("start_id", start_id), ("end_id", end_id), ("pad_id", pad_id)):
        if not 0 <= token_id < model.vocab_size:
            raise ValueError(f"{name} {token_id} is outside the vocabulary of {model.vocab_size}")
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            return _greedy_search(model, images, max_len, start_id, end_id, pad_id, step_boundary)
    finally:
        for module, training in modes:
            module.training = training


def _greedy_search(
    model: ImageCaptioningModel,
    images: Tensor,
    max_len: int,
    start_id: int,
    end_id: int,
    pad_id: int,
    step_boundary: Callable[[], None] | None,
) -> Tensor:
    state = begin_search(model, images, max_len, start_id=start_id, pad_id=pad_id)
    if step_boundary is not None:
        step_boundary()
    reads_every = 1 if images.device.type == "cpu" else _TOKENS_BETWEEN_READS
    for num_written in range(1, max_len + 1):
        state = greedy_step(model, state, end_id=end_id, pad_id=pad_id)
        all_ended = state.ended.all()
        if step_boundary is not None:
            step_boundary()
        if num_written % reads_every == 0 and bool(all_ended):
            break

    # Trimmed on the CPU: a width that depends on the captions would be a new graph on XLA.
    width = int(state.lengths.cpu().max()) if len(images) else 0
    start = torch.full((len(images), 1), start_id, dtype=torch.int64)
    return torch.cat([start, state.written.cpu()[:, :width]], dim=1)
