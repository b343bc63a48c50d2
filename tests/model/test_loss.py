"""The loss: the formulas against torch's cross-entropy, and the batches that have no token."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from radcap.model.loss import (
    caption_loss,
    masked_loss,
    mean_loss,
    padded_loss,
    row_losses,
    selected_loss,
)
from radcap.model.output import OutputLayer

Loss = Callable[..., tuple[Tensor, Tensor]]
FORMULAS = (selected_loss, padded_loss, masked_loss)
every_formula = pytest.mark.parametrize("formula", FORMULAS)


@given(
    batch=st.integers(1, 4),
    length=st.integers(1, 6),
    padding=st.floats(0, 1),
    pad_id=st.integers(0, 12),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=50)
def test_every_formula_equals_torchs_sum_and_gradient(
    batch: int, length: int, padding: float, pad_id: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    fc_out = OutputLayer(5, 13).double()
    start = torch.randn(batch, length, 5, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 13, (batch, length), generator=generator)
    targets[torch.rand(batch, length, generator=generator) < padding] = pad_id

    def run(loss_sum: Tensor, hidden: Tensor) -> list[Tensor]:
        leaves = [hidden, fc_out.weight, fc_out.bias]
        return [loss_sum, *torch.autograd.grad(loss_sum, leaves)]

    hidden = start.clone().requires_grad_()
    flat = fc_out(hidden).flatten(0, 1)
    expected = run(
        F.cross_entropy(flat, targets.flatten(), ignore_index=pad_id, reduction="sum"), hidden
    )
    for formula in FORMULAS:
        for dtype in (torch.int32, torch.int64):
            hidden = start.clone().requires_grad_()
            loss_sum, num_tokens = formula(hidden, fc_out, targets.to(dtype), pad_id=pad_id)
            assert int(num_tokens) == int((targets != pad_id).sum())
            for found, wanted in zip(run(loss_sum, hidden), expected, strict=True):
                torch.testing.assert_close(found, wanted)


@every_formula
def test_no_valid_token_gives_zero_and_zero_gradients(formula: Loss) -> None:
    fc_out = OutputLayer(4, 9)
    hidden = torch.randn(2, 3, 4, requires_grad=True)
    loss_sum, num_tokens = formula(hidden, fc_out, torch.zeros(2, 3, dtype=torch.int32), pad_id=0)
    mean = mean_loss(loss_sum, num_tokens)
    mean.backward()
    assert mean.item() == 0.0
    for leaf in (hidden, fc_out.weight, fc_out.bias):
        assert leaf.grad is not None
        assert torch.equal(leaf.grad, torch.zeros_like(leaf))


@every_formula
def test_sums_are_float32_at_least(formula: Loss) -> None:
    targets = torch.tensor([[1, 2, 0]])
    for dtype, wanted in (
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        loss_sum, _ = formula(
            torch.randn(1, 3, 4, dtype=dtype), OutputLayer(4, 9).to(dtype), targets, pad_id=0
        )
        assert loss_sum.dtype == wanted


def loss_of_logits(formula: Loss, logits: list[float], target: int) -> tuple[float, list[float]]:
    """Loss and its gradient by the logits of one position."""
    fc_out = OutputLayer(1, len(logits)).double()
    nn.init.zeros_(fc_out.weight)
    with torch.no_grad():
        fc_out.bias.copy_(torch.tensor(logits))
    loss_sum, _ = formula(
        torch.ones(1, 1, 1, dtype=torch.float64), fc_out, torch.tensor([[target]]), pad_id=-1
    )
    loss_sum.backward()
    assert fc_out.bias.grad is not None
    return loss_sum.item(), fc_out.bias.grad.tolist()


@every_formula
@pytest.mark.parametrize("target", [1, 2, 3])
@pytest.mark.parametrize("height", [-1e4, 0.0, 1e4])
def test_a_logits_height_does_not_matter(formula: Loss, target: int, height: float) -> None:
    """Losses from nearly 0 to 60 nats, wherever the logits lie."""
    logits = [height + x for x in (-3.0, 50.0, 0.0, -10.0)]
    expected = F.cross_entropy(torch.tensor(logits, dtype=torch.float64), torch.tensor(target))
    found, gradient = loss_of_logits(formula, logits, target)
    assert found == pytest.approx(expected.item(), abs=1e-9)
    wanted = torch.tensor(logits, dtype=torch.float64).softmax(0)
    wanted[target] -= 1
    assert gradient == pytest.approx(wanted.tolist(), abs=1e-9)


def test_a_token_that_is_lost_keeps_a_finite_loss_and_a_gradient() -> None:
    """Beyond 75 nats XLA's formula tells only that it is that bad."""
    assert loss_of_logits(selected_loss, [0.0, 120.0, 0.0], 2)[0] == pytest.approx(120.0)
    found, gradient = loss_of_logits(masked_loss, [0.0, 120.0, 0.0], 2)
    assert 75.0 <= found < 76.0
    assert gradient == pytest.approx([0.0, 1.0, -1.0], abs=1e-6)
    assert math.isfinite(loss_of_logits(masked_loss, [0.0] + [1e4] * 30_521, 0)[0])


