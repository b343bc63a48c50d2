"""The losses of all output layers against torch's cross-entropy, and batches without a token."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from radcap.forms.loss import FusedLinearCrossEntropy, IotaLinearCrossEntropy
from radcap.model.loss import OutputLayer

LAYERS = (OutputLayer, FusedLinearCrossEntropy, IotaLinearCrossEntropy)
every_layer = pytest.mark.parametrize("layer", LAYERS)


@given(
    batch=st.integers(1, 4),
    length=st.integers(1, 6),
    padding=st.floats(0, 1),
    pad_id=st.integers(0, 12),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=50)
def test_every_layer_gives_torchs_sum_and_gradient(
    batch: int, length: int, padding: float, pad_id: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(batch, length, 5, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 13, (batch, length), generator=generator)
    targets[torch.rand(batch, length, generator=generator) < padding] = pad_id
    plain = nn.Linear(5, 13).double()

    def run(fc_out: nn.Linear, hidden: Tensor, loss_sum: Tensor) -> list[Tensor]:
        leaves = [hidden, fc_out.weight, fc_out.bias]
        return [loss_sum, *torch.autograd.grad(loss_sum, leaves)]

    hidden = start.clone().requires_grad_()
    flat = plain(hidden).flatten(0, 1)
    expected = run(
        plain,
        hidden,
        F.cross_entropy(flat, targets.flatten(), ignore_index=pad_id, reduction="sum"),
    )
    for layer in LAYERS:
        fc_out = layer(5, 13).double()
        fc_out.load_state_dict(plain.state_dict())
        for dtype in (torch.int32, torch.int64):
            hidden = start.clone().requires_grad_()
            loss_sum = fc_out.loss_sum(hidden, targets.to(dtype), pad_id)
            for found, wanted in zip(run(fc_out, hidden, loss_sum), expected, strict=True):
                torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
            with torch.no_grad():  # where no gradient is made
                assert torch.equal(fc_out.loss_sum(start, targets.to(dtype), pad_id), loss_sum)


@every_layer
def test_no_valid_token_gives_zero_and_zero_gradients(layer: type[OutputLayer]) -> None:
    fc_out = layer(4, 9)
    hidden = torch.randn(2, 3, 4, requires_grad=True)
    loss_sum = fc_out.loss_sum(hidden, torch.zeros(2, 3, dtype=torch.int32), 0)
    loss_sum.backward()
    assert loss_sum.item() == 0.0
    for leaf in (hidden, fc_out.weight, fc_out.bias):
        assert leaf.grad is not None
        assert torch.equal(leaf.grad, torch.zeros_like(leaf))


@every_layer
def test_sums_are_float32_at_least(layer: type[OutputLayer]) -> None:
    targets = torch.tensor([[1, 2, 0]])
    for dtype, wanted in (
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        fc_out, hidden = layer(4, 9).to(dtype), torch.randn(1, 3, 4, dtype=dtype)
        assert fc_out.loss_sum(hidden, targets, 0).dtype == wanted
        assert fc_out.row_losses(hidden, targets, 0).dtype == wanted


def loss_of_logits(
    layer: type[OutputLayer], logits: list[float], target: int
) -> tuple[float, list[float]]:
    """Loss and its gradient by the logits of one position."""
    fc_out = layer(1, len(logits)).double()
    nn.init.zeros_(fc_out.weight)
    with torch.no_grad():
        fc_out.bias.copy_(torch.tensor(logits))
    hidden = torch.ones(1, 1, 1, dtype=torch.float64)
    loss_sum = fc_out.loss_sum(hidden, torch.tensor([[target]]), -1)
    loss_sum.backward()
    assert fc_out.bias.grad is not None
    return loss_sum.item(), fc_out.bias.grad.tolist()


@every_layer
@pytest.mark.parametrize("target", [1, 2, 3])
@pytest.mark.parametrize("height", [-1e4, 0.0, 1e4])
def test_a_logits_height_does_not_matter(
    layer: type[OutputLayer], target: int, height: float
) -> None:
    """Losses from nearly 0 to 60 nats, wherever the logits lie."""
    logits = [height + x for x in (-3.0, 50.0, 0.0, -10.0)]
    expected = F.cross_entropy(torch.tensor(logits, dtype=torch.float64), torch.tensor(target))
    found, gradient = loss_of_logits(layer, logits, target)
    assert found == pytest.approx(expected.item(), abs=1e-9)
    wanted = torch.tensor(logits, dtype=torch.float64).softmax(0)
    wanted[target] -= 1
    assert gradient == pytest.approx(wanted.tolist(), abs=1e-9)


def test_a_token_that_is_lost_keeps_a_finite_loss_and_a_gradient() -> None:
    """Beyond 75 nats XLA's formula tells only that it is that bad."""
    for layer in (OutputLayer, FusedLinearCrossEntropy):
        assert loss_of_logits(layer, [0.0, 120.0, 0.0], 2)[0] == pytest.approx(120.0)
    found, gradient = loss_of_logits(IotaLinearCrossEntropy, [0.0, 120.0, 0.0], 2)
    assert 75.0 <= found < 76.0
    assert gradient == pytest.approx([0.0, 1.0, -1.0], abs=1e-6)
    logits = [0.0] + [1e4] * 30_521
    assert math.isfinite(loss_of_logits(IotaLinearCrossEntropy, logits, 0)[0])


