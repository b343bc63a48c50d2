"""A data set of the Hub in a local folder, for runs without a network."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from radcap.console import progress
from radcap.data.download import Hub
from radcap.data.faults import DataError, one_line
from radcap.data.hub import list_files, split_files
from radcap.data.shelf import write_at
from radcap.data.source import Source, open_source

_log = logging.getLogger(__name__)

_NOTE = "radcap_copy.json"


def copy_to_folder(
    hub: Hub, folder: Path, *, config: str, splits: Sequence[str], revision: str | None
) -> str:
    """Download the splits' parquet files into `folder`, or find them whole there.

    What is whole is not fetched again, what is half goes on. The note that names the copy is
    written last, and removed first where another revision takes its place. A folder with that note
    is used without a network.

    Args:
        hub: the data set.
        folder: gets the data set's form, `CONFIG/SPLIT-*.parquet`, and can be given as data.path.
        config, splits: what to copy.
        revision: see `radcap.data.hub.open_hub`.

    Returns:
        The commit.

    Raises:
        DataError: the Hub's faults, as in `open_hub`; the folder cannot be written, or holds a
            copy of something else.
    """
    whole = whole_copy(folder, hub_id=hub.hub_id, config=config, splits=splits, revision=revision)
    if whole is not None:
        return whole
    note = _read_note(folder)
    asked = {"hub_id": hub.hub_id, "config": config}
    commit, stored = list_files(hub, note["revision"] if note and not revision else revision)
    names = [name for split in splits for name in split_files(hub, stored, split, config)]
    _log.warning("data.local_copy: %d files of %s into %s", len(names), hub.hub_id, folder)
    try:
        with _locked(folder):
            if not note or note["revision"] != commit:
                (folder / _NOTE).unlink(missing_ok=True)  # from here on it is no copy of anything
                note = None
            files = dict(note["files"]) if note else {}
            for name in names:
                if not _has(folder, files, name):
                    files[name] = _download(hub, folder, name, commit)
            text = json.dumps({**asked, "asked": revision, "revision": commit, "files": files})
            written = folder / f".{_NOTE}"
            written.write_text(text + "\n")
            written.replace(folder / _NOTE)
    except OSError as error:
        raise DataError(f"data.local_copy={folder}: {error.strerror or one_line(error)}") from error
    return commit


def whole_copy(
    folder: Path, *, hub_id: str, config: str, splits: Sequence[str], revision: str | None
) -> str | None:
    """The commit of a copy that needs no network; None where some of it has to be fetched.

    Raises:
        DataError: the folder holds a copy of something else.
    """
    note = _read_note(folder)
    if note is None:
        return None
    if (note.get("hub_id"), note.get("config")) != (hub_id, config):
        raise DataError(
            f"data.local_copy={folder} holds {note.get('hub_id')}, {note.get('config')}; name "
            "another folder"
        )
    known = revision in (None, note["revision"], note.get("asked"))
    return str(note["revision"]) if known and _is_whole(folder, note, splits) else None


def _download(hub: Hub, folder: Path, name: str, commit: str) -> int:
    """Fetch a file, or go on with what is there of it; its size."""
    from huggingface_hub import hf_hub_url

    url = hf_hub_url(hub.hub_id, name, repo_type="dataset", revision=commit)
    _, size = hub.fetch_tail(url, 1)
    final = folder / name
    part = final.with_name(f".{final.name}.{commit[:12]}.part")
    final.parent.mkdir(parents=True, exist_ok=True)
    with part.open("ab", buffering=0) as stream:
        have = min(stream.tell(), size)
        stream.truncate(have)
        # Pieces come in order, so that what is there is always a beginning of the file.
        with progress(name, "MB") as show:

            def write(at: int, data: bytes) -> None:
                write_at(stream.fileno(), at, data)
                show((at + len(data)) // 10**6, size // 10**6)

            hub.fetch(url, have, size, write)
        os.fsync(stream.fileno())
    part.replace(final)
    return size


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes from copying into the folder meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def open_copy(folder: Path, *, hub_id: str, split: str, config: str, commit: str) -> Source:
    """Open a split of a copy under the name and commit it has on the Hub: rows, order and
    positions are the same, so that a run may move from one to the other."""
    source = open_source(split=split, path=str(folder), config=config)
    return replace(source, name=hub_id, revision=commit)


def _read_note(folder: Path) -> dict[str, Any] | None:
    try:
        note = json.loads((folder / _NOTE).read_text())
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) and "revision" in note and "files" in note else None


def _has(folder: Path, files: Mapping[str, int], name: str) -> bool:
    """Whether a file is there in the size that was noted down."""
    try:
        return name in files and (folder / name).stat().st_size == files[name]
    except FileNotFoundError:
        return False


def _is_whole(folder: Path, note: Mapping[str, Any], splits: Sequence[str]) -> bool:
    """Whether all files of the splits are there."""
    files = note["files"]
    starts = [f"{note['config']}/{split}-" for split in splits]
    wanted = [name for name in files if name.startswith(tuple(starts))]
    has_all = all(any(name.startswith(start) for name in wanted) for start in starts)
    return has_all and all(_has(folder, files, name) for name in wanted)
