"""Footers of files on the Hub, kept for the next start: those of a commit do not change."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path

from radcap.data.hub.repository import RemoteFile, Repository
from radcap.files.atomic import write_atomically
from radcap.files.reading import read_bytes

_MOST_COMMITS = 4  # of one data set
_HASH_BYTES = 32


class KeptFooters:
    """Those of one commit, each in a file of its own: SHA-256 of the rest | the footer.

    A file that is damaged, or of a file that the Hub lists otherwise now, is none. What cannot be
    written is not kept.

    Args:
        folder: holds a folder for each data set and in it one for each commit.
        repository: the data set at its commit.
    """

    def __init__(self, folder: Path, repository: Repository) -> None:
        hub = repository.hub
        self._home = folder / f"{hub.kind}--{hub.hub_id.replace('/', '--')}"
        self._folder = self._home / repository.commit

    def get(self, file: RemoteFile, most: int) -> bytes | None:
        """The end of a file from its footer on; None where it is not kept.

        Args:
            file: as the Hub lists it.
            most: bytes that a footer may have.
        """
        try:
            kept = read_bytes(self._path(file), most=most + _HASH_BYTES)
        except OSError:
            return None
        footer = kept[_HASH_BYTES:]
        return footer if hashlib.sha256(footer).digest() == kept[:_HASH_BYTES] else None

    def put(self, file: RemoteFile, footer: bytes) -> None:
        """Keep one."""
        path = self._path(file)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = hashlib.sha256(footer).digest() + footer
            write_atomically(path, kept, is_shared=True, is_durable=False)

    def forget_old(self) -> None:
        """Remove those of all commits but the ones last opened."""
        with suppress(OSError):
            os.utime(self._folder)
            times = {folder: folder.stat().st_mtime for folder in self._home.iterdir()}
            for folder in sorted(times, key=lambda folder: -times[folder])[_MOST_COMMITS:]:
                shutil.rmtree(folder, ignore_errors=True)

    def _path(self, file: RemoteFile) -> Path:
        listed = f"{file.url} {file.size} {file.digest.value if file.digest else None}"
        return self._folder / hashlib.sha256(listed.encode()).hexdigest()
