"""The folder for uploads: its owner's alone, swept, and gone with the command."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from radcap.host.places import temporary_folder

_PREFIX = "radcap-demo-"
_SWEEP_EVERY_S, _SWEEP_AFTER_S = 60.0, 600.0
_ABANDONED_AFTER_S = 3 * _SWEEP_EVERY_S  # every sweep touches the folder


@contextmanager
def private_uploads() -> Iterator[Path]:
    """A folder for uploads that its owner alone may enter; it goes with the block.

    gradio is told of it, and to make no calls of its own, so it must not be imported before.
    What is left in it for minutes, as by a browser that was closed in between, is deleted, and so
    are the folders of commands that were killed.
    """
    home = temporary_folder()
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=home))
    ended = threading.Event()
    sweeper = threading.Thread(target=_sweep, args=(folder, ended), name="radcap-sweep")
    try:
        os.environ["GRADIO_TEMP_DIR"] = str(folder)
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
        sweeper.start()
        yield folder
    finally:
        ended.set()
        if sweeper.ident is not None:
            sweeper.join()
        shutil.rmtree(folder, ignore_errors=True)


def keep_private(folder: Path) -> None:
    """Let the folder be there and its owner's alone, even where something has deleted it.

    Its name is known by then, so that somebody else may have taken it.

    Raises:
        OSError: it cannot be made, or is somebody else's.
    """
    if folder.is_symlink():
        raise FileExistsError(f"{folder}: a link")
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    os.utime(folder)  # or what deletes old things from temporary folders would take it for one


def delete_older(folder: Path, then: float) -> None:
    """Delete what lies in a folder and was last changed before `then`, seconds since 1970."""
    for entry in folder.iterdir():
        try:
            if entry.stat().st_mtime >= then:
                continue
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink()
        except FileNotFoundError:  # read and deleted meanwhile
            continue


def delete_abandoned(parent: Path, then: float) -> None:
    """Delete this user's folders for uploads whose commands are gone.

    Args:
        parent: where they lie.
        then: only those that were not touched since, in seconds since 1970: the number of a
            process says little of one in another container.
    """
    for folder in parent.glob(f"{_PREFIX}*"):
        owner = re.fullmatch(rf"{_PREFIX}(\d+)-\w+", folder.name)
        with suppress(OSError):
            status = folder.lstat()
            is_mine = status.st_uid == os.getuid() and folder.is_dir() and not folder.is_symlink()
            if owner and is_mine and status.st_mtime < then and not _runs(int(owner[1])):
                shutil.rmtree(folder, ignore_errors=True)


def _runs(process: int) -> bool:
    """Whether a process of this number runs, beside this one: in a container all may have one."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _sweep(folder: Path, ended: threading.Event) -> None:
    while True:
        with suppress(OSError):  # of one sweep; the next may do better
            keep_private(folder)
            delete_older(folder, time.time() - _SWEEP_AFTER_S)
            delete_abandoned(folder.parent, time.time() - _ABANDONED_AFTER_S)
        if ended.wait(_SWEEP_EVERY_S):
            break
