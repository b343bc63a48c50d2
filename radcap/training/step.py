"""One step of training and one of validation, the same on every device.

Nothing here reads the device: a step gives back scalars that are still on it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

from radcap.model.captioner import ImageCaptioningModel
from radcap.runtime.base import Runtime


class TrainStep:
    """Forward, backward, clip, Adam: one update from one global batch."""

    def __init__(
        self,
        model: ImageCaptioningModel,
        optimizer: Optimizer,
        runtime: Runtime,
        *,
        pad_id: int,
        accumulate: int = 1,
        clip_norm: float | None = None,
    ) -> None:
        """Args:
        model, optimizer: placed on the runtime's device.
        pad_id: [PAD] of the tokenizer.
        accumulate: micro-batches that one global batch is cut into.
        clip_norm: largest norm of the whole gradient; None for no clipping.
        """
        self._model = model
        self._optimizer = optimizer
        self._runtime = runtime
        self._pad_id = pad_id
        self._accumulate = accumulate
        self._clip_norm = clip_norm
        self._loss_sum = runtime.compiled(_loss_sum, calls=accumulate)

    def __call__(self, images: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        """Train on one batch.

        The loss is the sum over all target tokens divided by their number, whatever the split into
        micro-batches and devices: the number is known before the first forward pass, so each
        micro-batch's gradient already has its final weight. A batch without a target token, or
        with a loss or gradient that is not finite, changes neither weights nor optimizer state.

        Args:
            images: uint8 [B, 3, 224, 224].
            tokens: int [B, T + 1]; a masked row is all [PAD].

        Returns:
            Scalars on the device: `loss` (mean nats a token), `tokens`, `grad_norm`.
        """
        self._model.train()
        self._optimizer.zero_grad(set_to_none=True)
        runtime = self._runtime
        num_tokens = runtime.sum_over_devices((tokens[:, 1:] != self._pad_id).sum())
        divisor = num_tokens.clamp(min=1)
        loss = torch.zeros((), device=images.device)
        for part in range(self._accumulate):
            with runtime.training_arithmetic():
                loss_sum = self._loss_sum(
                    self._model, self._part(images, part), self._part(tokens, part), self._pad_id
                )
            share = loss_sum / divisor
            share.backward()
            loss = loss + share.detach()
        loss = runtime.sum_over_devices(loss)
        runtime.sum_gradients(self._model)
        gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
        grad_norm = torch.nn.utils.get_total_norm(gradients)
        if self._clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(
                self._model.parameters(), self._clip_norm, grad_norm
            )
        proceed = (num_tokens > 0) & torch.isfinite(loss) & torch.isfinite(grad_norm)
        runtime.update(self._optimizer, proceed)
        return {"loss": loss, "tokens": num_tokens, "grad_norm": grad_norm}

    def _part(self, tensor: Tensor, part: int) -> Tensor:
        """One micro-batch: the same share of the rows of every device, so that none has to move."""
        if self._accumulate == 1:
            return tensor
        shards = tensor.unflatten(0, (self._runtime.num_shards, self._accumulate, -1))
        return shards[:, part].flatten(0, 1)


@torch.no_grad()
def validation_sums(
    model: ImageCaptioningModel, runtime: Runtime, images: Tensor, tokens: Tensor, pad_id: int
) -> dict[str, Tensor]:
    """Score one batch without training: `loss_sum` (nats) and `tokens`, scalars on the device.

    The model must be in evaluation mode.
    """
    with runtime.arithmetic():
        loss_sum = _loss_sum(model, images, tokens, pad_id)
    return {
        "loss_sum": runtime.sum_over_devices(loss_sum),
        "tokens": runtime.sum_over_devices((tokens[:, 1:] != pad_id).sum()),
    }


@torch.no_grad()
def row_loss_sums(
    model: ImageCaptioningModel, runtime: Runtime, images: Tensor, tokens: Tensor, pad_id: int
) -> Tensor:
    """Score every row of a batch: its loss in nats, [B] on the device, 0 for a masked row.

    The model must be in evaluation mode.
    """
    with runtime.arithmetic():
        hidden = model.decode(model.encode_images(images), tokens[:, :-1])
        return model.fc_out.row_losses(hidden, tokens[:, 1:], pad_id)


def _loss_sum(model: ImageCaptioningModel, images: Tensor, tokens: Tensor, pad_id: int) -> Tensor:
    hidden = model.decode(model.encode_images(images), tokens[:, :-1])
    return model.fc_out.loss_sum(hidden, tokens[:, 1:], pad_id)
