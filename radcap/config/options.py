"""How an option is declared: once, with all that is known of it, in `radcap.config.schema`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
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
    fault_in: Callable[[object], str | None] | None = None,
    is_filled: bool = False,
    then: Any = _NONE,
    is_free: bool = False,
    ends_run: bool = False,
    is_scored: bool = False,
    is_of_machine: bool = True,
    hparam: str | None = None,
) -> Any:
    """Declare an option that a run keeps for life: what it means and which values it may take.

    Args:
        meaning: one line for people.
        at_least, above, at_most, below: bounds of a number, or of every entry of a list.
        choices: the allowed words.
        duration: "steps" for a `Duration`, "time" for one that may also be given in minutes.
        is_place: a path or an address, which may hold any character; see `radcap.config.overrides`.
        fault_in: of a name, what keeps it from being one; see `radcap.files.names`.
        is_filled: of a text, whether it holds more than spaces.
        then: of an option that came after the first release, what stands for it where the
            config.yaml of an older run lacks it: the value that does what was done then, which
            may be another one than new runs get.
        is_free: whether a run may resume after it changed.
        ends_run: whether it says where a run ends: a finished one resumes when it changed.
        is_scored: whether it says which rows and tokens validation scores: losses of runs that
            differ in it do not compare.
        is_of_machine: of a free option of the data, whether it says how a machine reads the data
            and not what the data is. An evaluation takes all others over from its run.
        hparam: "shown" in TensorBoard's table of hyperparameters, as every bound option is, or
            "first" there.
    """
    rules = {
        "at_least": at_least,
        "above": above,
        "at_most": at_most,
        "below": below,
        "choices": choices,
        "duration": duration,
        "is_place": is_place,
        "fault_in": fault_in,
        "is_filled": is_filled,
        "is_free": is_free,
        "ends_run": ends_run,
        "is_scored": is_scored,
        "is_of_machine": is_free and is_of_machine,
        "hparam": hparam or (None if is_free else "shown"),
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


def declared(schema: type, prefix: str = "") -> dict[str, dataclasses.Field]:
    """Full name of every option, such as `seed` or `run.name` -> its declaration."""
    found: dict[str, dataclasses.Field] = {}
    for entry, nested in fields(schema):
        name = prefix + entry.name
        found |= declared(nested, f"{name}.") if nested else {name: entry}
    return found


def options_where(schema: type, rule: str, value: Any = True) -> list[str]:
    """Full names of the options whose declaration has this value for a rule of `option`."""
    return [name for name, one in declared(schema).items() if one.metadata[rule] == value]


def value_of(config: Any, name: str) -> Any:
    """The value of an option by its full name."""
    for part in name.split("."):
        config = getattr(config, part)
    return config


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
