"""Dropout: its share, its scale, its gradient, the generator it draws from; masks from a hash."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from radcap.forms.dropout import (
    DrawnDropout,
    HashDropout,
    dropout_by_draws,
    dropout_by_hash,
    hash_positions,
)

Dropout = Callable[[Tensor, float], Tensor]
ROWS, COLUMNS, DROPPED = (21, 32), 512, 0.1


def mask(key: int, shape: tuple[int, ...] = (*ROWS, COLUMNS)) -> Tensor:
    """Kept elements as standardised numbers [rows, columns]: mean 0, variance 1 if independent."""
    bound = round((1 - DROPPED) * 2**32) - 2**31
    kept = hash_positions(torch.Size(shape), torch.tensor(key, dtype=torch.int32)) < bound
    deviation = math.sqrt(DROPPED * (1 - DROPPED))
    return (kept.flatten(0, -2).double() - (1 - DROPPED)) / deviation


KEYS = [0, 1, -1, 2**31 - 1, -(2**31), 123_456_789]


@pytest.mark.parametrize("key", KEYS)
def test_every_row_and_column_loses_its_share(key: int) -> None:
    x = mask(key)
    assert abs(x.mean()) * math.sqrt(x.numel()) < 4.5
    # Means of rows scatter as those of independent draws: no row or column is favoured.
    for axis in (0, 1):
        scatter = x.mean(axis).std() * math.sqrt(x.shape[axis])
        assert 0.8 < scatter < 1.2
        assert x.mean(axis).abs().max() * math.sqrt(x.shape[axis]) < 5.5


@pytest.mark.parametrize("key", KEYS)
def test_no_two_rows_and_no_two_columns_are_related(key: int) -> None:
    x = mask(key)
    for rows in (x, x.T):
        products = rows @ rows.T / math.sqrt(rows.shape[1])
        off = products[~torch.eye(len(rows), dtype=torch.bool)]
        assert abs(off.mean()) < 0.05
        assert 0.95 < off.std() < 1.05
        assert off.abs().max() < 8


@pytest.mark.parametrize("key", KEYS)
def test_there_is_no_structure_of_low_rank(key: int) -> None:
    """The greatest singular value is that of noise (Marchenko and Pastur, 1967)."""
    x = mask(key)
    assert torch.linalg.svdvals(x)[0] < 1.05 * (math.sqrt(x.shape[0]) + math.sqrt(x.shape[1]))


def test_keys_give_unrelated_masks() -> None:
    masks = torch.stack([mask(key).flatten() for key in KEYS])
    products = masks @ masks.T / math.sqrt(masks.shape[1])
    assert products[~torch.eye(len(KEYS), dtype=torch.bool)].abs().max() < 4.5


def test_attention_weights_of_all_heads_differ() -> None:
    heads = mask(7, (6, 8, 32, 49)).unflatten(0, (48, 32)).flatten(1)
    products = heads @ heads.T / math.sqrt(heads.shape[1])
    assert products[~torch.eye(48, dtype=torch.bool)].abs().max() < 6


def test_a_vector_has_a_mask_too() -> None:
    assert abs(mask(3, (1, 10_000)).mean()) < 0.05


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(1_000_003,), (7, 31, 5000)])
def test_the_share_and_the_mean(p: float, shape: tuple[int, ...]) -> None:
    """Five standard deviations of a binomial share."""
    torch.manual_seed(0)
    kept = dropout_by_draws(torch.ones(shape), p)
    share = (kept == 0).double().mean().item()
    deviation = (p * (1 - p) / kept.numel()) ** 0.5
    assert share == pytest.approx(p, abs=5 * deviation + 1 / 65_536)
    assert kept.max().item() == pytest.approx(1 / (1 - p), rel=2e-4)
    # Exactly unbiased: the scale is that of the very threshold.
    assert kept.double().mean().item() == pytest.approx(1, abs=6 * deviation / (1 - p))


def test_neighbours_are_independent() -> None:
    """Four numbers come from one draw: none may tell of another, at any distance."""
    torch.manual_seed(0)
    dropped = (dropout_by_draws(torch.ones(1_000_000), 0.5) == 0).double()
    for distance in range(1, 9):
        both = (dropped[distance:] * dropped[:-distance]).mean().item()
        assert both == pytest.approx(0.25, abs=0.003), distance


def test_every_place_in_a_draw_has_the_whole_range() -> None:
    """random_() without bounds would leave a sign bit at 0, and one place in four kept for ever."""
    torch.manual_seed(0)
    dropped = (dropout_by_draws(torch.ones(400_000), 0.25) == 0).double().view(-1, 4).mean(dim=0)
    assert dropped.tolist() == pytest.approx([0.25] * 4, abs=0.01)


@pytest.mark.parametrize("dropout", [dropout_by_draws, dropout_by_hash])
def test_the_gradient_has_the_mask_of_the_forward_pass(dropout: Dropout) -> None:
    x = torch.randn(50, 40, requires_grad=True)
    y = dropout(x, 0.3)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad * x.detach(), y.detach())
    assert 0 < (x.grad == 0).sum() < x.numel()


@pytest.mark.parametrize("dropout", [dropout_by_draws, dropout_by_hash])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_stays_and_a_state_of_the_generator_repeats_it(
    dropout: Dropout, dtype: torch.dtype
) -> None:
    x = torch.randn(3, 7).to(dtype)
    state = torch.get_rng_state()
    first, second = dropout(x, 0.5), dropout(x, 0.5)
    assert first.dtype == dtype
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(dropout(x, 0.5), first)


@pytest.mark.parametrize("form", [DrawnDropout, HashDropout])
def test_nothing_is_dropped_or_drawn_outside_of_training(form: type[nn.Dropout]) -> None:
    x, state = torch.randn(5, 5), torch.get_rng_state()
    assert form(0.5).eval()(x) is x
    assert form(0.0).train()(x) is x
    assert torch.equal(torch.get_rng_state(), state)
    dropped = form(0.5).train()(x)
    assert torch.equal(dropped[dropped != 0], 2 * x[dropped != 0])
    assert 0 < (dropped == 0).sum() < 25
    assert form(0.5).train()(torch.randn(0, 3)).shape == (0, 3)
