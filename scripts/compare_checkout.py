"""The files of a revision, or of the working tree, in a folder of their own."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

from radcap.errors import ConfigError

WORKING_TREE = "."


def checkout_root() -> Path:
    """The top of the checkout that this is called in.

    Raises:
        ConfigError: it is none.
    """
    try:
        return Path(_git(Path.cwd(), "rev-parse", "--show-toplevel").decode().rstrip("\n"))
    except subprocess.CalledProcessError:
        raise ConfigError(f"{Path.cwd()}: not in a checkout of git") from None


def check_out(root: Path, revision: str, folder: Path) -> str:
    """Write the files of a revision, or of the working tree, into a new folder.

    Returns:
        What it is, as text.

    Raises:
        ConfigError: there is no such revision, or it has no radcap.
    """
    if revision == WORKING_TREE:
        listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        for name in filter(None, listed.decode(errors="surrogateescape").split("\0")):
            path = root / name
            if path.is_file() and not path.is_symlink():  # not deleted, no link such as .venv
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(path.read_bytes())
        described = f"the working tree of {root}"
    else:
        try:
            words = ("rev-parse", "--verify", "--quiet", "--end-of-options")
            commit = _git(root, *words, f"{revision}^{{commit}}").decode().strip()
        except subprocess.CalledProcessError:
            raise ConfigError(
                f"{revision}: no such revision in {root}; git log --oneline --all lists them"
            ) from None
        with tarfile.open(fileobj=io.BytesIO(_git(root, "archive", commit))) as files:
            files.extractall(folder, filter="data")
        described = _git(root, "log", "-1", "--format=%h %s", commit).decode().strip()
    if not (folder / "radcap" / "__init__.py").is_file():
        raise ConfigError(f"{revision}: no radcap/ in it")
    return described


def _git(root: Path, *words: str) -> bytes:
    """What git says.

    Raises:
        CalledProcessError: it refuses.
        ConfigError: it is not installed.
    """
    try:
        # In a session of its own, so that Ctrl-C is no refusal of git.
        return subprocess.run(
            ["git", "-C", root, *words], capture_output=True, check=True, start_new_session=True
        ).stdout
    except FileNotFoundError:
        raise ConfigError("git is not installed, and the commits are its") from None
