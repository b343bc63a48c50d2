"""Beam search on the cache and the static shapes of greedy search.

The K likeliest beginnings of every image's caption are kept side by side. A caption that has ended
keeps its place among them until K likelier ones push it out, so that all shapes stay the same; the
search stops when all K of every image have ended. Captions are ranked by their plain
log-probability, which is what is reported of them: a normalisation by length would favour long
captions by a constant that nothing here was tuned for.

Shape legend: B batch, K captions kept for an image, R = B * K rows, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from radcap.model.decoder import KeyValue
from radcap.model.generate import (
    Hypotheses,
    Searchable,
    SearchState,
    begin_search,
    decode_step,
    hypotheses,
    run_search,
    searching,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def beam_search(
    model: Searchable,
    images: Tensor,
    max_len: int,
    *,
    num_beams: int,
    start_id: int,
    end_id: int,
    pad_id: int,
    step_boundary: Callable[[], None] | None = None,
    read_every: int = 1,
) -> Hypotheses:
    """Keep the `num_beams` likeliest beginnings; see `ImageCaptioningModel.search`.

    Raises:
        ValueError: `num_beams` out of range, and as `searching`.
    """
    if not 1 <= num_beams <= model.vocab_size:
        raise ValueError(f"num_beams must be in [1, {model.vocab_size}], not {num_beams}")
    with searching(model, max_len, start_id=start_id, end_id=end_id, pad_id=pad_id):
        state = run_search(
            lambda: _begin(model, images, max_len, num_beams, start_id=start_id, pad_id=pad_id),
            lambda state: beam_step(model, state, num_beams, end_id=end_id, pad_id=pad_id),
            step_boundary,
            read_every,
        )
    return hypotheses(state, start_id=start_id, num_beams=num_beams)


def beam_step(
    model: Searchable, state: SearchState, num_beams: int, *, end_id: int, pad_id: int
) -> SearchState:
    """Keep the likeliest of all beginnings that are one token longer; `state` is used up."""
    logits = decode_step(model, state.memory_kv, state.cache, state.ids, state.position)
    gained = _ended_stay(logits.to(torch.float32).log_softmax(dim=-1), state.ended, pad_id)
    vocab_size = gained.shape[1]
    totals = (state.log_probs[:, None] + gained).view(-1, num_beams * vocab_size)
    log_probs, chosen = totals.topk(num_beams, dim=1)
    first_rows = torch.arange(len(totals), device=chosen.device)[:, None] * num_beams
    rows = (first_rows + chosen // vocab_size).flatten()  # that the new ones go on from
    following = (chosen % vocab_size).flatten()

    ended = state.ended.index_select(0, rows) | (following == end_id)
    ids = following.masked_fill(ended, pad_id)
    written = state.written.index_select(0, rows).index_copy_(1, state.position, ids[:, None])
    return state._replace(
        cache=[KeyValue(*(part.index_select(0, rows) for part in kv)) for kv in state.cache],
        ids=ids,
        written=written,
        lengths=state.lengths.index_select(0, rows) + ~ended,
        log_probs=log_probs.flatten(),
        ended=ended,
        position=state.position + 1,
    )


def _begin(
    model: Searchable,
    images: Tensor,
    max_len: int,
    num_beams: int,
    *,
    start_id: int,
    pad_id: int,
) -> SearchState:
    """All K rows of an image begin alike: but for the first, none may be gone on from."""
    state = begin_search(
        model, images, max_len, start_id=start_id, pad_id=pad_id, num_beams=num_beams
    )
    beam = torch.arange(len(state.ids), device=state.ids.device) % num_beams
    return state._replace(log_probs=state.log_probs.masked_fill(beam > 0, float("-inf")))


def _ended_stay(log_probs: Tensor, ended: Tensor, pad_id: int) -> Tensor:
    """Let an ended row go on with [PAD] alone, for nothing: float32 [R, V]."""
    is_pad = torch.arange(log_probs.shape[1], device=log_probs.device) == pad_id
    stay = torch.where(is_pad, 0.0, float("-inf"))
    return torch.where(ended[:, None], stay, log_probs)
