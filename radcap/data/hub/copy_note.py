"""The note in a folder that holds a copy of a data set: which one, and each file's size and hash.

It may have been written by anybody, so that what it says is looked at before it is used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radcap.data.hub.answers import MOST_FILE_BYTES
from radcap.data.hub.digest import Digest
from radcap.data.split_files import files_of_split
from radcap.files.atomic import write_atomically
from radcap.files.names import fault_in_path, is_commit

NOTE = "radcap_copy.json"
_MOST_BYTES = 32_000_000


@dataclass(frozen=True)
class NotedFile:
    """What is noted of a file.

    Attributes:
        size: in bytes.
        digest: the hash it had.
        times: when its content and its entry in the folder had last changed then, in nanoseconds.
    """

    size: int
    digest: Digest
    times: tuple[int, int]

    @classmethod
    def read(cls, content: Any) -> NotedFile | None:
        """From the note; None where that is damaged."""
        if not isinstance(content, dict):
            return None
        size, digest, times = (content.get(key) for key in ("size", "digest", "times"))
        found = Digest.read(digest)
        if type(size) is not int or not 0 <= size <= MOST_FILE_BYTES or found is None:
            return None
        if not isinstance(times, list) or [type(time) for time in times] != [int, int]:
            return None
        return cls(size, found, (times[0], times[1]))

    @classmethod
    def of(cls, file: Path, digest: Digest) -> NotedFile:
        """Of a file that has just been written with this hash; raises OSError."""
        return cls(file.stat().st_size, digest, _times(file))

    @classmethod
    def check(cls, file: Path, size: int, digest: Digest) -> NotedFile | None:
        """Read a file; None where it is not there in this size with this hash.

        Raises:
            PermissionError: it may not be read.
        """
        try:
            found = cls(size, digest, _times(file))  # before: a change meanwhile is then seen
            return found if found.has_size(file) and digest.is_of(file) else None
        except PermissionError:
            raise
        except OSError:  # not there, or a disk that does not give it back
            return None

    def has_size(self, file: Path) -> bool:
        """Whether the file is there in its size."""
        try:
            return file.stat().st_size == self.size
        except OSError:
            return False

    def is_untouched(self, file: Path) -> bool:
        """Whether the file is there as it was noted; its bytes are not read."""
        return self.has_size(file) and _times(file) == self.times


@dataclass(frozen=True)
class Note:
    """What a folder holds.

    Attributes:
        hub_id, config: the data set and its configuration.
        asked: the revision as it was asked for.
        revision: its commit.
        files: name -> what is noted of it.
    """

    hub_id: str
    config: str
    asked: str | None
    revision: str
    files: Mapping[str, NotedFile]

    def of_splits(self, splits: Sequence[str]) -> dict[str, NotedFile] | None:
        """The files of some splits; None where one has none."""
        found = [files_of_split(self.files, split, self.config) for split in splits]
        if not all(found):
            return None
        return {name: self.files[name] for names in found for name in names}


def read_note(folder: Path) -> Note | None:
    """What a folder's note says; None where there is none, or a damaged one."""
    file = folder / NOTE
    try:
        if file.stat().st_size > _MOST_BYTES:
            return None
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
        return None
    hub_id, config, asked, revision = (
        content.get(key) for key in ("hub_id", "config", "asked", "revision")
    )
    is_text = isinstance(hub_id, str) and isinstance(config, str)
    if not is_text or not isinstance(asked, str | None) or not is_commit(revision):
        return None
    files = {name: NotedFile.read(entry) for name, entry in content["files"].items()}
    known = {name: entry for name, entry in files.items() if entry is not None}
    if len(known) < len(files) or any(map(fault_in_path, files)):
        return None
    return Note(str(hub_id), str(config), asked, str(revision), known)


def write_note(folder: Path, note: Note) -> None:
    """Write a folder's note, or leave the one that is there; raises OSError."""
    files = {
        name: {"size": file.size, "digest": file.digest.value, "times": list(file.times)}
        for name, file in note.files.items()
    }
    content = {"hub_id": note.hub_id, "config": note.config, "asked": note.asked}
    text = json.dumps({**content, "revision": note.revision, "files": files})
    write_atomically(folder / NOTE, text + "\n")


def _times(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_mtime_ns, stat.st_ctime_ns
