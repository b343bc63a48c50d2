"""Waiting for what a test has set going.

No test measures seconds: a machine may be slow, or busy with something else. What must be quick is
measured by what is done: requests, rows, modules loaded (watched.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")

# A watchdog for one process or event: what takes longer hangs, on a slow machine too. The tests
# that need more for a whole training say so.
PATIENCE_S = 900.0


def wait_until(condition: Callable[[], T], what: str, *, every_s: float = 0.02) -> T:
    """Wait for a condition to hold.

    Args:
        condition: looked at again and again; it may also raise what ends the wait.
        what: is waited for, for the message of a test that fails.
        every_s: pause between two looks.

    Returns:
        What the condition gave, which is true.
    """
    end = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        if time.monotonic() > end:
            pytest.fail(f"waited {PATIENCE_S:.0f} s for this: {what}")
        time.sleep(every_s)
    return value


def is_asleep(pid: int) -> bool:
    """Whether no thread of a process computes, or waits for its turn to.

    A moment's look: a process that works may be asleep for a moment too.
    """
    states = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            states.add((task / "stat").read_text().rpartition(")")[2].split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread that has ended meanwhile
    return states == {"S"}


def is_alive(pid: int) -> bool:
    """Whether a process has not ended; a zombie has."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
