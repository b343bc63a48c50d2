"""Names that come from outside: of repositories, revisions, commits, files and splits.

They become parts of paths and addresses, so each is of a known form or refused. A name that passes
cannot lead out of the folder that it is joined to, and prints in one line.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TypeGuard

MOST_BYTES = 255  # of one component: what file systems take
MOST_PATH_BYTES = 1_000
WEIGHTS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
_SHOWN = 80

_OWNER_OR_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_DATA_REVISION = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,99}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
# What git forbids in branches and tags, in addition to what no path may hold.
_NOT_IN_A_REVISION = re.compile(r"[\s~^:?*\[]|\.\.|@\{")
_NOT_IN_A_SPLIT = re.compile(r"[/*?\[\]]")


def shown(name: object) -> str:
    """A name as a message quotes it: in one line, escaped where it does not print, cut short."""
    if isinstance(name, dict | list):  # of any depth
        return f"a {type(name).__name__}"
    text = ascii(name) if not (isinstance(name, str) and name.isprintable()) else repr(name)
    return shortened(text, _SHOWN)


def shortened(value: object, most: int = 60) -> str:
    """At most so many characters of a value: a number may have thousands of digits."""
    try:
        text = str(value)
    except ValueError:  # more digits than Python writes out
        return "..."
    return text if len(text) <= most else f"{text[:most]}..."


def fault_in_path(name: object) -> str | None:
    """What keeps a relative path, its components joined by "/", from being safe; None if nothing.

    Safe is what stays below the folder that it is joined to, and that any file system can hold.
    """
    if not isinstance(name, str):
        return "it is no text"
    if not name:
        return "it is empty"
    if not name.isprintable():
        return "it holds characters that do not print"
    if "\\" in name:
        return "it holds a backslash"
    if name.startswith("/"):
        return "it is an absolute path"
    for component in name.split("/"):
        if component in ("", ".", ".."):
            return f"it has a component {component!r}"
        if len(component.encode()) > MOST_BYTES:
            return f"it has a component of more than {MOST_BYTES} bytes"
    if len(name.encode()) > MOST_PATH_BYTES:
        return f"it has more than {MOST_PATH_BYTES} bytes"
    return None


def fault_in_split(name: object) -> str | None:
    """As `fault_in_path`, for the name of a split: one component, no pattern."""
    fault = fault_in_path(name)
    if fault is None and (found := _NOT_IN_A_SPLIT.search(str(name))):
        fault = f"it holds {found[0]!r}"
    return fault


def fault_in_revision(name: object) -> str | None:
    """As `fault_in_path`, for a branch (also `refs/pr/1`), a tag or a commit."""
    fault = fault_in_path(name)
    if fault is not None:
        return fault
    text = str(name)
    if found := _NOT_IN_A_REVISION.search(text):
        return f"it holds {found[0]!r}"
    if len(text.encode()) > MOST_BYTES:
        return f"it has more than {MOST_BYTES} bytes"
    if any(part.startswith(".") or part.endswith(".lock") for part in PurePosixPath(text).parts):
        return "git allows no such name"
    return None


def fault_in_repository(name: object) -> str | None:
    """As `fault_in_path`, for a repository of the Hub: `owner/name`, or `name` alone."""
    parts = name.split("/") if isinstance(name, str) else []
    if not 1 <= len(parts) <= 2 or not all(map(_OWNER_OR_NAME.fullmatch, parts)):
        return "it is not of the form owner/name"
    if any(".." in part or "--" in part for part in parts):
        return "the Hub allows neither '..' nor '--' in it"
    return None


def is_commit(name: object) -> bool:
    """Whether it is a commit of git: 40 hexadecimal digits in lower case."""
    return isinstance(name, str) and _COMMIT.fullmatch(name) is not None


def is_data_revision(name: object) -> TypeGuard[str]:
    """Whether it may be the commit of a data set, or the hash of a folder's files: no branch as
    `fault_in_revision` allows, and nothing that a configuration would look up."""
    return isinstance(name, str) and _DATA_REVISION.fullmatch(name) is not None


def is_sha256(name: object) -> bool:
    """Whether it is a SHA-256: 64 hexadecimal digits in lower case."""
    return isinstance(name, str) and _SHA256.fullmatch(name) is not None
