"""The hash that the Hub states of a file, and whether bytes have it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radcap.files.names import is_commit, is_sha256

_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Digest:
    """A hash of a file's content.

    Attributes:
        value: in hexadecimal digits: 64 are the SHA-256 of a large file, 40 git's name of a small
            one (the SHA-1 of `blob SIZE\\0` and the content).
    """

    value: str

    @classmethod
    def read(cls, value: object) -> Digest | None:
        """One of the two forms; None for anything else."""
        return cls(str(value)) if is_sha256(value) or is_commit(value) else None

    def start(self, size: int) -> Any:
        """An object with `update` and `hexdigest` for a file of `size` bytes."""
        if is_sha256(self.value):
            return hashlib.sha256()
        return hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)

    def is_of(self, file: Path) -> bool:
        """Whether a file has this hash; raises OSError where it cannot be read."""
        with file.open("rb", buffering=0) as stream:
            running = self.start(file.stat().st_size)
            update(running, stream)
        return running.hexdigest() == self.value


def update(running: Any, stream: Any, size: int | None = None) -> None:
    """Read on in a stream to its end, or by `size` bytes, and count them in."""
    while piece := stream.read(_READ_BYTES if size is None else min(size, _READ_BYTES)):
        running.update(piece)
        if size is not None:
            size -= len(piece)
