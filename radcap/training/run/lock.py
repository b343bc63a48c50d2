"""One process a folder."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from radcap.errors import RadcapError
from radcap.files.locks import InUse, Lock, lock
from radcap.files.locks import holder as holder_of
from radcap.files.reading import open_regular

LOCK = ".lock"
LOCK_FILES = {LOCK, f"{LOCK}.held"}  # the second one where the file system has no locks


def holder(path: Path) -> str | None:
    """The process that has a folder, looked for without changing it; None for nobody.

    Raises:
        OSError: the lock's file is there and cannot be read.
    """
    try:
        with open_regular(path / LOCK) as file:
            return holder_of(file.fileno(), _mark(path, LOCK))
    except FileNotFoundError:
        return None


def _mark(path: Path, name: str) -> Path:
    return path / f"{name}.held"


def in_use(path: Path, who: str, remedy: str) -> RadcapError:
    """What is said of a folder that another process has."""
    return RadcapError(f"{path} is in use by {who}; wait for it, or {remedy}")


def check_held(path: Path, held: Lock) -> None:
    """Make sure that a locked folder is still the one of that name, and still there.

    Raises:
        RadcapError: it was deleted, moved or replaced.
    """
    try:
        is_it = os.path.samestat((path / LOCK).stat(), os.fstat(held.fileno())) and held.is_held()
    except (FileNotFoundError, NotADirectoryError):
        is_it = False
    except OSError:  # a mount that has gone for a while
        return
    if not is_it:
        raise RadcapError(
            f"{path} was deleted, moved or replaced while it was in use: nothing more can be kept "
            "there; put it back where it was moved, or the same command starts anew"
        )


def lock_folder(path: Path, remedy: str, *, name: str = LOCK) -> Lock:
    """Lock a folder until the lock given back is closed, or the process ends, however it does.

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
    try:
        held = lock(descriptor, _mark(path, name))
    except InUse as error:
        raise in_use(path, str(error), remedy) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return held
