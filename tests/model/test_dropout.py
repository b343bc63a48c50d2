"""Dropout: its share, its scale, its gradient, and the generator it draws from."""

from __future__ import annotations

import pytest
import torch

from radcap.model.dropout import Dropout, dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(1_000_003,), (7, 31, 5000)])
def test_the_share_and_the_mean(p: float, shape: tuple[int, ...]) -> None:
    """Five standard deviations of a binomial share."""
    torch.manual_seed(0)
    kept = dropout(torch.ones(shape), p)
    share = (kept == 0).double().mean().item()
    deviation = (p * (1 - p) / kept.numel()) ** 0.5
    assert share == pytest.approx(p, abs=5 * deviation + 1 / 65_536)
    assert kept.max().item() == pytest.approx(1 / (1 - p), rel=2e-4)
    # Exactly unbiased: the scale is that of the very threshold.
    assert kept.double().mean().item() == pytest.approx(1, abs=6 * deviation / (1 - p))


def test_neighbours_are_independent() -> None:
    """Four numbers come from one draw: none may tell of another, at any distance."""
    torch.manual_seed(0)
    dropped = (dropout(torch.ones(1_000_000), 0.5) == 0).double()
    for distance in range(1, 9):
        both = (dropped[distance:] * dropped[:-distance]).mean().item()
        assert both == pytest.approx(0.25, abs=0.003), distance


def test_every_place_in_a_draw_has_the_whole_range() -> None:
    """random_() without bounds would leave a sign bit at 0, and one place in four kept for ever."""
    torch.manual_seed(0)
    dropped = (dropout(torch.ones(400_000), 0.25) == 0).double().view(-1, 4).mean(dim=0)
    assert dropped.tolist() == pytest.approx([0.25] * 4, abs=0.01)


def test_the_gradient_has_the_mask_of_the_forward_pass() -> None:
    x = torch.randn(50, 40, requires_grad=True)
    y = dropout(x, 0.3)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad * x.detach(), y.detach())
    assert 0 < (x.grad == 0).sum() < x.numel()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_stays_and_a_state_of_the_generator_repeats_it(dtype: torch.dtype) -> None:
    x = torch.randn(3, 7).to(dtype)
    state = torch.get_rng_state()
    first, second = dropout(x, 0.5), dropout(x, 0.5)
    assert first.dtype == dtype
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(dropout(x, 0.5), first)


def test_nothing_is_dropped_or_drawn_outside_of_training() -> None:
    x, state = torch.randn(5, 5), torch.get_rng_state()
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0).train()(x) is x
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(Dropout(0.5).train()(x), x)
    assert dropout(torch.randn(0, 3), 0.5).shape == (0, 3)
