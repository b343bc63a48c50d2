"""The output layer with its cross-entropy, which over 30,522 words is a step's greatest product.

Shape legend: B batch, T tokens, N valid tokens, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from radcap.forms.dtypes import autocast_dtype, wide
from radcap.model.loss import OutputLayer

# Rows whose float32 log-probabilities, 4 MB over 30,522 words, stay in a CPU's cache.
_ROWS = 32
_MAX_NATS = 75.0  # exp(75) times 30,522 words is 1e37, of a float32's 3.4e38


class FusedLinearCrossEntropy(OutputLayer):
    """`OutputLayer` whose losses are those of the N valid positions alone, on the host.

    Shapes depend on the data: to know N, a GPU would have to be waited for, and XLA needs static
    ones.
    """

    def loss_sum(self, hidden: Tensor, targets: Tensor, pad_id: int) -> Tensor:
        """As the plain one, with gradients made in place of the logits."""
        valid = targets != pad_id
        dtype = autocast_dtype(hidden)
        bias = None if self.bias is None else self.bias.to(dtype)
        with torch.autocast(hidden.device.type, enabled=False):
            total: Tensor = _LossSum.apply(
                hidden[valid].to(dtype),
                self.weight.to(dtype),
                bias,
                targets[valid].long(),
                torch.is_grad_enabled(),
            )
        return total

    def row_losses(self, hidden: Tensor, targets: Tensor, pad_id: int) -> Tensor:
        """As the plain one."""
        valid = targets != pad_id
        logits = wide(self(hidden[valid]))
        token_losses = logits.new_zeros(targets.shape)
        token_losses[valid] = F.cross_entropy(logits, targets[valid].long(), reduction="none")
        return token_losses.sum(dim=-1)


class IotaLinearCrossEntropy(OutputLayer):
    """`OutputLayer` whose losses pick the targets' logits by comparing an iota.

    No element of the logits is gathered or scattered: with the batch spread over cores, that
    becomes loops and transfers between them.
    """

    def forward(self, input: Tensor, targets: Tensor | None = None) -> Tensor:
        """Map hidden states to logits, or to losses.

        Args:
            input: [..., D]; with targets [B, T, D].
            targets: int ids [B, T], or None.

        Returns:
            Logits [..., V]; with targets the cross-entropy of every position in nats, [B, T],
            in float32 at least.
        """
        if targets is None:
            return super().forward(input)
        dtype = autocast_dtype(input)
        with torch.autocast(input.device.type, enabled=False):
            losses: Tensor = _Losses.apply(input, self.weight, self.bias, targets, dtype)
        return losses

    def token_losses(self, hidden: Tensor, targets: Tensor, pad_id: int) -> Tensor:
        """As the plain one; a loss above 75 nats is too low."""
        return torch.where(targets != pad_id, self(hidden, targets), 0.0)

    def loss_sum(self, hidden: Tensor, targets: Tensor, pad_id: int) -> Tensor:
        """As the plain one."""
        return self.token_losses(hidden, targets, pad_id).sum()


class _LossSum(torch.autograd.Function):
    """Output layer and cross-entropy in one, its gradient made in place of the logits.

    Autograd would keep logits, log-probabilities and two gradients of their size, each written to
    memory and read back: over 30,522 words that costs a CPU more than the products themselves.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        with_gradient: bool,
    ) -> Tensor:
        logits = F.linear(hidden, weight, bias)
        dtype = torch.promote_types(logits.dtype, torch.float32)
        loss_sum = torch.zeros((), dtype=dtype)
        for rows, chosen in zip(logits.split(_ROWS), targets[:, None].split(_ROWS), strict=True):
            log_probs = rows.log_softmax(dim=-1, dtype=dtype)
            loss_sum -= log_probs.gather(1, chosen).sum()
            if not with_gradient:
                continue
            # The gradient of a cross-entropy by its logits: probability, less 1 at the target.
            gradient = log_probs.exp_()
            gradient.scatter_add_(1, chosen, gradient.new_full((1, 1), -1.0).expand_as(chosen))
            rows.copy_(gradient)
        ctx.save_for_backward(hidden, weight, logits)
        return loss_sum

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, gradient = ctx.saved_tensors
        # A scalar, in float32 at least: it multiplies the small factor of every product.
        outer = gradients[0]
        to_hidden = (wide(gradient @ weight) * outer).to(hidden.dtype)
        to_weight = gradient.t() @ (wide(hidden) * outer).to(hidden.dtype)
        to_bias = gradient.sum(dim=0) * outer if ctx.needs_input_grad[2] else None
        return to_hidden, to_weight, to_bias, None, None


class _Losses(torch.autograd.Function):
    """The output layer and its cross-entropy, with as few passes over the logits as can be.

    With x the logits of a position and t its target, the loss is log(sum(exp(x - x_t))). Shifted by
    the target's own logit, which one row of the weights gives beforehand, the sum comes out of the
    very product that makes the logits, where their maximum would cost another pass; it cannot
    vanish, since the target adds 1 to it. Differences are cut off at 75 nats, so that it cannot
    overflow: a token's loss is exact up to there, and grows no further.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, dtype: torch.dtype
    ) -> Tensor:
        logits = F.linear(hidden.to(dtype), weight.to(dtype), bias.to(dtype))
        row = F.embedding(targets, weight).to(dtype)
        # Rounded like the logits, or a sure token's loss would be what the rounding left.
        product = (wide(hidden.to(dtype)) * wide(row)).sum(-1).to(dtype)
        target_logit = wide(product + bias.to(dtype)[targets])
        odds = (wide(logits) - target_logit[..., None]).clamp(max=_MAX_NATS).exp()
        # NaN where any logit is not finite, which cutting off would hide.
        flaw = 0.0 * wide(logits).sum(-1)
        log_total = target_logit + odds.sum(-1).log() + flaw
        ctx.save_for_backward(hidden, weight, logits, log_total, targets)
        if logits.dtype == torch.float32:
            # A TPU rounds the factors of a float32 product, not those of the sum above.
            target_logit = torch.where(_hits(logits, targets), logits, 0.0).sum(-1)
        return log_total - target_logit

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, logits, log_total, targets = ctx.saved_tensors
        dtype, share = logits.dtype, gradients[0][..., None]
        # Below a total that was cut off, a probability would be above 1.
        probability = (wide(logits) - log_total[..., None]).clamp(max=0.0).exp()
        to_logits = probability - _hits(logits, targets).to(probability.dtype)
        # The share of a position multiplies the smaller factor of every product.
        narrow = to_logits.to(dtype)
        to_hidden = torch.einsum("btv,vd->btd", narrow, weight.to(dtype)) * share
        to_weight = torch.einsum("btv,btd->vd", narrow, (hidden * share).to(dtype))
        to_bias = (to_logits * share).sum((0, 1))
        return to_hidden.to(hidden.dtype), to_weight.to(weight.dtype), to_bias, None, None


def _hits(logits: Tensor, targets: Tensor) -> Tensor:
    """Bool [B, T, V], true at the target.

    By comparing: a gather or a scatter becomes loops once the batch is spread.
    """
    vocabulary = torch.arange(logits.shape[-1], device=targets.device, dtype=targets.dtype)
    return vocabulary == targets[..., None]
