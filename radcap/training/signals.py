"""SIGTERM and SIGINT end a run in good order: after the step in hand, with a checkpoint."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from radcap.console import say
from radcap.errors import EXIT_STOPPED


class StopRequest:
    """Remembers that a signal asked the run to stop.

    Attributes:
        requested: whether one has come.
    """

    def __init__(self, *, echo_s: float = 0.0) -> None:
        """Args:
        echo_s: seconds in which a second signal is taken for the first one: torchrun passes on to
            its processes what they may have got themselves.
        """
        self.requested = False
        self._echo_s = echo_s
        self._first = -math.inf

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the place of the handlers of SIGTERM and SIGINT inside a block.

        The first signal asks for a stop. The second ends the process at once.
        """
        signals = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self._handle) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        now = time.monotonic()
        if self.requested and now - self._first < self._echo_s:
            return
        if self.requested:
            os.write(2, f"radcap: {name} again, ending at once without saving\n".encode())
            os._exit(EXIT_STOPPED)
        self.requested = True
        self._first = now
        say(f"{name}: saving after this step, then stopping; a second signal ends at once")
