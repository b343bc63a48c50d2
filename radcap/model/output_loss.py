"""Output layer and cross-entropy in one, its gradient made in place of the logits.

Autograd would keep logits, log-probabilities and two gradients of their size, each written to
memory and read back: over 30,522 words that costs a CPU more than the products themselves.

Shape legend: N tokens, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Rows whose float32 log-probabilities, 4 MB over 30,522 words, stay in a CPU's cache.
_ROWS = 32


def output_loss(hidden: Tensor, fc_out: nn.Linear, targets: Tensor) -> Tensor:
    """Sum of the cross-entropies of an output layer, in nats.

    Under autocast the products are of its dtype; softmax and sums are float32, or float64 for
    float64 arguments.

    Args:
        hidden: [N, D], floating.
        fc_out: output layer, D -> V.
        targets: int64 ids [N].

    Returns:
        A scalar; 0 where N is 0.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    weight, bias = fc_out.weight.to(dtype), None if fc_out.bias is None else fc_out.bias.to(dtype)
    with torch.autocast(device, enabled=False):
        return _OutputLoss.apply(hidden.to(dtype), weight, bias, targets)


class _OutputLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
    ) -> Tensor:
        logits = F.linear(hidden, weight, bias)
        wide = torch.promote_types(logits.dtype, torch.float32)
        loss_sum = torch.zeros((), dtype=wide)
        for rows, chosen in zip(logits.split(_ROWS), targets[:, None].split(_ROWS), strict=True):
            log_probs = rows.log_softmax(dim=-1, dtype=wide)
            loss_sum -= log_probs.gather(1, chosen).sum()
            # The gradient of a cross-entropy by its logits: probability, less 1 at the target.
            gradient = log_probs.exp_()
            gradient.scatter_add_(1, chosen, gradient.new_full((1, 1), -1.0).expand_as(chosen))
            rows.copy_(gradient)
        ctx.save_for_backward(hidden, weight, logits)
        return loss_sum

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, gradient = ctx.saved_tensors
        outer = gradients[0].to(hidden.dtype)
        # `outer` is a scalar: it multiplies the small factor of every product.
        to_hidden = (gradient @ weight) * outer
        to_weight = gradient.t() @ (hidden * outer)
        to_bias = gradient.sum(dim=0) * outer if ctx.needs_input_grad[2] else None
        return to_hidden, to_weight, to_bias, None
