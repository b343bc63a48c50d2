"""A number that a process shares with those that are forked from it."""

from __future__ import annotations

import mmap
import os
import struct
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

_NUMBER = struct.Struct("q")


class SharedCount:
    """A count that several processes and threads take from.

    `multiprocessing.Value` does the same with a lock that lies in /dev/shm, which a container may
    lack or hold read-only. Here a byte in a pipe is the lock: whoever has read it has it.
    """

    def __init__(self, value: int) -> None:
        self._memory = mmap.mmap(-1, _NUMBER.size)
        self._reader, self._writer = os.pipe()
        weakref.finalize(self, _close, self._reader, self._writer)
        _NUMBER.pack_into(self._memory, 0, value)
        os.write(self._writer, b"-")

    @property
    def value(self) -> int:
        """What is left."""
        with self._locked():
            return int(_NUMBER.unpack_from(self._memory)[0])

    def give(self, amount: int) -> None:
        """Add so much; less than nothing takes it, down to below zero."""
        with self._locked():
            _NUMBER.pack_into(self._memory, 0, _NUMBER.unpack_from(self._memory)[0] + amount)

    def take(self, amount: int) -> bool:
        """Subtract so much; False, and nothing is, where there is less."""
        with self._locked():
            left = _NUMBER.unpack_from(self._memory)[0] - amount
            if left >= 0:
                _NUMBER.pack_into(self._memory, 0, left)
            return left >= 0

    @contextmanager
    def _locked(self) -> Iterator[None]:
        os.read(self._reader, 1)
        try:
            yield
        finally:
            os.write(self._writer, b"-")


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
