"""Files that anybody may have made: opened only where they are files, and read only so far.

A pipe or a device in the place of a file would be waited for, or have no end.
"""

from __future__ import annotations

import codecs
import errno
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

# What git leaves in the place of a large file where git-lfs has not fetched it:
# https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
LFS_POINTER = "a git-lfs pointer in the place of the file; git lfs pull fetches the file itself"
_LFS_START = b"version https://git-lfs.github.com/spec/"
_MOST_LFS_BYTES = 1024  # a pointer is shorter

_NO_FILE = "neither a file nor a folder"


def is_lfs_pointer(data: bytes) -> bool:
    """Whether a whole file's bytes are a git-lfs pointer to another file."""
    return data.startswith(_LFS_START) and len(data) < _MOST_LFS_BYTES


def is_lfs_pointer_file(path: str | Path) -> bool:
    """As `is_lfs_pointer`, of a file; False where it cannot be read."""
    try:
        with open_regular(path) as stream:
            return is_lfs_pointer(stream.read(_MOST_LFS_BYTES))
    except (OSError, ValueError):  # a NUL in its name
        return False


def open_regular(path: str | Path) -> BufferedReader:
    """Open a file for reading, without waiting for anybody.

    Raises:
        OSError: not there or not readable, or a folder, a pipe, a device or a socket.
    """
    check_regular(path)  # opening some devices does something
    return open(str(path), "rb", opener=_open_at_once)


def check_regular(path: str | Path) -> int:
    """Make sure that a library which takes a name will find a file there.

    Returns:
        Its bytes.

    Raises:
        OSError: as `open_regular`.
    """
    status = os.stat(path)  # noqa: PTH116 also of what is no Path
    _check(status, path)
    return status.st_size


def read_bytes(path: str | Path, *, most: int) -> bytes:
    """What a file holds.

    Raises:
        OSError: as `open_regular`, or it has more than `most` bytes.
    """
    with open_regular(path) as stream:
        data = stream.read(min(most, os.fstat(stream.fileno()).st_size) + 1)
        if len(data) > most or os.fstat(stream.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"more than {most:,} bytes", str(path))
    return data


def read_text(path: str | Path, *, most: int) -> str:
    """As `read_bytes`, of text in UTF-8, or in UTF-16 with the byte order mark it then has.

    A mark at the beginning is no part of the text.

    Raises:
        ValueError: it is in another encoding; says where, and what to do.
        OSError: as `read_bytes`.
    """
    data = read_bytes(path, most=most)
    is_wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"no UTF-8 text: byte {error.object[error.start]:#04x} in line {line}; save it as UTF-8"
        ) from None


def read_lines(path: str | Path, *, most: int) -> Iterator[bytes]:
    """The lines of a file of any length, one after the other, each with its end.

    Of a line of more than `most` bytes nothing comes but an empty one.

    Raises:
        OSError: as `open_regular`.
    """
    with open_regular(path) as stream:
        whole = True
        while piece := stream.readline(most):
            ended = piece.endswith(b"\n")
            if whole and (ended or len(piece) < most):
                yield piece
            elif whole:
                yield b"\n"
            whole = ended


def _open_at_once(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        _check(os.fstat(descriptor), path)  # it may be another one by now
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _check(status: os.stat_result, path: str | Path) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, _NO_FILE, str(path))
