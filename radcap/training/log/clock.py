"""Where the time of a run goes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Clock:
    """Wall time by purpose, over all processes that a run had.

    Attributes:
        seconds: seconds by purpose, such as "data", "train" or "validate".
    """

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        """Args:
        seconds: what earlier processes of the run took.
        """
        self.seconds: dict[str, float] = dict(seconds or {})

    @contextmanager
    def measure(self, purpose: str) -> Iterator[None]:
        """Count the time of a block under a purpose."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.add(purpose, time.monotonic() - start)

    def add(self, purpose: str, seconds: float) -> None:
        """Count seconds under a purpose."""
        self.seconds[purpose] = self.seconds.get(purpose, 0.0) + seconds

    def total(self) -> float:
        """Seconds of all purposes together."""
        return sum(self.seconds.values())


def rate_text(rate: float) -> str:
    """A rate for people, such as images a second: `1,234`, `57`; below 10 with a decimal, `3.5`,
    and below 0.1 with the first digit that is not 0."""
    if rate >= 9.95:
        return f"{rate:,.0f}"
    return f"{rate:.1f}" if rate >= 0.1 or not rate else f"{rate:.1g}"


def duration_text(seconds: float) -> str:
    """Seconds for people: `42 s`, `3 min 5 s` or `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
