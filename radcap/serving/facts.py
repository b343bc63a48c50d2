"""Facts from files of unknown origin, which may not be what they should be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from radcap.files.markup import code

PHANTOM = "phantom"
NUMBER = (int, float)


def fact(facts: Any, name: str, kind: type | tuple[type, ...]) -> Any:
    """A value of nested mappings, as a file of unknown origin holds them.

    Args:
        facts: mappings inside mappings.
        name: the keys, joined by dots.
        kind: what it has to be; a bool is no number, and neither are NaN and infinity.

    Returns:
        None where there is no such value, or one of another kind.
    """
    value = facts
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, kind):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def told(form: str, facts: Any, names: Mapping[str, type | tuple[type, ...]]) -> str | None:
    """Some facts in words, texts as code spans; None where one of them is missing.

    Args:
        form: of `str.format`.
        facts: see `fact`.
        names: name -> kind, in the order of the form.
    """
    values = [fact(facts, name, kind) for name, kind in names.items()]
    if any(value is None for value in values):
        return None
    return form.format(*(code(one) if isinstance(one, str) else one for one in values))


def data_kind(config: Any) -> str | None:
    """What a run was trained on, by its configuration: folder, phantom or hub; None: not said."""
    if fact(config, "data.path", str):
        return "folder"
    return fact(config, "data.name", str)
