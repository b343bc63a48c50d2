"""Which device likes which form of a module: three lists, and the one place that applies them.

A form is a subclass that computes what its plain class computes, in the way that suits a device. A
list changes classes alone: names, parameters and their order stay. Plain modules are right on every
device; one that is missing here is slower at worst, unless it is a norm: see `convert`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from radcap.errors import ConfigError
from radcap.forms.attention import DrawnDropoutAttention, HeadsApartAttention
from radcap.forms.dropout import DrawnDropout, HashDropout
from radcap.forms.embedding import AutocastEmbedding
from radcap.forms.encoder import Float32Encoder, TiledEncoder
from radcap.forms.loss import FusedLinearCrossEntropy, IotaLinearCrossEntropy
from radcap.forms.norm import AutocastLayerNorm, GlobalBatchNorm
from radcap.forms.spread import Spread
from radcap.model.decoder import MultiHeadAttention
from radcap.model.encoder import ImageEncoder
from radcap.model.loss import OutputLayer

Forms = Mapping[type[nn.Module], type[nn.Module]]  # plain class -> its form

XLA: Forms = {
    ImageEncoder: TiledEncoder,  # first blocks on tiles of images, which fill wide lanes
    nn.BatchNorm2d: GlobalBatchNorm,  # sums that a partitioner can cut
    nn.LayerNorm: AutocastLayerNorm,  # likewise, and half the bytes between layers
    nn.Embedding: AutocastEmbedding,  # word gradients in bf16
    MultiHeadAttention: HeadsApartAttention,
    nn.Dropout: HashDropout,  # masks that a partitioner can cut
    OutputLayer: IotaLinearCrossEntropy,  # no gather of logits
}
CPU: Forms = {
    ImageEncoder: Float32Encoder,  # outside of autocast
    MultiHeadAttention: DrawnDropoutAttention,
    nn.Dropout: DrawnDropout,  # four random numbers at a time
    OutputLayer: FusedLinearCrossEntropy,  # valid positions, gradients in place of logits
}
# For several processes that share a global batch.
PROCESSES: Forms = {
    nn.BatchNorm2d: GlobalBatchNorm,  # statistics over all of it
}

_PLAIN = {form: plain for forms in (XLA, CPU, PROCESSES) for plain, form in forms.items()}
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm)


class Runtime(Protocol):
    """What is asked of a runtime; see `radcap.runtime.base`."""

    device: torch.device
    num_shards: int
    num_processes: int

    def sum_over_devices(self, value: Tensor) -> Tensor:
        """Over all processes."""

    def place(self, model: nn.Module) -> None:
        """Move to the device."""


def place(model: nn.Module, runtime: Runtime) -> None:
    """Give a model the forms that a runtime's devices like, and move it there, in place.

    Before the optimizer is made, and after `encoder.freeze`.

    Raises:
        ConfigError: as `convert`.
    """
    kind = runtime.device.type
    if kind == "xla":  # where one program sees the rows of all processes
        convert(model, XLA, Spread(num_groups=runtime.num_shards))
    elif runtime.num_processes > 1:
        spread = Spread(num_processes=runtime.num_processes, total=runtime.sum_over_devices)
        convert(model, {**(CPU if kind == "cpu" else {}), **PROCESSES}, spread)
    else:
        convert(model, CPU if kind == "cpu" else {})
    runtime.place(model)


def convert(model: nn.Module, forms: Forms, spread: Spread | None = None) -> None:
    """Give each module of a model its form in a list, or its plain class back, in place.

    Only modules of exactly a plain class are converted: what a subclass adds, such as an activation
    inside of a norm, would be lost. Most can stay as they are. A norm cannot where the list
    has one of its kind: it would see a part of the batch alone.

    Args:
        model: of plain modules, or converted before.
        forms: a list of the above, or several as one.
        spread: how a global batch is spread; None where it is not.

    Raises:
        ConfigError: a norm has no form in the list; the model is as it was.
    """
    kinds = tuple(kind for kind in _NORMS if any(issubclass(plain, kind) for plain in forms))
    chosen: list[tuple[Any, type[nn.Module]]] = []
    for name, module in model.named_modules():
        plain = _PLAIN.get(type(module), type(module))
        form = forms.get(plain, plain)
        fits = getattr(form, "fits", None)
        if fits is not None and not fits(module):
            form = plain
        if form is plain and isinstance(module, kinds):
            raise ConfigError(
                f"{name or 'the model'}, a {plain.__module__}.{plain.__qualname__}: of this norm, "
                "as it is set, radcap.forms.lists has no form for a batch on several devices; use "
                "nn.BatchNorm2d or nn.LayerNorm over the last axis, or add a form"
            )
        chosen.append((module, form))
    for module, form in chosen:
        module.__class__ = form
        if form in _PLAIN:
            module.spread = spread or Spread()
