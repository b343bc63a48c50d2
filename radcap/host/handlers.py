"""The signals that ask a program to end, and who takes them for a while."""

from __future__ import annotations

import mmap
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

Handler = Callable[[int, FrameType | None], object]

# Shared with the data workers, which are forked and do not hear the signals themselves.
_end = mmap.mmap(-1, 1)


def begin() -> None:
    """A command begins, in a process that may have been forked from another command's."""
    global _end
    _end = mmap.mmap(-1, 1)


def ask_for_end() -> None:
    """Note that this process and those forked from it are to end: nothing may wait for long."""
    _end[0] = 1


def end_is_asked() -> bool:
    """Whether a signal has asked this process to end, while somebody handled it."""
    return _end[0] == 1


@contextmanager
def handled(handlers: Mapping[signal.Signals, Handler]) -> Iterator[None]:
    """Let these take their signals inside a block; who took them before does so again after it.

    Those that ask for the end are noted first: see `end_is_asked`.

    SIGHUP, the end of a terminal, stays ignored where it is: that is what nohup is for.
    """
    before = {
        number: signal.signal(number, _noted(handler))
        for number, handler in handlers.items()
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, last in before.items():
            signal.signal(number, last)


def _noted(handler: Handler) -> Handler:
    def handle(number: int, frame: FrameType | None) -> object:
        if number in STOPPING:
            ask_for_end()
        return handler(number, frame)

    return handle