def test_a_padded_position_far_from_its_words_spoils_nothing() -> None:
    """Of [PAD] no loss is taken, whatever its own logit is."""
    fc_out = OutputLayer(1, 3)
    with torch.no_grad():
        fc_out.weight.copy_(torch.tensor([[-400.0], [0.0], [1.0]]))
        fc_out.bias.zero_()
    hidden = torch.tensor([[[0.5], [1.0]]], requires_grad=True)
    loss_sum, _ = masked_loss(hidden, fc_out, torch.tensor([[1, 0]]), pad_id=0)
    loss_sum.backward()
    assert hidden.grad is not None and fc_out.weight.grad is not None
    assert torch.isfinite(loss_sum) and torch.isfinite(hidden.grad).all()
    assert torch.isfinite(fc_out.weight.grad).all() and hidden.grad[0, 1] == 0


@every_formula
@pytest.mark.parametrize("broken", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("target", [1, 2])
def test_a_broken_logit_is_no_finite_loss(formula: Loss, broken: float, target: int) -> None:
    """Of the target or of any other word: minus infinity of another is a probability of 0."""
    loss, _ = loss_of_logits(formula, [0.0, broken, 0.0], target)
    assert not math.isfinite(loss) or (
        broken == -math.inf and target == 2 and formula is not masked_loss
    )


def test_sums_over_any_grouping_give_the_same_mean() -> None:
    torch.manual_seed(0)
    fc_out = OutputLayer(4, 9).double()
    hidden = torch.randn(8, 5, 4, dtype=torch.float64)
    targets = torch.randint(1, 9, (8, 5))
    for row in range(8):
        targets[row, 1 + row % 5 :] = 0  # lengths 1 to 5
    whole, count = caption_loss(hidden, fc_out, targets, pad_id=0)
    parts = [
        caption_loss(hidden[i : i + 2], fc_out, targets[i : i + 2], pad_id=0)
        for i in range(0, 8, 2)
    ]
    torch.testing.assert_close(sum(part[0] for part in parts), whole)
    assert sum(int(part[1]) for part in parts) == int(count)


@pytest.mark.parametrize("pad_id", [0, 7])
def test_row_losses_are_the_loss_of_each_row_alone(pad_id: int) -> None:
    generator = torch.Generator().manual_seed(3)
    fc_out = OutputLayer(5, 13)
    hidden = torch.randn(4, 6, 5, generator=generator)
    targets = torch.randint(0, 13, (4, 6), generator=generator, dtype=torch.int32)
    targets[0, 2:] = targets[1] = pad_id
    found = row_losses(hidden, fc_out, targets, pad_id=pad_id)
    alone = [
        caption_loss(hidden[i : i + 1], fc_out, targets[i : i + 1], pad_id=pad_id)[0]
        for i in range(4)
    ]
    torch.testing.assert_close(found, torch.stack(alone))
    assert found[1] == 0.0


def test_bf16_products_give_the_loss_and_gradients_of_float32_to_their_precision() -> None:
    """Many rows, so that the output layer's loss is made in several parts."""
    torch.manual_seed(0)
    fc_out = OutputLayer(64, 500)
    start = torch.randn(5, 30, 64)
    targets = torch.randint(1, 500, (5, 30))

    def run(enabled: bool) -> list[Tensor]:
        hidden = start.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss_sum, _ = caption_loss(hidden, fc_out, targets, pad_id=0)
        return [loss_sum, *torch.autograd.grad(loss_sum, [hidden, fc_out.weight, fc_out.bias])]

    for found, wanted in zip(run(True), run(False), strict=True):
        assert found.dtype == torch.float32
        assert (found - wanted).norm() <= 0.01 * wanted.norm()
        assert not torch.equal(found, wanted), "the products were not made in bf16"
