"""Dropout, its mask drawn the way that each kind of device draws best.

A CPU draws its random numbers four at a time: torch's own draws one after the other in one thread,
which was a tenth of the full model's training step on two cores.

Where whole steps are compiled, the mask is arithmetic on positions. A TPU's generator of random
bits cannot be cut by XLA's partitioner: every core draws the bits of the whole batch, writes them
to memory and uses its own rows of them. A hash of the position and of one random key is cut like
any other elementwise arithmetic, costs no memory traffic, and gives a row the same mask whatever
the number of devices.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

# Odd, from the golden ratio: neighbouring positions start far apart (Knuth, The Art of Computer
# Programming, volume 3, section 6.4).
_STRIDE = -0x61C88647
_LEVELS = 1 << 16  # of a random number of 16 bits
_LANES = 4  # such numbers in one draw of 64 bits


class DrawnDropout(nn.Dropout):
    """`nn.Dropout` by `dropout_by_draws`."""

    def forward(self, input: Tensor) -> Tensor:
        """Map a tensor to one of the same shape and dtype."""
        return dropout_by_draws(input, self.p) if self.training else input


class HashDropout(nn.Dropout):
    """`nn.Dropout` by `dropout_by_hash`."""

    def forward(self, input: Tensor) -> Tensor:
        """Map a tensor to one of the same shape and dtype."""
        return dropout_by_hash(input, self.p) if self.training else input


def dropout_by_draws(x: Tensor, p: float) -> Tensor:
    """Zero every element with probability `p`, and scale the rest so that the mean stays.

    Dropout: A Simple Way to Prevent Neural Networks from Overfitting, Srivastava et al. 2014. The
    probability is `p` to the nearest 1 / 65,536, and the scale is that probability's own, as
    nearly as the dtype has it.

    Args:
        x: floating, any shape, on the host.
        p: in [0, 1); 0 returns `x` itself.

    Returns:
        Of the same shape and dtype.
    """
    assert p < 1.0
    if p == 0.0:
        return x
    dropped = min(round(p * _LEVELS), _LEVELS - 1)
    draws = torch.empty(-(-x.numel() // _LANES), dtype=torch.int64)
    draws.random_(-(1 << 63), None)  # all 64 bits
    levels = draws.view(torch.int16)[: x.numel()].view(x.shape)
    kept = (levels >= dropped - _LEVELS // 2).to(x.dtype)
    return x * kept.mul_(_LEVELS / (_LEVELS - dropped))


def dropout_by_hash(x: Tensor, p: float) -> Tensor:
    """`dropout_by_draws` with `p` itself, of `x` whose first axis may be spread over devices."""
    assert p < 1.0
    if p == 0.0:
        return x
    # As a signed number, a hash lies below this bound in 1 - p of all cases. As a tensor: with a
    # Python number, torch_xla compares in 64 bits, which a TPU has to emulate.
    bound = min(round((1.0 - p) * 2**32) - 2**31, 2**31 - 1)
    least = torch.full((), bound, dtype=torch.int32, device=x.device)
    kept = hash_positions(x.shape, _draw_key(x.device)) < least
    return torch.where(kept, x * (1.0 / (1.0 - p)), 0.0)


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
    """An int32 scalar from the device's random numbers, all of its bits random."""
    high, low = (torch.rand(2, device=device) * 2**16).to(torch.int32).unbind()
    return (high << 16) ^ low


def _wrap(number: int) -> int:
    """The int32 with the same lowest 32 bits."""
    return (number + 2**31) % 2**32 - 2**31
