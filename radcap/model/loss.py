"""The output layer and its cross-entropy over the valid tokens of a batch, as a sum and a count.

Sums and counts can be added over micro-batches, devices and evaluation batches; means cannot.

Shape legend: B batch, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class OutputLayer(nn.Linear):
    """`nn.Linear` from D to the logits of V words, and the losses of these.

    The losses are the layer's own, because over 30,522 words both together dominate the step of a
    small model: see `radcap.forms.loss` for what a device makes of them.
    """

    def token_losses(self, hidden: Tensor, targets: Tensor, pad_id: int) -> Tensor:
        """Cross-entropy of every position in nats.

        Args:
            hidden: [B, T, D], floating.
            targets: int ids [B, T].
            pad_id: [PAD] of the tokenizer that made them.

        Returns:
            [B, T], 0 at [PAD]; float32, or float64 for float64 logits.
        """
        return self._cross_entropy(hidden, targets, pad_id, "none").view(targets.shape)

    def loss_sum(self, hidden: Tensor, targets: Tensor, pad_id: int) -> Tensor:
        """Sum of `token_losses`, a scalar; without a valid token 0, and its gradients are zeros."""
        return self._cross_entropy(hidden, targets, pad_id, "sum")

    def row_losses(self, hidden: Tensor, targets: Tensor, pad_id: int) -> Tensor:
        """Sum of the `token_losses` of every row, [B]; 0 for a row without a valid token."""
        return self.token_losses(hidden, targets, pad_id).sum(dim=-1)

    def _cross_entropy(self, hidden: Tensor, targets: Tensor, pad_id: int, sums: str) -> Tensor:
        logits = self(hidden).flatten(0, 1)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        ids = targets.flatten().long()
        return F.cross_entropy(logits, ids, ignore_index=pad_id, reduction=sums)
