"""An exported folder goes to the Hub."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from radcap.data.hub.answers import bounded_client, status_of
from radcap.errors import ConfigError, RadcapError, one_line
from radcap.host.console import printable
from radcap.serving.source import hub_model_id

_TIMEOUT_S = 120.0


def check_repository(name: str) -> None:
    """Refuse what is no `owner/name`, before anything is done.

    Raises:
        ConfigError: it is not.
    """
    found = hub_model_id(name)
    if found is None or found[1] is not None:
        raise ConfigError(f"--push {printable(name)}: give the repository as OWNER/NAME")


def upload(folder: Path, name: str, *, private: bool, space: bool = False) -> str:
    """Put a folder's files into a repository of the Hub, which is made where there is none.

    HF_ENDPOINT and HF_TOKEN are respected; the token is neither printed nor written.

    Args:
        folder: all of its files go.
        name: owner/name.
        private: nobody else may see them; otherwise the account's own setting decides.
        space: the repository is a Space with the Gradio SDK, else a model.

    Returns:
        The address of the commit.

    Raises:
        ConfigError: `private`, and the repository is there and public; nothing was sent.
        RadcapError: not allowed, or out of reach.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HTTPError, RepositoryNotFoundError

    api = HfApi()
    kind = "space" if space else "model"
    try:
        with bounded_client(_TIMEOUT_S):
            if private:
                with suppress(RepositoryNotFoundError):
                    _refuse_public(name, api.repo_info(name, repo_type=kind).private)
            api.create_repo(
                name,
                repo_type=kind,
                space_sdk="gradio" if space else None,
                private=True if private else None,
                exist_ok=True,
            )
            commit = api.upload_folder(
                repo_id=name,
                repo_type=kind,
                folder_path=folder,
                commit_message="Exported by radcap",
            )
    # The client wraps what goes wrong with a large file in a RuntimeError.
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise _explain(f"spaces/{name}" if space else name, error) from error
    except (LookupError, TypeError, AttributeError, RecursionError) as error:
        where = f"{constants.ENDPOINT}/{name}"
        raise RadcapError(
            f"{where} answers with what is no answer ({_told(error)}); the exported folder stays"
        ) from error
    return printable(str(commit.commit_url))


def _refuse_public(name: str, private: bool | None) -> None:
    if not private:
        raise ConfigError(
            f"--private: the repository {name} is there and public; make it private on its page, "
            "or push to another one"
        )


def _explain(name: str, error: BaseException) -> RadcapError:
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalTokenNotFoundError

    if type(error) is RuntimeError and error.__cause__ is not None:
        error = error.__cause__
    status = status_of(error)
    where = f"{constants.ENDPOINT}/{name}"
    if status in (401, 403) or isinstance(error, LocalTokenNotFoundError):
        return RadcapError(
            f"not allowed to write {where}"
            + (f" (HTTP {status})" if status else "")
            + ": set HF_TOKEN to a token that may write there; the exported folder stays"
        )
    if status is not None and (status >= 500 or status in (408, 429)):
        return RadcapError(
            f"{where} does not answer now (HTTP {status}); the exported folder stays, and the same "
            "command tries again"
        )
    if status is not None or isinstance(error, ValueError | RuntimeError):
        return RadcapError(f"{where} refuses: {_told(error)}; the exported folder stays")
    return RadcapError(
        f"{where} cannot be reached ({_told(error)}); the exported folder stays, and the same "
        "command tries again"
    )


def _told(error: BaseException) -> str:
    """An error in one line: a header that is refused is quoted, and the token stands in it."""
    from huggingface_hub import get_token

    token = get_token()
    return one_line(error).replace(token, "***") if token else one_line(error)
