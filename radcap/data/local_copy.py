"""A data set of the Hub in a local folder, for runs without a network."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from radcap.data.download import Hub
from radcap.data.faults import DataError, one_line
from radcap.data.hub import list_files, split_files
from radcap.data.source import Source, open_source

_log = logging.getLogger(__name__)

_NOTE = "radcap_copy.json"


def copy_to_folder(
    hub: Hub, folder: Path, *, config: str, splits: Sequence[str], revision: str | None
) -> str:
    """Download the splits' parquet files into `folder`, or find them whole there.

    The Hub's own client downloads: what is whole is not fetched again, what is half goes on. The
    note that names the copy is written last. A folder with that note is used without a network.

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
    note = _read_note(folder)
    asked = {"hub_id": hub.hub_id, "config": config}
    if note and any(note.get(name) != value for name, value in asked.items()):
        raise DataError(
            f"data.local_copy={folder} holds {note.get('hub_id')}, {note.get('config')}; name "
            "another folder"
        )
    if note and revision in (None, note["revision"]) and _is_whole(folder, note, splits):
        return str(note["revision"])

    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    commit, stored = list_files(hub, note["revision"] if note and not revision else revision)
    names = [name for split in splits for name in split_files(hub, stored, split, config)]
    _log.warning("data.local_copy: %d files of %s into %s", len(names), hub.hub_id, folder)

    def download() -> Any:
        try:
            return snapshot_download(
                hub.hub_id,
                repo_type="dataset",
                revision=commit,
                local_dir=folder,
                allow_patterns=names,
                etag_timeout=hub.timeout_s,
            )
        except LocalEntryNotFoundError as error:
            raise (error.__cause__ or error) from None  # what could not be reached, and why

    try:
        folder.mkdir(parents=True, exist_ok=True)
        hub.ask(download)
        files = {name: (folder / name).stat().st_size for name in names}
        written = folder / f"{_NOTE}.{os.getpid()}"
        written.write_text(json.dumps({**asked, "revision": commit, "files": files}) + "\n")
        written.replace(folder / _NOTE)
    except OSError as error:
        raise DataError(f"data.local_copy={folder}: {one_line(error)}") from error
    return commit


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


def _is_whole(folder: Path, note: dict[str, Any], splits: Sequence[str]) -> bool:
    """Whether all files of the splits are there in their right size."""
    files = note["files"]
    start = tuple(f"{note['config']}/{split}-" for split in splits)
    has_all = all(any(name.startswith(one) for name in files) for one in start)
    wanted = {name: size for name, size in files.items() if name.startswith(start)}
    try:
        return has_all and all((folder / n).stat().st_size == size for n, size in wanted.items())
    except FileNotFoundError:
        return False
