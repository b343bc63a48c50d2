"""An exported folder goes to the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from radcap.data.download import status_of
from radcap.data.faults import one_line
from radcap.errors import ConfigError, RadcapError
from radcap.serving.hub import hub_model_id


def check_repository(name: str) -> None:
    """Refuse what is no `owner/name`, before anything is done.

    Raises:
        ConfigError: it is not.
    """
    found = hub_model_id(name)
    if found is None or found[1] is not None:
        raise ConfigError(f"--push {name}: give the repository as OWNER/NAME")


def upload(folder: Path, name: str, *, private: bool) -> str:
    """Put a folder's files into a model repository, which is made where there is none.

    HF_ENDPOINT and HF_TOKEN are respected; the token is neither printed nor written.

    Args:
        folder: all of its files go.
        name: owner/name.
        private: of a repository that is made now.

    Returns:
        The address of the commit.

    Raises:
        RadcapError: not allowed, or out of reach.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    api = HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=name, folder_path=folder, commit_message="Exported by radcap"
        )
    except (HTTPError, OSError, ValueError) as error:
        raise _explain(name, error) from error
    return str(commit.commit_url)


def _explain(name: str, error: Any) -> RadcapError:
    from huggingface_hub import constants

    status = status_of(error)
    where = f"{constants.ENDPOINT}/{name}"
    if status in (401, 403) or "token" in str(error).lower():
        return RadcapError(
            f"not allowed to write {where}"
            + (f" (HTTP {status})" if status else "")
            + ": set HF_TOKEN to a token that may write there; the exported folder stays"
        )
    if status is not None or isinstance(error, ValueError):
        return RadcapError(f"{where} refuses: {one_line(error)}; the exported folder stays")
    return RadcapError(
        f"{where} cannot be reached ({one_line(error)}); the exported folder stays, and the same "
        "command tries again"
    )
