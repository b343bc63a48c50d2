"""A limit for what a test may take: memory that is asked for beyond it is refused."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WATCHDOG_S = 300


@contextmanager
def bounded(megabytes: int) -> Iterator[None]:
    """Let this process have so much more address space, and end what waits for ever."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * os.sysconf("SC_PAGE_SIZE") + megabytes * 1_000_000

    def stop(*_: object) -> None:
        raise AssertionError("it waits, or goes on and on")

    handler = signal.signal(signal.SIGALRM, stop)
    signal.alarm(_WATCHDOG_S)
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
