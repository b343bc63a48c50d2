"""Batch norm and layer norm whose sums are plain sums, so that they can be spread over devices.

Shape legend: B batch, C channels, H height, W width, D width of a token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from radcap.forms.dtypes import autocast_dtype, wide
from radcap.forms.spread import Spread


class GlobalBatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` over the rows of all devices, in float32 at least.

    As torch does, training normalises with the biased variance and keeps the unbiased one
    (torch_xla's own keeps the biased one). XLA's partitioner cannot cut its batch norm operation:
    the whole batch would be gathered on every device, and the encoder run there in full.
    """

    spread: Spread

    @staticmethod
    def fits(plain: nn.Module) -> bool:
        """Whether a batch norm has weights, and running statistics that move."""
        assert isinstance(plain, nn.BatchNorm2d)
        return plain.affine and plain.track_running_stats and plain.momentum is not None

    def forward(self, input: Tensor, halo: int = 0) -> Tensor:
        """Map [B, C, H, W] to the same shape and dtype.

        Args:
            input: a whole batch.
            halo: so many rows (of H) at the top of every image are normalised like the others,
                but left out of the batch's statistics.
        """
        assert self.weight is not None and self.bias is not None
        assert self.running_mean is not None and self.running_var is not None
        if not self.training:
            inverse = torch.rsqrt(self.running_var + self.eps)
            scale = self.weight * inverse
            shift = self.bias - self.running_mean * scale
            return (wide(input) * _over_channels(scale) + _over_channels(shift)).to(input.dtype)
        batch, _, height, width = input.shape
        count = batch * (height - halo) * width * self.spread.num_processes
        counted = None
        if halo:
            rows = torch.arange(height, device=input.device) >= halo
            counted = rows.to(self.weight.dtype)[:, None]
        output, mean, variance = _BatchNorm.apply(
            input, self.weight, self.bias, counted, self.eps, count, self.spread
        )
        self._keep(mean, variance * (count / max(count - 1, 1)))
        return output

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor) -> None:
        assert self.num_batches_tracked is not None and self.momentum is not None
        assert self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


class _BatchNorm(torch.autograd.Function):
    """Two sums forward and two backward, each pair in one exchange between processes."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor,
        counted: Tensor | None,
        eps: float,
        count: int,
        spread: Spread,
    ) -> tuple[Tensor, Tensor, Tensor]:
        values = wide(input)
        own = values if counted is None else values * counted
        # E[x^2] - E[x]^2, as XLA itself has it: one pass over the input instead of two.
        sums = torch.stack([own.sum((0, 2, 3)), (own * values).sum((0, 2, 3))])
        mean, mean_square = (spread.total(sums) / count).unbind()
        variance = (mean_square - mean.square()).clamp(min=0)
        inverse = torch.rsqrt(variance + eps)
        scale = weight * inverse
        shift = bias - mean * scale
        output = values * _over_channels(scale) + _over_channels(shift)
        ctx.save_for_backward(input, weight, counted, mean, inverse)
        ctx.count, ctx.total = count, spread.total
        ctx.mark_non_differentiable(mean, variance)
        return output.to(input.dtype), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, counted, mean, inverse = ctx.saved_tensors
        gradient = wide(gradients[0])
        centred = wide(input) - _over_channels(mean)
        to_weight = inverse * (gradient * centred).sum((0, 2, 3))
        own = torch.stack([gradient.sum((0, 2, 3)), to_weight])
        mean_gradient, mean_product = (ctx.total(own) / ctx.count).unbind()
        # scale * (gradient - mean_gradient - normalised * mean_product), where the products of
        # what belongs to a channel come first: fewer of them for every pixel.
        scale = weight * inverse
        through_statistics = centred * _over_channels(scale * inverse * mean_product)
        through_statistics = through_statistics + _over_channels(scale * mean_gradient)
        if counted is not None:
            through_statistics = through_statistics * counted
        to_input = gradient * _over_channels(scale) - through_statistics
        # The gradients of weight and bias stay this process's own: they are added up with all
        # others after the backward pass.
        return to_input.to(input.dtype), own[1], own[0], None, None, None, None


class AutocastLayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` over the last axis, computed in float32.

    torch_xla makes a batch norm of it, with the rows as channels, which its partitioner gathers.
    Under autocast the result is narrow, and with it the residual sums between layers: half the
    bytes of what torch's own autocast leaves in float32.
    """

    @staticmethod
    def fits(plain: nn.Module) -> bool:
        """Whether a layer norm is over the last axis, with weight and bias."""
        assert isinstance(plain, nn.LayerNorm)
        return len(plain.normalized_shape) == 1 and plain.bias is not None

    def forward(self, input: Tensor) -> Tensor:
        """Map [..., D] to the same shape, in the dtype of autocast, else of the input."""
        values = wide(input)
        centred = values - values.mean(-1, keepdim=True)
        inverse = torch.rsqrt(centred.square().mean(-1, keepdim=True) + self.eps)
        return (centred * inverse * self.weight + self.bias).to(autocast_dtype(input))


def _over_channels(values: Tensor) -> Tensor:
    """[C] -> [1, C, 1, 1]."""
    return values[None, :, None, None]
