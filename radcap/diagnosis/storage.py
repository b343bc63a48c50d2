"""Folders that a run writes: is there room, and may it write there?"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from radcap.config.schema import Config
from radcap.diagnosis.check import FAIL, OK, WARN, Check, gigabytes
from radcap.errors import RadcapError
from radcap.files.atomic import cannot_rename
from radcap.files.locks import has_flock
from radcap.host import places
from radcap.training.inputs import cache_folder
from radcap.training.room import BYTES_PER_PHANTOM_ROW
from radcap.training.run.folder import RunFolder

# float32 weights and Adam's two moments.
_BYTES_PER_PARAMETER = 12
_CURVES_BYTES = 50e6


def run_folder(config: Config) -> Iterator[Check]:
    """The run folder: writable, free, fit for this configuration, and large enough."""
    path = Path(config.run.dir)
    if not _may_write(path):
        yield Check("run folder", FAIL, f"{path}: no permission", "run.dir=FOLDER")
        return
    try:
        folder = RunFolder.look(config)
    except RadcapError as error:
        yield Check("run folder", FAIL, str(error), "run.name=NAME takes another folder")
        return
    state = "finished" if folder.finished else "to be continued" if folder.resumed else "new"
    # The newest, the best, and one that is being written.
    count = config.trainer.keep_checkpoints + 2
    need = count * checkpoint_bytes(config) + _CURVES_BYTES
    free = _free(path)
    found = f"{path}, {state}; {gigabytes(free)} free"
    if free < need:
        found += f", up to {gigabytes(need)} needed for {count} checkpoints"
        fix = "free some space, run.dir=FOLDER, or trainer.keep_checkpoints=1"
        yield Check("run folder", WARN, found, fix)
    else:
        yield Check("run folder", OK, f"{found}, up to {gigabytes(need)} needed")


def file_system(config: Config) -> Iterator[Check]:
    """What the run folder's file system lacks; a folder is made beside it, and deleted, to see."""
    path = _nearest(Path(config.run.dir))
    if not _may_write(path):
        return  # told by the check of the run folder
    name, lacks = "file system", []
    if not has_flock(path):
        lacks.append("has no locks, so .lock.held says who uses a folder")
    probe = Path(tempfile.mkdtemp(prefix=".radcap-probe-", dir=path))
    try:
        (probe / "folder").mkdir()
        (probe / "folder" / "file").touch()
        try:
            (probe / "folder").rename(probe / "renamed")
        except OSError as error:
            if not cannot_rename(error):
                raise
            lacks.append("renames no folders, so checkpoints are put in place file by file")
    finally:
        shutil.rmtree(probe, ignore_errors=True)
    if lacks:
        fix = "none is needed; a disk of this machine (run.dir=FOLDER, with run.mirror) is safer"
        yield Check(name, WARN, f"that of {path} {'; it '.join(lacks)}", fix)
    else:
        yield Check(name, OK, f"that of {path} locks files and renames folders")


def mirror(config: Config) -> Iterator[Check]:
    """The address that gets a copy of the run folder."""
    if config.run.mirror is None:
        return
    from radcap.training.run.mirror import Mirror

    try:
        Mirror(config.run.mirror).check_writable()
    except RadcapError as error:
        yield Check("mirror", FAIL, str(error), "run.mirror=ADDRESS, or null for none")
        return
    yield Check("mirror", OK, f"{config.run.mirror} can be written")


def temporary_folder(config: Config) -> Iterator[Check]:
    """TMPDIR: holds the row groups in use where these are large."""
    name = "temporary files"
    try:
        folder = places.temporary_folder()
    except RadcapError as error:
        found, _, fix = str(error).partition("; ")
        yield Check(name, FAIL, found, fix)
        return
    free, need = _free(folder), 2 * config.data.window_gb * 1e9
    found = f"{folder} (TMPDIR), {gigabytes(free)} free"
    in_hub = config.data.name == "hub" and config.data.path is None
    if in_hub and free < need:
        found += f"; the row groups in use may take {gigabytes(need)}"
        yield Check(name, WARN, found, "export TMPDIR=FOLDER on a larger disk, or data.window_gb=1")
    else:
        yield Check(name, OK, found)


def cache(config: Config) -> Iterator[Check]:
    """The folder of the phantom data set, and the cache or copy of the Hub's."""
    data = config.data
    if data.name == "phantom" and data.path is None:
        need = (data.phantom.train_rows + data.phantom.val_rows) * BYTES_PER_PHANTOM_ROW
        fix = "export RADCAP_CACHE=FOLDER"
        try:
            yield _folder("cache", cache_folder(), need, fix)
        except RadcapError as error:
            yield Check("cache", FAIL, str(error), fix)
    if data.cache is not None:
        yield _folder("data.cache", Path(data.cache), data.cache_gb * 1e9, "data.cache=FOLDER")
    if data.local_copy is not None:
        yield _folder("data.local_copy", Path(data.local_copy), 0, "data.local_copy=FOLDER")


def _folder(name: str, folder: Path, need: float, fix: str) -> Check:
    if not _may_write(folder):
        return Check(name, FAIL, f"{folder}: no permission", fix)
    free = _free(folder)
    found = f"{folder}, {gigabytes(free)} free"
    if free < need:
        return Check(name, WARN, f"{found}, up to {gigabytes(need)} wanted", fix)
    return Check(name, OK, found)


def _may_write(path: Path) -> bool:
    """Whether a folder can be written or made."""
    there = _nearest(path)
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _free(path: Path) -> int:
    return shutil.disk_usage(_nearest(path)).free


def _nearest(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def checkpoint_bytes(config: Config) -> int:
    """Bytes of a checkpoint of the configured model."""
    from radcap.data.collate import load_tokenizer
    from radcap.training.build import num_parameters

    return _BYTES_PER_PARAMETER * num_parameters(config.model, vocab_size=len(load_tokenizer()))
