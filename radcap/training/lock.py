"""One process a folder."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import weakref
from pathlib import Path
from typing import IO

from radcap.errors import RadcapError
from radcap.reading import open_regular

_LONGEST_NUMBER = 20  # digits of a process

# A forked loader process shares the lock, and outlives a killed run by a moment: the same command
# given again at once would be refused.
_LOCKS: weakref.WeakSet[IO[str]] = weakref.WeakSet()
os.register_at_fork(after_in_child=lambda: [lock.close() for lock in _LOCKS])


def holder(path: Path) -> str | None:
    """The process that has a folder, looked for without changing it; None for nobody.

    Raises:
        OSError: the lock's file is there and cannot be read.
    """
    try:
        with open_regular(path / ".lock") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _number(lock.read(_LONGEST_NUMBER))
    except FileNotFoundError:
        pass
    return None


def _number(held: str | bytes) -> str:
    """The number of a process, as a lock's file holds it."""
    text = held.decode(errors="replace") if isinstance(held, bytes) else held
    return text.strip() if text.strip().isdecimal() else "unknown"


def in_use(path: Path, number: str, remedy: str) -> RadcapError:
    """What is said of a folder that another process has."""
    return RadcapError(f"{path} is in use by process {number}; wait for it, or {remedy}")


def check_held(path: Path, lock: IO[str]) -> None:
    """Make sure that a locked folder is still the one of that name, and still there.

    Raises:
        RadcapError: it was deleted, moved or replaced.
    """
    try:
        is_it = os.path.samestat((path / ".lock").stat(), os.fstat(lock.fileno()))
    except (FileNotFoundError, NotADirectoryError):
        is_it = False
    except OSError:  # a mount that has gone for a while
        return
    if not is_it:
        raise RadcapError(
            f"{path} was deleted, moved or replaced while it was in use: nothing more can be kept "
            "there; put it back where it was moved, or the same command starts anew"
        )


def lock_folder(path: Path, remedy: str, *, name: str = ".lock") -> IO[str]:
    """Lock a folder until the file given back is closed, or the process ends, however it does.

    The kernel drops the lock with the process, so a killed one leaves none behind.

    Args:
        path: the folder.
        remedy: what to do where another process has it.
        name: of the file in it that is held.

    Raises:
        RadcapError: another process has it; its number is named.
        OSError: the folder cannot be written.
    """
    descriptor = os.open(path / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"{name} is no file")
    lock = os.fdopen(descriptor, "r+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        number = _number(lock.read(_LONGEST_NUMBER))
        lock.close()
        raise in_use(path, number, remedy) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    _LOCKS.add(lock)
    return lock