def test_a_padded_position_far_from_its_words_spoils_nothing() -> None:
    """Of [PAD] no loss is taken, whatever its own logit is."""
    fc_out = IotaLinearCrossEntropy(1, 3)
    with torch.no_grad():
        fc_out.weight.copy_(torch.tensor([[-400.0], [0.0], [1.0]]))
        fc_out.bias.zero_()
    hidden = torch.tensor([[[0.5], [1.0]]], requires_grad=True)
    loss_sum = fc_out.loss_sum(hidden, torch.tensor([[1, 0]]), 0)
    loss_sum.backward()
    assert hidden.grad is not None and fc_out.weight.grad is not None
    assert torch.isfinite(loss_sum) and torch.isfinite(hidden.grad).all()
    assert torch.isfinite(fc_out.weight.grad).all() and hidden.grad[0, 1] == 0


@every_layer
@pytest.mark.parametrize("broken", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("target", [1, 2])
def test_a_broken_logit_is_no_finite_loss(
    layer: type[OutputLayer], broken: float, target: int
) -> None:
    """Of the target or of any other word: minus infinity of another is a probability of 0."""
    loss, _ = loss_of_logits(layer, [0.0, broken, 0.0], target)
    assert not math.isfinite(loss) or (
        broken == -math.inf and target == 2 and layer is not IotaLinearCrossEntropy
    )


@every_layer
@pytest.mark.parametrize("pad_id", [0, 7])
def test_row_losses_are_the_loss_of_each_row_alone(layer: type[OutputLayer], pad_id: int) -> None:
    generator = torch.Generator().manual_seed(3)
    fc_out = layer(5, 13).double()
    hidden = torch.randn(4, 6, 5, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 13, (4, 6), generator=generator, dtype=torch.int32)
    targets[0, 2:] = targets[1] = pad_id
    found = fc_out.row_losses(hidden, targets, pad_id)
    rows = [slice(i, i + 1) for i in range(4)]
    alone = [fc_out.loss_sum(hidden[row], targets[row], pad_id) for row in rows]
    torch.testing.assert_close(found, torch.stack(alone), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.sum(), fc_out.loss_sum(hidden, targets, pad_id))
    assert found[1] == 0.0


@every_layer
def test_bf16_products_give_the_loss_and_gradients_of_float32_to_their_precision(
    layer: type[OutputLayer],
) -> None:
    """Many rows, so that a CPU's loss is made in several parts."""
    torch.manual_seed(0)
    fc_out = layer(64, 500)
    start = torch.randn(5, 30, 64)
    targets = torch.randint(1, 500, (5, 30))

    def run(enabled: bool) -> list[Tensor]:
        hidden = start.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss_sum = fc_out.loss_sum(hidden, targets, 0)
        return [loss_sum, *torch.autograd.grad(loss_sum, [hidden, fc_out.weight, fc_out.bias])]

    for found, wanted in zip(run(True), run(False), strict=True):
        assert found.dtype == torch.float32
        assert (found - wanted).norm() <= 0.01 * wanted.norm()
        assert not torch.equal(found, wanted), "the products were not made in bf16"
