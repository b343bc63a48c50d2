"""A model on the Hub: the few files of it that are needed, in the Hub's own cache.

The cache has the form that the Hub's other clients give it: `blobs/HASH`, linked to from
`snapshots/COMMIT/NAME`, and the commit of a branch in `refs/BRANCH`. What lies there is compared
with its hash each time that it is used.
"""

from __future__ import annotations

import os
from pathlib import Path

from radcap.data.faults import DataError
from radcap.data.hub.addresses import endpoint
from radcap.data.hub.answers import status_of
from radcap.data.hub.digest import Digest
from radcap.data.hub.download import Hub
from radcap.data.hub.repository import RemoteFile, list_repository
from radcap.data.hub.verified import check_space, fetch_verified
from radcap.errors import one_line
from radcap.files.atomic import beside, remove_abandoned, write_atomically
from radcap.files.names import is_commit, shown
from radcap.model.weights import WeightsError, WeightsUnavailable

MODEL_FILES = ("model.safetensors", "pytorch_model.bin")  # the first one there is taken
_BESIDE = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
_MOST_BYTES_BESIDE = 50_000_000
_NEWEST = "main"
_TIMEOUT_S, _PATIENCE_S = 20.0, 30.0


class _ModelHub(Hub):
    """Tells its faults as those of weights; a model is given up sooner than a run."""

    def explain(self, error: BaseException) -> WeightsUnavailable:
        """A final fault in one line."""
        status, where = status_of(error), f"{endpoint()}/{self.hub_id}"
        what = f"{self.hub_id}: no such file or folder"
        if status in (401, 403, 404):
            return WeightsUnavailable(
                f"{what}, and {where} is not there or not open to you (HTTP {status}): check the "
                "name and revision, accept its terms if it has any, and set HF_TOKEN to a token "
                "that may read it"
            )
        if status is not None:
            return WeightsUnavailable(f"{what}, and {where} answers HTTP {status}: try again later")
        return _OutOfReach(
            f"{what}, and {where} cannot be reached ({one_line(error)}): give a local folder or "
            "file"
        )


class _OutOfReach(WeightsUnavailable):
    """The Hub has not answered; what was downloaded before may do."""


def download_model(hub_id: str, revision: str | None = None) -> Path:
    """Fetch a model's weights, config and tokenizer, or find them in the Hub's cache.

    HF_ENDPOINT, HF_TOKEN and HF_HOME are respected. Without a network, what was downloaded before
    is used.

    Args:
        hub_id: owner/name.
        revision: branch, tag or commit; None for the newest.

    Returns:
        The folder of the files at one commit.

    Raises:
        WeightsUnavailable: not there, not allowed or out of reach.
        WeightsError: the repository holds no weights.
    """
    hub = _ModelHub(hub_id, kind="model", timeout_s=_TIMEOUT_S, patience_s=_PATIENCE_S)
    hub.patience_to_connect_s = 0.0
    try:
        return _download(hub, revision)
    except _OutOfReach:
        folder = _downloaded_before(hub_id, revision)
        if folder is None:
            raise
        return folder
    except DataError as error:
        raise WeightsUnavailable(f"{hub_id}: {error}") from error
    except OSError as error:
        raise WeightsUnavailable(
            f"{hub_id} cannot be kept in {_home(hub_id)}: {error.strerror or one_line(error)}"
        ) from error


def _download(hub: Hub, revision: str | None) -> Path:
    repository = list_repository(hub, revision)
    weights = [name for name in MODEL_FILES if name in repository.listed][:1]
    if not weights:
        raise WeightsError(
            f"{hub.hub_id}: its repository holds no {' or '.join(MODEL_FILES)}, so it is no model "
            "that radcap can read"
        )
    names = [*(name for name in _BESIDE if name in repository.listed), *weights]
    files = dict(zip(names, repository.files(names), strict=True))
    for name in names:
        size = files[name].size
        if name in _BESIDE and size is not None and size > _MOST_BYTES_BESIDE:
            raise DataError(f"{name} has {size:,} bytes; up to {_MOST_BYTES_BESIDE:,} are read")
    home = _home(hub.hub_id)
    snapshot = home / "snapshots" / repository.commit
    missing = {name: file for name, file in files.items() if not _is_kept(snapshot / name, file)}
    home.mkdir(parents=True, exist_ok=True)
    check_space(home, sum(file.size or 0 for file in missing.values()), str(home))
    for name, file in missing.items():
        _keep(hub, home, snapshot / name, file)
    asked = revision or _NEWEST
    if asked != repository.commit:
        reference = home / "refs" / asked
        reference.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(reference, repository.commit, is_shared=True)
    return snapshot


def _home(hub_id: str) -> Path:
    """The folder of a model in the Hub's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{hub_id.replace('/', '--')}"


def _is_kept(path: Path, file: RemoteFile) -> bool:
    """Whether a file of the cache is what the Hub states; reads it."""
    try:
        is_there = path.is_file() and file.size in (None, path.stat().st_size)
        return is_there and (file.digest is None or file.digest.is_of(path))
    except OSError:
        return False


def _keep(hub: Hub, home: Path, path: Path, file: RemoteFile) -> None:
    """Fetch a file into the cache."""
    blobs = home / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    remove_abandoned(blobs, ".*.partial")
    blob = blobs / file.digest.value if file.digest else None
    if blob is None or not _is_kept(blob, file):  # else another commit has it too
        with beside(blobs / path.name, is_shared=True) as part:
            blob = blobs / fetch_verified(hub, file, part).value
            part.replace(blob)
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path, is_shared=True) as link:
        link.symlink_to(os.path.relpath(blob, path.parent))
        link.replace(path)


def _downloaded_before(hub_id: str, revision: str | None) -> Path | None:
    """What lies in the cache of a revision, where that is whole."""
    home, asked = _home(hub_id), revision or _NEWEST
    try:
        commit = asked if is_commit(asked) else _read_reference(home / "refs" / asked)
        if not is_commit(commit):
            return None
        snapshot = home / "snapshots" / commit
        if not any((snapshot / name).is_file() for name in MODEL_FILES):
            return None
        for name in (*_BESIDE, *MODEL_FILES):
            digest = Digest.read((snapshot / name).resolve().name)
            if (snapshot / name).is_file() and digest and not digest.is_of(snapshot / name):
                raise WeightsUnavailable(
                    f"{hub_id} cannot be reached, and {shown(str(snapshot / name))} has other "
                    "bytes than when it was downloaded: delete it, and try again with a network"
                )
    except (OSError, ValueError):
        return None
    return snapshot


def _read_reference(file: Path) -> str:
    with file.open("rb") as stream:
        return stream.read(64).decode().strip()
