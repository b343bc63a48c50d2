"""Adam for a device that compiles whole steps, and checkpoints that any device can go on from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from radcap.config.schema import OptimizerConfig

# How the arithmetic of `torch.optim.Adam` is carried out, not what it computes.
_EXECUTION_FLAGS = ("foreach", "fused", "capturable", "differentiable")


def keep_execution_flags(optimizer: Optimizer) -> None:
    """Let a loaded state dict change what an optimizer computes, but not how.

    A checkpoint written on one kind of device would otherwise switch off another's fused kernels,
    and with them the update that is skipped without a read of the device.
    """

    def keep(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        groups = [
            {**loaded, **{flag: own[flag] for flag in _EXECUTION_FLAGS if flag in own}}
            for loaded, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
        ]
        return {**state, "param_groups": groups}

    optimizer.register_load_state_dict_pre_hook(keep)


def parameter_groups(
    model: nn.Module, options: OptimizerConfig, encoder: Iterable[nn.Parameter]
) -> list[dict[str, Any]]:
    """The parameters as torch's groups, those of the encoder apart, each with its `lr_scale`.

    Parameters that are not trained are left out.
    """
    chosen = {id(parameter) for parameter in encoder}
    parts: dict[float, list[nn.Parameter]] = {1.0: [], options.encoder_lr_scale: []}
    for parameter in (p for p in model.parameters() if p.requires_grad):
        parts[options.encoder_lr_scale if id(parameter) in chosen else 1.0].append(parameter)
    return [
        {"params": params, "lr": options.lr * scale, "lr_scale": scale}
        for scale, params in parts.items()
        if params
    ]


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set every group's rate: `rate` times its `lr_scale`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


class DeviceAdam(Adam):
    """Adam whose step can be skipped and whose rate can change inside one compiled program.

    The state dict is that of `torch.optim.Adam`. The state exists from the start: made in the
    first step, it would give the second step another graph. The learning rate is a tensor on the
    device, because a Python number would be a constant of the graph. All parameters share one
    step count. torch's own `capturable` step computes sqrt(v) / (c * -lr), which is 0 / 0 where a
    schedule ends at a rate of 0 and a word has not been seen; this one computes
    lr * (m / c1) / (sqrt(v / c2) + eps).

    Adam: A Method for Stochastic Optimization, Kingma and Ba 2015, arXiv:1412.6980; with
    `weight_decay` above 0 the decay is decoupled, Loshchilov and Hutter 2019, arXiv:1711.05101.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        options: OptimizerConfig,
        upload: Callable[[Tensor], Tensor],
    ) -> None:
        """Args:
        groups: as of `parameter_groups`, on the device; all parameters take part in every step.
        options: rate, betas, eps and decay.
        upload: brings a host tensor to the device as data, never as a constant of a graph.
        """
        super().__init__(
            groups,
            lr=options.lr,
            betas=(options.betas[0], options.betas[1]),
            eps=options.eps,
            weight_decay=options.weight_decay,
            decoupled_weight_decay=True,
        )
        self._upload = upload
        self._options = options
        keep_execution_flags(self)
        self._step_count = upload(torch.zeros(()))
        for parameter in self._parameters():
            self.state[parameter] = {
                "step": self._step_count,
                "exp_avg": upload(torch.zeros(parameter.shape, dtype=parameter.dtype)),
                "exp_avg_sq": upload(torch.zeros(parameter.shape, dtype=parameter.dtype)),
            }
        self.set_learning_rate(options.lr)

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def set_learning_rate(self, rate: float) -> None:
        """Set the rate of the next step."""
        set_learning_rate(self, rate)  # on the host, for the state dict
        self._learning_rate = self._upload(torch.tensor(rate, dtype=torch.float32))

    @torch.no_grad()
    def step_if(self, proceed: Tensor) -> None:
        """Step if `proceed` (bool scalar, on the device) holds, else keep every bit.

        Frees the gradients.

        Gradients that outlive the step would be outputs of the compiled program: 4 bytes a weight
        written to memory in every step, for nobody.
        """
        (beta1, beta2), eps = self._options.betas, self._options.eps
        count = self._step_count + 1
        # 1 - beta ** count, without the cancellation that costs float32 half its digits.
        correction1 = -torch.expm1(count * math.log(beta1)) if beta1 else torch.ones_like(count)
        correction2 = -torch.expm1(count * math.log(beta2)) if beta2 else torch.ones_like(count)
        root2 = correction2.sqrt()
        # Without a step, the weights of what is new are 0: one choice for a gradient, which may not
        # be finite, where one for each result would be three.
        newest1 = torch.where(proceed, 1.0 - beta1, 0.0)
        newest2 = torch.where(proceed, 1.0 - beta2, 0.0)
        base_rate = torch.where(proceed, self._learning_rate, 0.0)
        scales = [group["lr_scale"] for group in self.param_groups for _ in group["params"]]
        for parameter, scale in zip(self._parameters(), scales, strict=True):
            rate = base_rate * scale
            assert parameter.grad is not None, "every parameter takes part in every step"
            gradient = torch.where(proceed, parameter.grad, 0.0)
            first, second = self.state[parameter]["exp_avg"], self.state[parameter]["exp_avg_sq"]
            first.add_((gradient - first) * newest1)
            second.add_((gradient * gradient - second) * newest2)
            # rate * (first / correction1) / ((second / correction2).sqrt() + eps), with the
            # divisions of whole tensors made ones of scalars.
            change = first / (second.sqrt() + eps * root2)
            decayed: Tensor = parameter
            if self._options.weight_decay:
                decayed = parameter * (1.0 - rate * self._options.weight_decay)
            parameter.copy_(decayed - (rate * root2 / correction1) * change)
            parameter.grad = None
        self._step_count.copy_(torch.where(proceed, count, self._step_count))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state dict of `torch.optim.Adam`, on the host.

        Raises:
            ValueError: it belongs to other parameters, or lacks the state of some.
        """
        super().load_state_dict(state_dict)
        names = [name for group in state_dict["param_groups"] for name in group["params"]]
        entries = [state_dict["state"][name] for name in names if name in state_dict["state"]]
        steps = {float(entry["step"]) for entry in entries}
        if len(entries) != len(names) or len(steps) != 1:
            raise ValueError("the optimizer state must hold every parameter, all at one step")
        self._step_count = self._upload(torch.tensor(steps.pop()))
        for parameter, entry in zip(self._parameters(), entries, strict=True):
            self.state[parameter] = {
                "step": self._step_count,
                "exp_avg": self._upload(entry["exp_avg"].to(parameter.dtype)),
                "exp_avg_sq": self._upload(entry["exp_avg_sq"].to(parameter.dtype)),
            }
        first = self.param_groups[0]
        self.set_learning_rate(float(first["lr"]) / first["lr_scale"])
