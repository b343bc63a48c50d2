"""Files that only grow, and outlive a full disk."""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from pathlib import Path

from radcap.errors import RadcapError
from radcap.host.console import say

_SECONDS_BETWEEN_WARNINGS = 60.0


class DurableFile:
    """Appends to a file at once, or as soon as its disk takes it.

    What cannot be written (a full disk, a mount that has gone) waits in memory and is tried again
    with the next piece; half a piece never stays in the file. A killed process loses nothing that
    was written.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, making it where there is none; a link would lead out of the folder.

        Raises:
            RadcapError: it cannot be opened, or is a link.
        """
        self.path = path
        # A pipe would be waited for.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            self._descriptor = os.open(path, flags, 0o666)
        except OSError as error:
            raise RadcapError(f"{path} cannot be written: {error.strerror}") from None
        mode = os.fstat(self._descriptor).st_mode
        if not stat.S_ISREG(mode) and path != Path(os.devnull):
            os.close(self._descriptor)
            raise RadcapError(f"{path} cannot be written: it is no file")
        self._size = os.fstat(self._descriptor).st_size
        self._waiting = bytearray()
        self._warned = -_SECONDS_BETWEEN_WARNINGS

    @property
    def waits(self) -> bool:
        """Whether something is not in the file yet."""
        return bool(self._waiting)

    def append(self, data: bytes) -> None:
        """Write `data` and what waits before it."""
        self._waiting += data
        try:
            written = 0
            while written < len(self._waiting):
                written += os.write(self._descriptor, self._waiting[written:])
        except OSError as error:
            with suppress(OSError):  # then the next try begins behind half a piece
                os.ftruncate(self._descriptor, self._size)
            self._warn(error)
            return
        self._size += len(self._waiting)
        self._waiting.clear()

    def flush_to_disk(self) -> None:
        """Let what is written outlive the machine."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            self._warn(error)

    def close(self) -> None:
        """Try once more, and close."""
        self.append(b"")
        os.close(self._descriptor)

    def _warn(self, error: OSError) -> None:
        now = time.monotonic()
        if now - self._warned >= _SECONDS_BETWEEN_WARNINGS:
            self._warned = now
            say(f"warning: {self.path}: {error.strerror}; it is tried again, and the work goes on")
