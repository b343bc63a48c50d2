"""A data set of the Hub in a local folder, for runs without a network.

A file whose size or times are not those of the folder's note is read whole again and compared with
the hash that the Hub stated: a program can set the time of its content, but not that of its entry.
What a disk loses without a trace is not looked for, as reading 38 GB at each start would cost
minutes.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from radcap.data.columns import USUAL, Columns
from radcap.data.faults import DataError
from radcap.data.hub.copy_note import NOTE, Note, NotedFile, read_note, write_note
from radcap.data.hub.digest import Digest
from radcap.data.hub.download import Hub
from radcap.data.hub.repository import RemoteFile, list_repository
from radcap.data.hub.split import split_files
from radcap.data.hub.verified import check_space, fetch_verified
from radcap.data.source import Source, open_folder
from radcap.errors import one_line
from radcap.files.locks import LOCK, Lock, lock, mark_of
from radcap.host.console import progress

_log = logging.getLogger(__name__)

_READERS = 4


def copy_to_folder(
    hub: Hub, folder: Path, *, config: str, splits: Sequence[str], revision: str | None
) -> str:
    """Download the splits' parquet files into `folder`, or find them whole there.

    What is whole is not fetched again, what is half goes on, and what has other bytes than the Hub
    states is fetched anew. The note that names the copy is written last, and removed first where
    another revision takes its place. A folder with that note is used without a network.

    Args:
        hub: the data set.
        folder: gets the data set's form, `CONFIG/SPLIT-*.parquet`, and can be given as data.path.
        config, splits: what to copy.
        revision: see `radcap.data.hub.split.open_hub`.

    Returns:
        The commit.

    Raises:
        DataError: the Hub's faults, as in `open_hub`; the folder cannot be written, or holds a
            copy of something else; the bytes are not those that the Hub states.
    """
    note = _usable(folder, hub.hub_id, config, splits, revision)
    if note is not None and not _touched(folder, note, splits):
        return note.revision
    try:
        with _locked(folder):
            note = _usable(folder, hub.hub_id, config, splits, revision)  # another was faster?
            if note is not None and _is_right(folder, note, splits):
                return note.revision
            return _copy(hub, folder, config, splits, revision)
    except OSError as error:
        raise DataError(f"data.local_copy={folder}: {error.strerror or one_line(error)}") from error


def whole_copy(
    folder: Path, *, hub_id: str, config: str, splits: Sequence[str], revision: str | None
) -> str | None:
    """The commit of a copy that needs no network, by its files' sizes alone; None where some of it
    has to be fetched.

    Raises:
        DataError: the folder holds a copy of something else.
    """
    note = _usable(folder, hub_id, config, splits, revision)
    return None if note is None else note.revision


def _usable(
    folder: Path, hub_id: str, config: str, splits: Sequence[str], revision: str | None
) -> Note | None:
    """The note of a copy that has what is asked for, in its sizes."""
    note = read_note(folder)
    if note is None:
        return None
    if (note.hub_id, note.config) != (hub_id, config):
        raise DataError(
            f"data.local_copy={folder} holds {note.hub_id}, {note.config}; name another folder"
        )
    files = note.of_splits(splits)
    if files is None or revision not in (None, note.revision, note.asked):
        return None
    return note if all(file.has_size(folder / name) for name, file in files.items()) else None


def _touched(folder: Path, note: Note, splits: Sequence[str]) -> dict[str, NotedFile]:
    """The files whose bytes may have changed since they were noted."""
    files = note.of_splits(splits) or {}
    return {name: file for name, file in files.items() if not file.is_untouched(folder / name)}


def _is_right(folder: Path, note: Note, splits: Sequence[str]) -> bool:
    """Whether the files that were touched have their hashes; their times are then noted anew."""
    touched = _touched(folder, note, splits)
    found = _check_all(folder, {name: (one.size, one.digest) for name, one in touched.items()})
    if wrong := [name for name in touched if name not in found]:
        _log.warning("data.local_copy: %s has other bytes than the Hub stated", folder / wrong[0])
        return False
    if found:
        with suppress(OSError):  # a folder that may only be read is read again by the next run
            write_note(folder, replace(note, files={**note.files, **found}))
    return True


def _check_all(folder: Path, wanted: dict[str, tuple[int, Digest]]) -> dict[str, NotedFile]:
    """Those of some files that are there with their size and hash."""
    there = {name: file for name, file in wanted.items() if (folder / name).is_file()}
    if there:
        _log.warning("data.local_copy: reading %d files of %s again", len(there), folder)
    with ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(lambda name: NotedFile.check(folder / name, *there[name]), there)
        return {n: file for n, file in zip(there, found, strict=True) if file is not None}


def _copy(hub: Hub, folder: Path, config: str, splits: Sequence[str], revision: str | None) -> str:
    note = read_note(folder)
    repository = list_repository(hub, note.revision if note and not revision else revision)
    commit = repository.commit
    names = [name for split in splits for name in split_files(repository, split, config)]
    _log.warning("data.local_copy: %d files of %s into %s", len(names), hub.hub_id, folder)
    if note and note.revision != commit:
        (folder / NOTE).unlink(missing_ok=True)  # from here on it is no copy of anything
        note = None
    files = dict(note.files) if note else {}
    remote = dict(zip(names, repository.files(names), strict=True))
    kept = {
        name: files[name]
        for name, file in remote.items()
        if name in files
        and file.digest in (None, files[name].digest)
        and files[name].is_untouched(folder / name)
    }
    unsure = {
        name: (file.size, file.digest)
        for name, file in remote.items()
        if name not in kept and file.size is not None and file.digest is not None
    }
    kept |= _check_all(folder, unsure)
    missing = {name: file for name, file in remote.items() if name not in kept}
    parts = {name: _part(folder / name, commit) for name in missing}
    have = sum(part.stat().st_size for part in parts.values() if part.is_file())
    needed = sum(file.size or 0 for file in missing.values()) - have
    check_space(folder, needed, f"data.local_copy={folder}")
    files |= kept
    for name, file in missing.items():
        files[name] = _download(hub, file, folder / name, parts[name])
    write_note(folder, Note(hub.hub_id, config, revision, commit, files))
    return commit


def _part(final: Path, commit: str) -> Path:
    """Where the beginning of a file lies until it is whole; its own name may leave no room."""
    short = hashlib.sha256(final.name.encode()).hexdigest()[:16]
    return final.with_name(f".{commit[:12]}-{short}.part")


def _download(hub: Hub, file: RemoteFile, final: Path, part: Path) -> NotedFile:
    """Fetch a file, or go on with what is there of it."""
    final.parent.mkdir(parents=True, exist_ok=True)
    with progress(final.name, "MB") as show:
        digest = fetch_verified(hub, file, part, lambda at, size: show(at // 10**6, size // 10**6))
    part.replace(final)
    return NotedFile.of(final, digest)


def _locked(folder: Path) -> Lock:
    """Keep other processes from copying into the folder meanwhile; one that is whole may be only
    readable, so that it is locked itself and not a file in it."""
    folder.mkdir(parents=True, exist_ok=True)
    return lock(os.open(folder, os.O_RDONLY), mark_of(folder / LOCK), on_wait=_log.warning)


def open_copy(
    folder: Path,
    *,
    hub_id: str,
    split: str,
    config: str,
    commit: str,
    columns: Columns = USUAL,
) -> Source:
    """Open a split of a copy under the name and commit it has on the Hub: rows, order and
    positions are the same, so that a run may move from one to the other."""
    source = open_folder(folder, split, config, columns)
    return replace(source, name=hub_id, revision=commit)
