"""A model on the Hub: the few files of it that are needed, in the Hub's own cache."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from radcap.data.download import status_of
from radcap.data.faults import one_line
from radcap.model.weights import WeightsError, WeightsUnavailable

MODEL_FILES = ("model.safetensors", "pytorch_model.bin")  # the first one there is taken
_BESIDE = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
_TIMEOUT_S = 20.0
_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([^@\s]+))?")


def hub_model_id(text: str) -> tuple[str, str | None] | None:
    """`owner/name` and the revision of `owner/name[@revision]`; None for anything else."""
    match = _HUB_ID.fullmatch(text)
    return (match[1], match[2]) if match else None


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
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    try:
        api = HfApi()
        info = api.model_info(hub_id, revision=revision, timeout=_TIMEOUT_S)
        stored = {entry.rfilename for entry in info.siblings or ()}
        weights = [name for name in MODEL_FILES if name in stored][:1]
        if not weights:
            raise WeightsError(
                f"{hub_id}: its repository holds no {' or '.join(MODEL_FILES)}, so it is no model "
                "that radcap can read"
            )
        names = [*(name for name in _BESIDE if name in stored), *weights]
        # By the revision's name, not its commit: the cache then knows the name without a network.
        paths = [Path(api.hf_hub_download(hub_id, name, revision=revision)) for name in names]
    except (HTTPError, OSError, ValueError) as error:
        return _cached(hub_id, revision, error)
    if len({path.parent for path in paths}) > 1:  # a folder for each commit
        raise WeightsUnavailable(f"{hub_id} has changed while it was downloaded: try again")
    return paths[-1].parent


def _cached(hub_id: str, revision: str | None, error: Exception) -> Path:
    """What was downloaded before, where the Hub did not refuse; else the error in words."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import IncompleteSnapshotError, LocalEntryNotFoundError

    if status_of(error) is None and not isinstance(error, ValueError):
        try:
            folder = Path(snapshot_download(hub_id, revision=revision, local_files_only=True))
        except (LocalEntryNotFoundError, IncompleteSnapshotError):
            pass
        else:
            if any((folder / name).is_file() for name in MODEL_FILES):
                return folder
    raise _explain(hub_id, revision, error) from error


def _explain(hub_id: str, revision: str | None, error: Any) -> WeightsUnavailable:
    from huggingface_hub import constants

    status = status_of(error)
    what = f"{hub_id}: no such file or folder"
    where = f"{constants.ENDPOINT}/{hub_id}"
    if status in (401, 403, 404):
        at = f" at revision {revision}" if revision else ""
        return WeightsUnavailable(
            f"{what}, and {where}{at} is not there or not open to you (HTTP {status}): check the "
            "name, accept its terms if it has any, and set HF_TOKEN to a token that may read it"
        )
    if status is not None:
        return WeightsUnavailable(f"{what}, and {where} answers HTTP {status}: try again later")
    return WeightsUnavailable(
        f"{what}, and {where} cannot be reached ({one_line(error)}): give a local folder or file"
    )
