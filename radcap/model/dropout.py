"""Dropout whose mask is arithmetic on positions where whole steps are compiled.

A TPU's generator of random bits cannot be cut by XLA's partitioner: every core draws the bits of
the whole batch, writes them to memory and uses its own rows of them. A hash of the position and of
one random key is cut like any other elementwise arithmetic, costs no memory traffic, and gives a
row the same mask whatever the number of devices.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Odd, from the golden ratio: neighbouring positions start far apart (Knuth, The Art of Computer
# Programming, volume 3, section 6.4).
_STRIDE = -0x61C88647


def dropout(x: Tensor, probability: float) -> Tensor:
    """Zero each element with a probability and scale the others up (Srivastava et al. 2014).

    Args:
        x: floating, any shape; its first axis may be spread over devices.
        probability: in [0, 1); 0 returns `x` itself.

    Returns:
        Of the same shape and dtype.
    """
    if probability == 0.0:
        return x
    if x.device.type != "xla":
        return F.dropout(x, probability)
    # As a signed number, a hash lies below this bound in 1 - probability of all cases.
    bound = round((1.0 - probability) * 2**32) - 2**31
    # As a tensor: with a Python number, torch_xla compares in 64 bits, which a TPU has to emulate.
    least = torch.full((), min(bound, 2**31 - 1), dtype=torch.int32, device=x.device)
    kept = hash_positions(x.shape, _draw_key(x.device)) < least
    return torch.where(kept, x * (1.0 / (1.0 - probability)), 0.0)


class Dropout(nn.Dropout):
    """`dropout` in training, the identity in evaluation."""

    def forward(self, input: Tensor) -> Tensor:
        """Map a tensor to one of the same shape and dtype."""
        return dropout(input, self.p if self.training else 0.0)


def hash_positions(shape: torch.Size, key: Tensor) -> Tensor:
    """A pseudo-random int32 for every element of a tensor of `shape`; its high bits are the best.

    Rows (all axes but the last) and columns have a well mixed number of their own each. XOR and a
    product with an odd constant, whose carries no sum of a row's and a column's share can imitate,
    make an element's number of the two: two operations for an element, where a generator needs
    dozens.

    Args:
        shape: at least one axis.
        key: int32 scalar.
    """
    rows = key
    for axis, size in enumerate(shape[:-1]):
        # Axis by axis, for a partitioner to cut; products wrap around as unsigned ones do.
        stride = _wrap(_STRIDE * math.prod(shape[axis + 1 : -1]))
        numbers = torch.arange(size, dtype=torch.int32, device=key.device) * stride
        rows = rows + numbers.view(-1, *[1] * (len(shape) - axis - 1))
    columns = torch.arange(shape[-1], dtype=torch.int32, device=key.device) * _STRIDE - key
    return (_mix(rows) ^ _mix(columns)) * _wrap(0x846CA68B)


def _mix(bits: Tensor) -> Tensor:
    """Mix the bits of int32: `lowbias32` of Wellons, "Prospecting for Hash Functions", 2018."""
    bits = _shift_mix(bits, 16) * 0x7FEB352D
    return _shift_mix(_shift_mix(bits, 15) * _wrap(0x846CA68B), 16)


def _shift_mix(bits: Tensor, count: int) -> Tensor:
    """XOR int32 with itself, shifted to the right and filled with zeros."""
    return bits ^ ((bits >> count) & ((1 << (32 - count)) - 1))


def _draw_key(device: torch.device) -> Tensor:
    """An int32 scalar from the device's random numbers, 31 bits of it random."""
    high, low = (torch.rand(2, device=device) * 2**16).to(torch.int32).unbind()
    return (high << 16) ^ low


def _wrap(number: int) -> int:
    """The int32 with the same lowest 32 bits."""
    return (number + 2**31) % 2**32 - 2**31
