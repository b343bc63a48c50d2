"""`DeviceAdam` computes what torch's Adam computes, and its state goes both ways."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from radcap.config.schema import OptimizerConfig
from radcap.optim.adam import DeviceAdam, parameter_groups
from radcap.runtime.native import NativeRuntime


def options(decay: float = 0.0, scale: float = 0.25) -> OptimizerConfig:
    return OptimizerConfig(
        lr=1e-2,
        encoder_lr_scale=scale,
        betas=[0.9, 0.999],
        eps=1e-8,
        weight_decay=decay,
        clip_norm=None,
    )


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)).double()


def backward(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(4, 5, dtype=torch.float64, generator=generator)
    model(inputs).square().sum().backward()


def first_layer(model: nn.Module) -> list[nn.Parameter]:
    return [p for name, p in model.named_parameters() if name.startswith("0.")]


def device_adam(model: nn.Module, decay: float = 0.0, scale: float = 0.25) -> DeviceAdam:
    groups = parameter_groups(model, options(decay, scale), first_layer(model))
    return DeviceAdam(groups, options(decay, scale), upload=lambda tensor: tensor)


@pytest.mark.parametrize("scale", [1.0, 0.25, 0.0])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_it_takes_the_steps_of_torchs_adam(decay: float, scale: float) -> None:
    ours, theirs = network(), network()
    start = [p.detach().clone() for p in first_layer(ours)]
    adam = device_adam(ours, decay, scale)
    runtime = NativeRuntime("cpu", precision="fp32", threads=1)
    reference = runtime.make_adam(theirs, options(decay, scale), encoder=first_layer(theirs))
    for step, rate in enumerate([1e-2, 3e-2, 1e-3, 0.0, 1e-2]):
        adam.set_learning_rate(rate)
        runtime.set_learning_rate(reference, rate)
        for model in (ours, theirs):
            backward(model, step)
        adam.step_if(torch.tensor(True))
        runtime.update(reference, torch.tensor(True))
        reference.zero_grad()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-8)  # the rate is a float32 tensor
    moved = [not torch.equal(a, b) for a, b in zip(start, first_layer(ours), strict=True)]
    assert moved == [scale > 0] * 2


def test_the_encoders_rate_is_a_multiple_of_the_others() -> None:
    """Adam's first step has the size of the rate, whatever the gradient."""
    model = network()
    before = [p.detach().clone() for p in model.parameters()]
    adam = device_adam(model, scale=0.25)
    adam.set_learning_rate(1e-2)
    backward(model, 0)
    adam.step_if(torch.tensor(True))
    after = [p.detach() for p in model.parameters()]
    steps = [float((a - b).abs().max()) for a, b in zip(after, before, strict=True)]
    assert steps == pytest.approx([0.25e-2, 0.25e-2, 1e-2, 1e-2], rel=1e-3)


def bits(model: nn.Module, adam: DeviceAdam) -> list[Tensor]:
    state = adam.state_dict()["state"]
    tensors = [t for entry in state.values() for t in entry.values()]
    return [t.detach().clone() for t in (*model.parameters(), *tensors)]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_skipped_step_keeps_every_bit(decay: float) -> None:
    model = network()
    adam = device_adam(model, decay)
    backward(model, 0)
    with torch.no_grad():
        next(model.parameters()).flatten()[0] = float("inf")  # the cause may be a weight
    adam.step_if(torch.tensor(True))
    before = bits(model, adam)
    backward(model, 1)
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad.fill_(float("nan"))
    adam.step_if(torch.tensor(False))
    assert all(torch.equal(a, b) for a, b in zip(before, bits(model, adam), strict=True))


def test_its_state_moves_to_torchs_adam_and_back() -> None:
    """A run saved by one kind of device goes on with another, fused kernels kept."""
    ours = network()
    adam = device_adam(ours)
    for step in range(3):
        backward(ours, step)
        adam.step_if(torch.tensor(True))
    theirs = copy.deepcopy(ours)
    runtime = NativeRuntime("cpu", precision="fp32", threads=1)
    reference = runtime.make_adam(theirs, options(), encoder=first_layer(theirs))
    reference.load_state_dict(runtime.to_host(adam.state_dict()))
    assert reference.param_groups[0]["fused"] is True
    third = copy.deepcopy(ours)
    again = device_adam(third)
    for model in (ours, theirs):
        backward(model, 9)
    adam.step_if(torch.tensor(True))
    runtime.update(reference, torch.tensor(True))
    again.load_state_dict(runtime.to_host(reference.state_dict()))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-8)
    third.load_state_dict(theirs.state_dict())
    for step, model in ((10, ours), (10, third)):
        backward(model, step)
    adam.step_if(torch.tensor(True))
    again.step_if(torch.tensor(True))
    for a, b in zip(ours.parameters(), third.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-8)


def test_a_state_of_another_model_is_refused() -> None:
    adam = device_adam(network())
    state = adam.state_dict()
    del state["state"][0]
    with pytest.raises(ValueError, match="every parameter"):
        device_adam(network()).load_state_dict(state)
