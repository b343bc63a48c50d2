"""Cross-entropy over the valid tokens of a batch, as a sum and a count.

Sums and counts can be added over micro-batches, devices and evaluation batches; means cannot.

Shape legend: B batch, T tokens, N valid tokens, D width, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from radcap.autocast import wide
from radcap.model.output import OutputLayer


def caption_loss(
    hidden: Tensor, fc_out: OutputLayer, targets: Tensor, *, pad_id: int
) -> tuple[Tensor, Tensor]:
    """Sum of the token losses and number of tokens, [PAD] targets ignored.

    The output layer is applied here, because over 30,522 words it dominates the step of a small
    model: a CPU computes it at valid positions only. To know how many these are, a GPU would have
    to be waited for, and XLA needs static shapes: they compute all of it.

    Args:
        hidden: [B, T, D], floating.
        fc_out: output layer, D -> V.
        targets: int ids [B, T].
        pad_id: [PAD] of the tokenizer that made them.

    Returns:
        Sum of cross-entropies in nats (float32, or float64 for float64 logits) and number of
        valid tokens (int64), both scalars on the device. Without a valid token the sum is 0 and
        its gradients are zeros.
    """
    if hidden.device.type == "xla":
        return masked_loss(hidden, fc_out, targets, pad_id=pad_id)
    if hidden.device.type == "cpu":
        return selected_loss(hidden, fc_out, targets, pad_id=pad_id)
    return padded_loss(hidden, fc_out, targets, pad_id=pad_id)


def selected_loss(
    hidden: Tensor, fc_out: OutputLayer, targets: Tensor, *, pad_id: int
) -> tuple[Tensor, Tensor]:
    """`caption_loss` with the N valid positions selected first: shapes depend on the data."""
    valid = targets != pad_id
    loss_sum = fc_out.loss_sum(hidden[valid], targets[valid].long())
    return loss_sum, valid.sum()


def padded_loss(
    hidden: Tensor, fc_out: OutputLayer, targets: Tensor, *, pad_id: int
) -> tuple[Tensor, Tensor]:
    """`caption_loss` with static shapes, by torch's own cross-entropy."""
    logits = wide(fc_out(hidden)).flatten(0, 1)
    ids = targets.flatten().long()
    loss_sum = F.cross_entropy(logits, ids, ignore_index=pad_id, reduction="sum")
    return loss_sum, (targets != pad_id).sum()


def row_losses(hidden: Tensor, fc_out: OutputLayer, targets: Tensor, *, pad_id: int) -> Tensor:
    """Sum of the token losses of every row, [B]; arguments and dtype as for `caption_loss`.

    A row without a valid token has 0.
    """
    if hidden.device.type == "xla":
        return _masked_token_losses(hidden, fc_out, targets, pad_id).sum(dim=-1)
    valid = targets != pad_id
    logits = wide(fc_out(hidden[valid]))
    token_losses = logits.new_zeros(targets.shape)
    token_losses[valid] = F.cross_entropy(logits, targets[valid].long(), reduction="none")
    return token_losses.sum(dim=-1)


def masked_loss(
    hidden: Tensor, fc_out: OutputLayer, targets: Tensor, *, pad_id: int
) -> tuple[Tensor, Tensor]:
    """`caption_loss` with static shapes and without a gather.

    No element of the logits is gathered or scattered: with the batch spread over cores, that
    becomes loops and transfers between them.
    """
    losses = _masked_token_losses(hidden, fc_out, targets, pad_id)
    return losses.sum(), (targets != pad_id).sum()


def _masked_token_losses(
    hidden: Tensor, fc_out: OutputLayer, targets: Tensor, pad_id: int
) -> Tensor:
    """Cross-entropies [B, T], 0 at [PAD]."""
    return torch.where(targets != pad_id, fc_out(hidden, targets), 0.0)


def mean_loss(loss_sum: Tensor, num_tokens: Tensor) -> Tensor:
    """Mean loss of a token; 0 when there is none."""
    return loss_sum / num_tokens.clamp(min=1)
