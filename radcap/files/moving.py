"""Folders under another name, also where a file system cannot rename folders.

A bucket that is mounted as a folder (gcsfuse) has no folders that could be renamed, and an overlay
of a container renames none of its lower layers.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

# Not what says that the folder may not be written, is not there, or that the target is. gcsfuse
# counts what it would have to rename, and finds too many (EMFILE).
_CANNOT = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV, errno.EPERM, errno.EINVAL, errno.EMFILE)


def cannot_rename(error: OSError) -> bool:
    """Whether a rename failed since the file system knows none of that kind."""
    return error.errno in _CANNOT


def move_folder(source: Path, target: Path, *, last: str | None = None) -> None:
    """Rename a folder, or where that cannot be move what is in it, file by file.

    Args:
        source: the folder.
        target: its new name, which nothing has.
        last: name of the file whose presence says that the folder is whole: it is moved after all
            others, so that whoever looks for it never takes half a folder for a whole one.

    Raises:
        OSError: it cannot be moved; what was moved before stays where it went.
    """
    try:
        source.rename(target)
    except OSError as error:
        if not cannot_rename(error) or source.is_symlink():
            raise
        move_files(source, target, last=last)


def move_files(source: Path, target: Path, *, last: str | None = None) -> None:
    """What `move_folder` does where folders cannot be renamed; also the rest of what it began.

    Raises:
        OSError: as `move_folder`.
    """
    target.mkdir(exist_ok=True)
    for entry in sorted(source.iterdir(), key=lambda entry: (entry.name == last, entry.name)):
        if entry.name == last:
            flush_to_disk(target)
        if entry.is_dir() and not entry.is_symlink():
            move_files(entry, target / entry.name)
        else:
            _move_file(entry, target / entry.name)
    flush_to_disk(target)
    source.rmdir()


def _move_file(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as error:
        if not cannot_rename(error):
            raise
        shutil.copy2(source, target, follow_symlinks=False)
        if not target.is_symlink():
            flush_to_disk(target)
        source.unlink()


def flush_to_disk(path: Path) -> None:
    """Let a file, or what a folder lists, outlive the machine.

    Raises:
        OSError: the disk is full or at fault.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (cannot_rename(error) and path.is_dir()):  # some write folders through
            raise
    finally:
        os.close(descriptor)
