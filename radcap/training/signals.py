"""SIGTERM and SIGINT end a run in good order: after the step in hand, with a checkpoint."""

from __future__ import annotations

import os
import signal
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

    def __init__(self) -> None:
        self.requested = False

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
        if self.requested:
            os.write(2, f"radcap: {name} again, ending at once without saving\n".encode())
            os._exit(EXIT_STOPPED)
        self.requested = True
        say(f"{name}: saving after this step, then stopping; a second signal ends at once")
