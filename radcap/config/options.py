"""How an option is declared: once, with all that is known of it, in `radcap.config.schema`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import field
from functools import partial
from typing import Any

_NONE = object()  # null is a value


def option(
    meaning: str,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] | None = None,
    duration: str | None = None,
    is_place: bool = False,
    then: Any = _NONE,
    is_free: bool = False,
) -> Any:
    """Declare an option that a run keeps for life: what it means and which values it may take.

    Args:
        meaning: one line for people.
        at_least, above, at_most, below: bounds of a number, or of every entry of a list.
        choices: the allowed words.
        duration: "steps" for a `Duration`, "time" for one that may also be given in minutes.
        is_place: a path or an address, which may hold any character; see `radcap.config.overrides`.
        then: of an option that came after the first release, what stands for it where the
            config.yaml of an older run lacks it: the value that does what was done then, which
            may be another one than new runs get.
        is_free: whether a run may resume after it changed.
    """
    rules = {
        "at_least": at_least,
        "above": above,
        "at_most": at_most,
        "below": below,
        "choices": choices,
        "duration": duration,
        "is_place": is_place,
        "is_free": is_free,
    }
    past = {} if then is _NONE else {"then": then}
    # No default here: "???" is OmegaConf's mark for a value that configs/ must give.
    return field(default="???", metadata={"meaning": meaning, **rules, **past})


# An option that may change when a run resumes: it has no effect on the curve.
free = partial(option, is_free=True)


def fields(schema: type) -> Iterator[tuple[dataclasses.Field, type | None]]:
    """Yield the fields of a section, each with its own section class or None."""
    for entry in dataclasses.fields(schema):
        yield entry, None if entry.metadata else entry.default_factory  # type: ignore[misc]


def bound_options(schema: type, prefix: str = "") -> Iterator[str]:
    """Yield the full name of every option that a run keeps for life: it changes its curve."""
    for entry, nested in fields(schema):
        if nested:
            yield from bound_options(nested, f"{prefix}{entry.name}.")
        elif not entry.metadata["is_free"]:
            yield prefix + entry.name


def with_past(stored: Mapping[str, Any], schema: type) -> dict[str, Any]:
    """A stored configuration, or a section of one, with what it is older than.

    Args:
        stored: nested plain values.
        schema: its class.
    """
    whole = dict(stored)
    for entry, nested in fields(schema):
        if nested:
            section = whole.get(entry.name, {})
            if isinstance(section, Mapping) and (section := with_past(section, nested)):
                whole[entry.name] = section
        elif "then" in entry.metadata:
            whole.setdefault(entry.name, entry.metadata["then"])
    return whole
