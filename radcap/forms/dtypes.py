"""The dtypes that arithmetic is done in."""

from __future__ import annotations

import torch
from torch import Tensor


def wide(values: Tensor) -> Tensor:
    """Floats in float32 at least: long sums of narrower ones would lose their last digits."""
    return values if values.dtype == torch.float64 else values.float()


def autocast_dtype(tensor: Tensor) -> torch.dtype:
    """Autocast's dtype on a tensor's device; where that is off, the tensor's own.

    Args:
        tensor: floating.
    """
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype
