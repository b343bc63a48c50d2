"""Word vectors with a narrow gradient: what it holds is the sum that float32 would hold."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from radcap.forms.embedding import AutocastEmbedding
from radcap.forms.lists import XLA, convert
from radcap.forms.spread import Spread

WORDS, WIDTH = 40, 16


def tables(groups: int) -> tuple[nn.Embedding, AutocastEmbedding]:
    torch.manual_seed(0)
    theirs = nn.Embedding(WORDS, WIDTH)
    ours = copy.deepcopy(nn.Sequential(theirs))
    convert(ours, XLA, Spread(num_groups=groups))
    assert isinstance(ours[0], AutocastEmbedding)
    return theirs, ours[0]


def gradients(ids: torch.Tensor, groups: int, *, autocast: bool) -> tuple[torch.Tensor, ...]:
    """Of both tables; every term has the same sign, the hardest sum for narrow floats."""
    theirs, ours = tables(groups)
    outward = torch.rand(*ids.shape, WIDTH).to(torch.bfloat16).float() + 0.5
    (theirs(ids) * outward).sum().backward()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        vectors = ours(ids)
    assert vectors.dtype == (torch.bfloat16 if autocast else torch.float32)
    (vectors.float() * outward.to(vectors.dtype).float()).sum().backward()
    assert theirs.weight.grad is not None and ours.weight.grad is not None
    assert ours.weight.grad.dtype == torch.float32
    return ours.weight.grad, theirs.weight.grad


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("rows", [8, 672])
def test_words_of_many_rows_are_summed_without_loss(rows: int, groups: int) -> None:
    """All rows begin with one word; the rest repeats as captions do."""
    ids = torch.randint(0, WORDS, (rows, 9), dtype=torch.int32)
    ids[:, 0], ids[:, 1] = 7, 7
    ids[:, 5:] = 0
    found, expected = gradients(ids, groups, autocast=True)
    # A rounding for each group and position that a word has, here up to 40, and no sum that
    # stands still: added row by row, word 7 would be off by nine tenths.
    assert ((found - expected).abs() <= 0.04 * expected.abs()).all()


def test_without_autocast_it_is_torchs() -> None:
    found, expected = gradients(torch.randint(0, WORDS, (6, 5)), 2, autocast=False)
    torch.testing.assert_close(found, expected)
