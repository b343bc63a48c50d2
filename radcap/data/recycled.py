"""Memory of batches, used again once nobody holds the batch."""

from __future__ import annotations

import math
import mmap
import weakref
from contextlib import suppress

import numpy as np


class Recycled:
    """Makes uint8 arrays of one shape.

    Memory fresh from the system is cleared when it is first written to, which costs as much as
    copying a batch's pictures there. As many arrays as were ever held at the same time are kept
    for as long as this object lives.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Args: shape: of each array."""
        self._shape = shape
        self._free: list[mmap.mmap] = []

    def take(self) -> np.ndarray:
        """An array of any content. Its memory comes back when it, its views and the tensors that
        share it have all gone, in whatever thread; to be called in one thread at a time."""
        memory = self._free.pop() if self._free else _map(math.prod(self._shape))
        # Not of an array's memory: views of this array would then refer past it to that one.
        array = np.ndarray(self._shape, np.uint8, buffer=memory)
        weakref.finalize(array, self._free.append, memory).atexit = False
        return array


def _map(size: int) -> mmap.mmap:
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
