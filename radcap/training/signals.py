"""SIGTERM, SIGINT and SIGHUP end a run in good order: a checkpoint, and the exit status that says
so."""

from __future__ import annotations

import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from radcap.errors import EXIT_STOPPED
from radcap.host.console import say_at_once
from radcap.host.handlers import STOPPING, ask_for_end, handled

# torchrun passes a signal on within moments; a second one by hand takes longer.
ECHO_OF_A_SIGNAL_S = 5.0
_GRACE_S = 25.0


class Stopped(BaseException):
    """A signal came while the run could be interrupted; nothing of its state is half done.

    No library on the way may take it for an error of its own.
    """


class StopRequest:
    """Remembers that a signal asked the run to stop, and sees to it that it does.

    A step is finished first. Waiting for data and validating are broken off. What can be neither
    (a compilation of minutes, a hang in a driver) is ended from another thread when the grace is
    over: what is saved by then is safe.

    Attributes:
        requested: whether a signal has come.
        saving: set while the last checkpoint is written: it is given the time it takes.
    """

    def __init__(
        self,
        *,
        echo_s: float = 0.0,
        grace_s: float = _GRACE_S,
        safe_step: Callable[[], int] = lambda: 0,
        unit: str = "step",
    ) -> None:
        """Args:
        echo_s: seconds in which a second SIGINT is taken for the first one: torchrun passes on to
            its processes what they may have got themselves.
        grace_s: seconds after which a run that has not stopped by itself is ended.
        safe_step: step of the newest whole checkpoint, 0 for none.
        unit: what is counted, for the last words.
        """
        self.requested = False
        self.saving = False
        self._echo_s, self._grace_s = echo_s, grace_s
        self._safe_step = safe_step
        self._unit = unit
        self._first = -math.inf
        self._may_interrupt = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the place of the handlers of SIGTERM, SIGINT and SIGHUP inside a block.

        The first signal asks for a stop, the second ends the process at once. A SIGTERM or SIGHUP
        within moments of the first is taken for its echo: a machine that goes down sends SIGTERM
        from several sides, such as a spot VM's shutdown script and its system, and both the shell
        and the system tell of a closed terminal. For SIGINT see `echo_s`.
        """
        # Python's own handlers wait for the interpreter; a byte in this pipe does not.
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        last_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        done = threading.Event()
        watch = threading.Thread(
            target=self._watch, args=(reader, done), name="radcap-grace", daemon=True
        )
        watch.start()
        try:
            with handled(dict.fromkeys(STOPPING, self._handle)):
                yield
        finally:
            done.set()
            signal.set_wakeup_fd(last_fd)
            os.close(writer)  # ends the watch
            watch.join()
            os.close(reader)

    @contextmanager
    def interrupting(self, allowed: bool = True) -> Iterator[None]:
        """Let a signal break off the block at once.

        Args:
            allowed: False where processes have to stop together.

        Raises:
            Stopped: a signal has come, now or before.
        """
        self._may_interrupt = allowed
        try:
            if allowed and self.requested:
                raise Stopped
            yield
        finally:
            self._may_interrupt = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        now = time.monotonic()
        echo_s = self._echo_s if number == signal.SIGINT else ECHO_OF_A_SIGNAL_S
        if self.requested and now - self._first < echo_s:
            return
        if self.requested:
            self._end(f"{name} again, ending at once without saving")
        self.requested = True
        self._first = now
        say_at_once(f"{name}: saving, then stopping; a second signal ends at once")
        if self._may_interrupt:
            self._may_interrupt = False
            raise Stopped

    def _watch(self, reader: int, done: threading.Event) -> None:
        """Wait for one of the signals, then for the end of the grace."""
        number = -1
        while number not in STOPPING:  # others of a process have handlers of their own
            byte = os.read(reader, 1)
            if not byte:
                return
            number = byte[0]
        ask_for_end()  # the interpreter may wait for a thread that prints into a full pipe
        deadline = time.monotonic() + self._grace_s
        while time.monotonic() < deadline or self.saving:
            if done.wait(0.1):
                return
            if select.select([reader], [], [], 0)[0] and not os.read(reader, 1):
                return
        self._end(f"not stopped {self._grace_s:.0f} s after the signal, ending without saving")

    def _end(self, what: str) -> None:
        step = self._safe_step()
        safe = f"{self._unit} {step} is saved" if step else "nothing is saved yet"
        text = f"{what}; {safe}, and the same command goes on from there"
        say_at_once(text, error=True)  # or nobody reads it: the end is due all the same
        os._exit(EXIT_STOPPED)
