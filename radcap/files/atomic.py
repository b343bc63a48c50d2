"""Files and folders that are there whole or not at all: written beside, and then renamed.

After a kill the old content is there or the new, and perhaps a `.NAME.partial`, which the next
write of the same name removes. A download that is to be resumed keeps its beginning instead, see
`radcap.data.hub.local_copy`.

Folders also where a file system cannot rename them: a bucket that is mounted as a folder (gcsfuse)
has none that could be renamed, and an overlay of a container renames none of its lower layers.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_ABANDONED_AFTER_S = 86_400.0  # before, some process, here or elsewhere, may be writing it

# Not what says that the folder may not be written, is not there, or that the target is. gcsfuse
# counts what it would have to rename, and finds too many (EMFILE).
_CANNOT = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV, errno.EPERM, errno.EINVAL, errno.EMFILE)


@contextmanager
def beside(path: Path, *, is_shared: bool = False) -> Iterator[Path]:
    """A name next to a file or folder under which to write it; the block renames what is whole.

    What has that name when the block fails is removed.

    Args:
        path: the file or folder.
        is_shared: whether several processes or threads may write it at a time. Each then has a name
            of its own, and `remove_abandoned` removes what killed ones left. Else the name is
            always the same, and what has it is removed first: a link would lead elsewhere.

    Raises:
        OSError: what is there cannot be removed.
    """
    token = f".{secrets.token_hex(8)}" if is_shared else ""
    partial = path.with_name(f".{path.name}{token}.partial")
    if not is_shared:
        remove(partial)
    try:
        yield partial
    except BaseException as error:
        # An interrupted folder stays as after a kill: some of it may be in its place already.
        if is_shared or isinstance(error, Exception) or not partial.is_dir():
            with suppress(OSError):
                remove(partial)
        raise


@contextmanager
def new_file(path: Path, *, is_shared: bool = False, is_durable: bool = True) -> Iterator[BinaryIO]:
    """Replace a file by what the block writes, unless it fails.

    Args:
        path, is_shared: see `beside`.
        is_durable: False: the end of the machine may leave a file of zeros.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    with beside(path, is_shared=is_shared) as partial:
        with partial.open("xb") as stream:
            yield stream
            stream.flush()
            if is_durable:
                os.fsync(stream.fileno())
        partial.replace(path)


def write_atomically(
    path: Path, content: str | bytes, *, is_shared: bool = False, is_durable: bool = True
) -> None:
    """Replace a file by a new content, see `new_file`; text in UTF-8.

    Half a surrogate pair, as a name that is no text has for each odd byte, stands there as an
    escape.
    """
    if isinstance(content, str):
        content = content.encode("utf-8", "backslashreplace")
    with new_file(path, is_shared=is_shared, is_durable=is_durable) as stream:
        stream.write(content)


@contextmanager
def new_folder(path: Path, *, last: str, is_shared: bool = False) -> Iterator[Path]:
    """A folder to fill; it is called `path`, which nothing is then, at the end of the block.

    Args:
        path, is_shared: see `beside`.
        last: see `move_folder`.

    Raises:
        OSError: it cannot be made or moved.
    """
    with beside(path, is_shared=is_shared) as partial:
        partial.mkdir()
        yield partial
        move_folder(partial, path, last=last)


def remove(path: Path) -> None:
    """Delete a file or a folder, if it is there; of a link the link, never what it leads to.

    Raises:
        OSError: it cannot be deleted.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_abandoned(folder: Path, pattern: str) -> None:
    """Delete the files of a pattern that processes left half written over a day ago.

    Raises:
        OSError: one cannot be deleted.
    """
    for partial in folder.glob(pattern):
        if time.time() - partial.stat().st_mtime > _ABANDONED_AFTER_S:
            partial.unlink(missing_ok=True)


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
