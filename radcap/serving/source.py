"""What a word for trained weights names: something on this machine, or a model of the Hub.

Imports no torch: what is surely not there is refused at once.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from radcap.files.names import WEIGHTS_SUFFIXES, fault_in_repository, fault_in_revision, shown
from radcap.host.console import printable

_HUB_ID = re.compile(r"([A-Za-z0-9][^/@\s]*/[^/@\s]+)(?:@(\S+))?")


def hub_model_id(text: str) -> tuple[str, str | None] | None:
    """`owner/name` and the revision of `owner/name[@revision]`; None for anything else."""
    match = _HUB_ID.fullmatch(text)
    if match is None or fault_in_repository(match[1]):
        return None
    if match[2] is not None and fault_in_revision(match[2]):
        return None
    return match[1], match[2]


def fault_in_source(source: str) -> str | None:
    """Why there can be no weights of this name, in a line; None where there may be some.

    What lies on this machine wins over a Hub id of the same name.
    """
    path = Path(source)
    try:
        if path.exists():
            return None
    except OSError as error:  # a name too long, a folder that may not be entered
        return f"{printable(source)}: {error.strerror}"
    except ValueError as error:  # a NUL in it, or half a character
        return f"{shown(source)}: no path ({error})"
    hub_id, rest = hub_model_id(source), source.partition("=")[2]
    if rest and os.path.exists(rest):  # noqa: PTH110 whatever its name
        return f"{printable(source)}: no such file or folder; write {printable(rest)} alone"
    if hub_id is None or path.suffix in WEIGHTS_SUFFIXES:
        return f"{printable(source)}: no such file or folder"
    owner = Path(hub_id[0]).parent
    if owner.is_dir():
        return (
            f"{source}: no such file or folder; for a model of the Hub of that name, run this "
            f"where there is no folder {owner}"
        )
    return None
