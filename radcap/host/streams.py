"""Standard output and standard error that wait for their reader, but not beyond the end.

A program whose output is a full pipe or a stopped terminal waits until somebody reads on; while it
waits in a blocking write, a signal is heard and then waited over. Here the write itself does not
block: after a signal that asks for the end it is given up, and a run saves in time.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import stat
import sys
import time
from contextlib import suppress
from typing import Any, TextIO

from radcap.host.handlers import begin, end_is_asked

_PATIENCE_S = 2.0  # for the reader of a stream, all in all, once the end is asked for
_LOOK_EVERY_S = 0.1
_PIECE = 4096  # PIPE_BUF: what a pipe takes at once, or not at all
_files: dict[int, PatientFile] = {}
_ERRORS = "radcap"  # what is done with characters that a stream cannot take


class PatientFile(io.RawIOBase):
    """An open file that is written without blocking, and leads nowhere once it is given up."""

    def __init__(self, descriptor: int) -> None:
        """Args:
        descriptor: stays open, and is what `fileno` gives.
        """
        self._descriptor = descriptor
        self._own = _reopened(descriptor)
        self._left_s = _PATIENCE_S

    def fileno(self) -> int:
        return self._descriptor

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:
        """Write some of it; drop it where the reader does not read and the end is requested.

        Raises:
            OSError: as of any write.
        """
        try:
            return self._write(memoryview(data).cast("B")[:_PIECE])
        except OSError as error:
            # A closed terminal. What is in the buffer is written again at the end, and would turn
            # the exit status into Python's own 120.
            if error.errno == errno.EIO and stat.S_ISCHR(os.fstat(self._descriptor).st_mode):
                self.discard()
            raise

    def _write(self, piece: memoryview) -> int:
        while True:
            began = time.monotonic()
            if self._own is None:
                if _takes(self._descriptor, _LOOK_EVERY_S):
                    return os.write(self._descriptor, piece)
            else:
                with suppress(BlockingIOError):
                    return os.write(self._own, piece)
                if _takes(self._own, _LOOK_EVERY_S):
                    time.sleep(_LOOK_EVERY_S / 10)  # a terminal may have room, and for less
            if end_is_asked():
                self._left_s -= time.monotonic() - began
                if self._left_s <= 0:
                    self.discard()

    def discard(self) -> None:
        """Let what is still written lead nowhere."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._descriptor)
        if self._own is not None:
            own, self._own = self._own, None
            os.close(own)


def open_streams() -> None:
    """Make the standard streams safe: closed ones lead nowhere, the others take any text, and drop
    output without a reader once the end of this command is requested.

    They keep the encoding of the locale, or of PYTHONIOENCODING; where that is ASCII alone, as in a
    container without a locale, it is UTF-8. A character that it lacks is written as an escape, a
    name that is no text as the bytes that it is.
    """
    begin()
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123
        elif mode == "r" and isinstance(stream, io.TextIOWrapper):
            # Names come from here, and go to the system in its encoding.
            stream.reconfigure(encoding=sys.getfilesystemencoding(), errors="surrogateescape")
        elif isinstance(stream, io.TextIOWrapper):
            stream.flush()
            _files[stream.fileno()] = file = PatientFile(stream.fileno())
            patient = io.TextIOWrapper(
                io.BufferedWriter(file),
                encoding=_without_ascii(stream.encoding),
                errors=_ERRORS,
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, patient)


def discard(stream: TextIO) -> None:
    """Send what is still written to a stream nowhere, with the content of its buffer."""
    descriptor = stream.fileno()
    if descriptor in _files:
        _files[descriptor].discard()
    else:
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def write_now(descriptor: int, text: str) -> None:
    """Write a few words past all buffers, if they are taken at once, else not at all.

    A handler of signals may come in the middle of a write to the same stream.
    """
    with suppress(OSError):
        if _takes(descriptor, 0.0):
            os.write(descriptor, text.encode(_encoding(descriptor), _ERRORS)[:_PIECE])


def _without_ascii(encoding: str) -> str:
    return "utf-8" if codecs.lookup(encoding).name == "ascii" else encoding


def _encoding(descriptor: int) -> str:
    stream = {1: sys.stdout, 2: sys.stderr}.get(descriptor)
    return getattr(stream, "encoding", None) or "utf-8"


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    """A handler of `codecs`: the byte that half a surrogate pair stands for, else an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    if 0xDC80 <= ord(error.object[error.start]) <= 0xDCFF:
        return bytes([ord(error.object[error.start]) - 0xDC00]), error.start + 1
    escape = error.object[error.start].encode("ascii", "backslashreplace").decode("ascii")
    return escape, error.start + 1


codecs.register_error(_ERRORS, _replaced)


def _reopened(descriptor: int) -> int | None:
    """A pipe or a terminal opened once more: what is set for it counts for this process alone.

    None where that cannot be: a short write after a look does for pipes as well.
    """
    try:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISFIFO(mode) or os.isatty(descriptor)):
            return None
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
        return os.open(f"/proc/self/fd/{descriptor}", flags)
    except OSError:
        return None


def _takes(descriptor: int, seconds: float) -> bool:
    """Whether a file takes something within some seconds, or has an error to tell."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(seconds * 1000))
