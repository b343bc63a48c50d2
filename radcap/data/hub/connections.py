"""How many connections a process may have open to the Hub."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

MOST = 16
# Connections that are open when one is refused are refused together: it counts once.
_BETWEEN_CUTS_S = 5.0
_TO_GROW_S = 30.0
_LOOK_S = 1.0


class Connections:
    """Half as many after each refusal (HTTP 429), and one more after each quiet half minute.

    Args:
        most: at the beginning, and ever.
    """

    def __init__(self, most: int = MOST) -> None:
        self.most = self._allowed = max(1, most)
        self._open = 0
        self._cut_or_grown = float("-inf")
        self._changed = threading.Condition()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Wait until another connection may be opened; it counts for the duration of the block."""
        with self._changed:
            while self._open >= self.allowed():
                self._changed.wait(_LOOK_S)  # the number allowed grows with time alone
            self._open += 1
        try:
            yield
        finally:
            with self._changed:
                self._open -= 1
                self._changed.notify()

    def fewer(self) -> None:
        """The Hub said that there are too many requests."""
        with self._changed:
            now = time.monotonic()
            if now - self._cut_or_grown >= _BETWEEN_CUTS_S:
                self._allowed, self._cut_or_grown = max(1, self._allowed // 2), now

    def allowed(self) -> int:
        """How many there may be at present."""
        with self._changed:
            now = time.monotonic()
            if self._allowed < self.most and now - self._cut_or_grown >= _TO_GROW_S:
                self._allowed, self._cut_or_grown = self._allowed + 1, now
            return self._allowed
