"""The norms that can be spread over devices compute what torch's do."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from radcap.runtime.norm import spread_batch_norms, spread_layer_norms


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
    theirs = nn.Sequential(batch_norm())
    ours = copy.deepcopy(theirs)
    spread_batch_norms(ours, lambda value: value, num_processes=1)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        inputs = 2 + 3 * torch.randn(4, 5, 3, 2, generator=generator)
        outward = torch.randn(4, 5, 3, 2, generator=generator)
        for found, expected in zip(
            run(ours, inputs, outward), run(theirs, inputs, outward), strict=True
        ):
            assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, expected in theirs.state_dict().items():
        assert torch.allclose(ours.state_dict()[name], expected, rtol=1e-5), name
    ours.eval()
    theirs.eval()
    assert torch.allclose(ours(inputs), theirs(inputs), atol=1e-5)


def test_batch_norm_of_half_precision_sums_in_float32() -> None:
    """Of 40,000 ones bfloat16 would count 256."""
    norm = nn.Sequential(nn.BatchNorm2d(1, momentum=1.0))
    spread_batch_norms(norm, lambda value: value, num_processes=1)
    output = norm(torch.ones(1, 1, 200, 200, dtype=torch.bfloat16))
    assert output.dtype == torch.bfloat16
    assert norm[0].running_mean.item() == 1
    assert output.abs().max().item() == 0


@pytest.mark.parametrize("shape", [(4, 7), (2, 3, 7)])
def test_layer_norm_agrees_with_torchs(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    theirs = nn.Sequential(nn.LayerNorm(7))
    nn.init.normal_(theirs[0].weight)
    ours = copy.deepcopy(theirs)
    spread_layer_norms(ours)
    inputs, outward = 5 + torch.randn(shape), torch.randn(shape)
    for found, expected in zip(
        run(ours, inputs, outward), run(theirs, inputs, outward), strict=True
    ):
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
