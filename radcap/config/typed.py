"""Nested plain values -> a checked `Config`: names, types, bounds. For `radcap.config.compose`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from radcap.config.checks import check
from radcap.config.nearest import did_you_mean, nearest_options
from radcap.config.options import declared
from radcap.config.schema import Config
from radcap.errors import ConfigError, first_line

AnyConfig = TypeVar("AnyConfig", bound=Config)

_LONGEST_NAME = 100  # characters of an unknown option in a message
_LONGEST_REASON = 300  # characters of what OmegaConf says, which quotes values
_MOST_NAMED = 3  # unknown options in one message


def refuse_references(stored: Mapping[str, Any]) -> None:
    """Refuse values that OmegaConf would look up: whoever wrote them may not read this machine.

    Args:
        stored: nested plain values of a file in which only values are saved.

    Raises:
        ConfigError: one of them refers to something.
    """
    waiting: list[Any] = [stored]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += (*value, *value.values())
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and "${" in value:
            raise ConfigError("interpolations, where only values are saved")


def check_names(stored: Any, schema: type[Config] = Config) -> None:
    """Refuse names that are no options, and values in the place of sections.

    Args:
        stored: nested plain values.
        schema: the configuration's class.

    Raises:
        ConfigError: in at most three lines, naming each wrong key and the nearest right one.
    """
    names: list[str] = []

    def walk(node: Any, schema: Any, prefix: str) -> None:
        fields = {entry.name: entry for entry in dataclasses.fields(schema)}
        for name, value in node.items():
            key = f"{prefix}{name}"
            if name not in fields:
                names.append(key)
            elif not fields[name].metadata:
                if not isinstance(value, dict):
                    raise ConfigError(f"{key}: a group of options, not a value")
                walk(value, fields[name].default_factory, key + ".")

    walk(stored, schema, "")
    check_known(names, schema)


def check_known(
    names: Iterable[str], schema: type[Config] = Config, groups: Iterable[str] = ()
) -> None:
    """Refuse full names that are no options.

    Args:
        names: full names.
        schema: the configuration's class.
        groups: config groups, which somebody may have meant.

    Raises:
        ConfigError: as `check_names`.
    """
    known = list(declared(schema))
    unknown = [name for name in names if name not in known]
    wrong = []
    for name in (one[:_LONGEST_NAME] for one in unknown[:_MOST_NAMED]):
        hint = did_you_mean(nearest_options(name, [*known, *groups]))
        wrong.append(f"{name}: no such option{hint}")
    if len(unknown) > _MOST_NAMED:
        wrong[2:] = [f"and {len(unknown) - 2} more unknown options"]
    if wrong:
        raise ConfigError("\n".join(wrong))


def to_config(composed: DictConfig, schema: type[AnyConfig]) -> AnyConfig:
    """The checked configuration.

    Args:
        composed: with a value for every option.
        schema: its class.

    Raises:
        ConfigError: a value is missing, of another type, or out of its bounds.
    """
    typed = OmegaConf.structured(schema)
    OmegaConf.set_readonly(typed, False)
    _unlock(typed)
    try:
        merged = OmegaConf.merge(typed, composed)
        missing = OmegaConf.missing_keys(merged)
        if missing:
            raise ConfigError(f"{sorted(missing)[0]}: no value is set")
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        reason = first_line(error)[:_LONGEST_REASON]
        raise ConfigError(f"{key}: {reason}" if key else reason) from None
    except (OverflowError, RecursionError, ValueError) as error:  # a number of many digits
        raise ConfigError(first_line(error)[:_LONGEST_REASON]) from None
    assert isinstance(config, schema)
    check(config)
    return config


def _unlock(node: DictConfig) -> None:
    """Frozen dataclasses give read-only nodes; merging needs them open."""
    for name in node:
        child = node._get_node(name)
        if isinstance(child, DictConfig):
            OmegaConf.set_readonly(child, False)
            _unlock(child)
