"""Whole files of the Hub, each with the hash that the Hub states of it."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from radcap.data.faults import DataError
from radcap.data.hub.digest import Digest, update
from radcap.data.hub.download import Hub
from radcap.data.hub.repository import RemoteFile
from radcap.data.shelf import write_at

_log = logging.getLogger(__name__)

_ATTEMPTS = 3


def check_space(folder: Path, needed: int, name: str) -> None:
    """Refuse at once what the disk cannot hold.

    Args:
        folder: is there.
        needed: bytes to be fetched.
        name: of the folder, for the message.

    Raises:
        DataError: the disk has less free.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{name}: {needed / 1e9:,.1f} GB are to be fetched and {free / 1e9:,.1f} GB are free"
        )


def fetch_verified(
    hub: Hub,
    file: RemoteFile,
    part: Path,
    show: Callable[[int, int], object] = lambda at, size: None,
) -> Digest:
    """Fetch a file, or the rest of a partial copy, until its bytes have the stated hash.

    Args:
        hub: where it is.
        file: what the Hub states.
        part: gets the bytes; what it holds is taken for the beginning of the file.
        show: receives the number of bytes present and that of the whole file.

    Returns:
        The hash; where the Hub states none, the SHA-256 of what came.

    Raises:
        DataError: the Hub's faults, as in `Hub.fetch`; or other bytes came each time.
        OSError: the file cannot be written.
    """
    size = hub.fetch_tail(file.url, 1)[1] if file.size is None else file.size
    for _ in range(_ATTEMPTS):
        found = _fetch(hub, file, size, part, show)
        if file.digest in (None, found):
            return found
        part.unlink()
        _log.warning("%s came with other bytes than the Hub states; fetched again", file.url)
    raise DataError(
        f"{file.url} came {_ATTEMPTS} times with other bytes than the Hub states: hash "
        f"{found.value} instead of {file.digest.value if file.digest else None}"
    )


def _fetch(
    hub: Hub, file: RemoteFile, size: int, part: Path, show: Callable[[int, int], object]
) -> Digest:
    # A link that lies there is not followed: it would lead the bytes elsewhere.
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    with open(descriptor, "r+b", buffering=0) as stream:  # noqa: PTH123
        have = min(stream.seek(0, os.SEEK_END), size)
        stream.truncate(have)
        stream.seek(0)
        running = (file.digest or Digest("0" * 64)).start(size)
        update(running, stream, have)

        # Pieces come in order, so that what is there is always a beginning of the file.
        def write(at: int, data: bytes) -> None:
            write_at(descriptor, at, data)
            running.update(data)
            show(at + len(data), size)

        hub.fetch(file.url, have, size, write)
        os.fsync(descriptor)
    return Digest(running.hexdigest())
