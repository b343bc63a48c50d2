"""The norms that can be spread over devices compute what torch's do."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from radcap.forms.lists import PROCESSES, XLA, convert
from radcap.forms.norm import AutocastLayerNorm, GlobalBatchNorm
from radcap.forms.spread import Spread


def batch_norm() -> nn.BatchNorm2d:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(5, eps=0.001, momentum=0.3)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def run(model: nn.Module, inputs: Tensor, outward: Tensor) -> tuple[Tensor, ...]:
    """Output and all gradients."""
    inputs = inputs.clone().requires_grad_()
    output = model(inputs)
    (output * outward).sum().backward()
    assert inputs.grad is not None
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return output.detach(), inputs.grad, *gradients


def test_batch_norm_agrees_with_torchs() -> None:
    """Output, gradients and running statistics (the unbiased variance) over three steps."""
    theirs = nn.Sequential(batch_norm()).double()
    ours = copy.deepcopy(theirs)
    convert(ours, XLA)
    assert type(ours[0]) is GlobalBatchNorm
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        inputs = 2 + 3 * torch.randn(4, 5, 3, 2, generator=generator, dtype=torch.float64)
        outward = torch.randn(4, 5, 3, 2, generator=generator, dtype=torch.float64)
        for found, expected in zip(
            run(ours, inputs, outward), run(theirs, inputs, outward), strict=True
        ):
            assert torch.allclose(found, expected, rtol=1e-10, atol=1e-10)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, expected in theirs.state_dict().items():
        assert torch.allclose(ours.state_dict()[name], expected, rtol=1e-10), name
    ours.eval()
    theirs.eval()
    assert torch.allclose(ours(inputs), theirs(inputs), rtol=1e-10, atol=1e-10)


def test_batch_norm_of_several_processes_has_the_statistics_of_all() -> None:
    """Two processes with the same rows: their sums are twice those of one."""
    theirs = nn.Sequential(batch_norm()).double()
    ours = copy.deepcopy(theirs)
    convert(ours, PROCESSES, Spread(num_processes=2, total=lambda value: 2 * value))
    inputs, outward = torch.randn(2, 4, 5, 3, 2, dtype=torch.float64)
    found = run(ours, inputs, outward)
    expected = run(theirs, inputs.repeat(2, 1, 1, 1), outward.repeat(2, 1, 1, 1))
    for one, both in zip(found[:2], expected[:2], strict=True):
        torch.testing.assert_close(one, both[:4], rtol=1e-10, atol=1e-10)
    for one, both in zip(found[2:], expected[2:], strict=True):  # added up after the backward pass
        torch.testing.assert_close(2 * one, both, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-10, atol=1e-10)


def test_batch_norm_of_half_precision_sums_in_float32() -> None:
    """Of 40,000 ones bfloat16 would count 256."""
    norm = nn.Sequential(nn.BatchNorm2d(1, momentum=1.0))
    convert(norm, XLA)
    output = norm(torch.ones(1, 1, 200, 200, dtype=torch.bfloat16))
    assert output.dtype == torch.bfloat16
    assert norm[0].running_mean.item() == 1
    assert output.abs().max().item() == 0


@pytest.mark.parametrize("shape", [(4, 7), (2, 3, 7)])
def test_layer_norm_agrees_with_torchs(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    theirs = nn.Sequential(nn.LayerNorm(7)).double()
    nn.init.normal_(theirs[0].weight)
    ours = copy.deepcopy(theirs)
    convert(ours, XLA)
    assert type(ours[0]) is AutocastLayerNorm
    inputs, outward = 5 + torch.randn(2, *shape, dtype=torch.float64)
    for found, expected in zip(
        run(ours, inputs, outward), run(theirs, inputs, outward), strict=True
    ):
        assert torch.allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_layer_norm_under_autocast_is_narrow_and_its_sums_are_not() -> None:
    norm = nn.Sequential(nn.LayerNorm(4096))
    convert(norm, XLA)
    inputs = 256 + torch.randn(3, 4096)
    with torch.autocast("cpu", torch.bfloat16):
        output = norm(inputs)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(
        output.float(), nn.functional.layer_norm(inputs, [4096]), atol=0.02, rtol=0.01
    )
