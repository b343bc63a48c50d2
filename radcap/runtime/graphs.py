"""Counts compiled graphs by what they were compiled for, and tells when training has a new one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from radcap.host.console import say

STRICT = "RADCAP_STRICT_GRAPHS"


class GraphWatch:
    """Attributes compilations to purposes.

    Compiling is counted by the device; whatever was added between two looks belongs to the
    purpose of that time. Training has one graph, made in its first step; another one means
    a shape or a constant that changes, and minutes of waiting on a TPU.

    Attributes:
        counts: graphs compiled, by purpose.
        step: the training step in progress, for messages.
    """

    def __init__(self, num_compiled: Callable[[], int]) -> None:
        """Args:
        num_compiled: compilations in this process so far.
        """
        self._num_compiled = num_compiled
        self._seen = num_compiled()
        self._purpose = "setup"
        self._accepted: int | None = None  # training graphs after the first step
        self._first_input = ""
        self.counts: Counter[str] = Counter()
        self.step: int | None = None

    @contextmanager
    def purpose(self, name: str, step: int | None = None) -> Iterator[None]:
        """Count what is compiled inside for `name`."""
        self.look()
        outer, self._purpose, self.step = self._purpose, name, step
        try:
            yield
        finally:
            self.look()
            self._purpose = outer

    def look(self) -> None:
        """Attribute what was compiled since the last look."""
        total = self._num_compiled()
        if total > self._seen:
            self.counts[self._purpose] += total - self._seen
        self._seen = total

    def end_step(self, described_input: str) -> None:
        """Look, and tell about a training graph after the first step.

        Args:
            described_input: shapes and dtypes of the step's batch.

        Raises:
            AssertionError: there is one, and RADCAP_STRICT_GRAPHS=1 is set.
        """
        self.look()
        if self._purpose != "train":
            return
        if self._accepted is None:
            self._accepted, self._first_input = self.counts["train"], described_input
        elif self.counts["train"] > self._accepted:
            self._accepted = self.counts["train"]
            message = (
                f"step {self.step} compiled a new training graph (number {self._accepted}): its "
                f"batch was {described_input}, the first one {self._first_input}"
            )
            if os.environ.get(STRICT) == "1":
                raise AssertionError(message)
            say(f"warning: {message}")
