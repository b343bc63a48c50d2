"""Small files of names and values, JSON or YAML, that anybody may have written.

What comes out of them is plain: dicts with texts for keys, lists, texts, numbers, true, false and
null, not deep and not many. Nothing in them is code, refers to the environment or to itself. What
the values mean, and their range, is for whoever reads them to check.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from radcap.errors import one_line
from radcap.files.reading import read_text

MOST_BYTES = 4_000_000  # of JSON
MOST_YAML_BYTES = 250_000  # its parser takes a second for these
_MOST_DEPTH = 32
_MOST_VALUES = 200_000
_MOST_YAML_VALUES = 20_000
_MOST_NUMBER = 10**30
_LONGEST_NUMBER = 400  # characters; YAML counts in sixties too, which takes their square
_TAGS = {
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map")
}
# What PyYAML raises for a number, a bool or a document that is none.
_NO_YAML = (yaml.YAMLError, RecursionError, LookupError, AttributeError, TypeError, OverflowError)


class _Loader(yaml.SafeLoader):
    """Plain values alone: a date is the text that it is written as."""


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_json(text: str | bytes) -> Any:
    """The plain values of a text of JSON.

    Raises:
        ValueError: it is none, or holds more than plain values; in one line.
    """
    if len(text) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES:,} bytes")
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("too deep") from None
    _check_plain(content, _MOST_VALUES)
    return content


def parse_yaml(text: str, *, with_aliases: bool = False) -> Any:
    """The plain values of a text of YAML.

    Args:
        text: one document.
        with_aliases: let values refer to others, by `*NAME`; each one counts as often as it is
            seen.

    Raises:
        ValueError: it is none, or holds more than plain values; in one line.
    """
    if len(text) > MOST_YAML_BYTES:
        raise ValueError(f"more than {MOST_YAML_BYTES:,} bytes")
    try:
        _check_events(text, with_aliases)
        content = yaml.load(text, _Loader)
    except _NO_YAML as error:
        raise ValueError(one_line(error, names_type=False, most=None)) from None
    _check_plain(content, _MOST_YAML_VALUES)
    return content


def read_yaml(file: Path) -> Any:
    """The plain values of a file of YAML in which values may refer to others.

    Raises:
        ValueError: as `parse_yaml`, or it cannot be read; the message names the file.
    """
    try:
        return parse_yaml(read_text(file, most=MOST_YAML_BYTES), with_aliases=True)
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def read_mapping(file: Path) -> dict[str, Any] | None:
    """What a file holds; None where that is no mapping. YAML by its suffix, else JSON.

    Raises:
        OSError: it cannot be read: not there, not a file, or too large.
    """
    is_yaml = file.suffix == ".yaml"
    try:
        text = read_text(file, most=MOST_YAML_BYTES if is_yaml else MOST_BYTES)
        content = parse_yaml(text) if is_yaml else parse_json(text)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def json_text(content: Any, *, indent: int | None = None) -> str:
    """A text of JSON that every reader takes.

    JSON has no number for infinity: it is the text `Infinity`, as are `-Infinity` and `NaN` (the
    form of Protocol Buffers), which `float` of Python and `Number` of JavaScript read.

    Args:
        content: plain values.
        indent: spaces of each level; None for one line.
    """
    try:
        return json.dumps(content, indent=indent, allow_nan=False)
    except ValueError:  # one of its numbers is none: seldom, so not looked for before
        return json.dumps(_without_infinity(content), indent=indent, allow_nan=False)


def _without_infinity(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' * (value < 0)}Infinity"
    if isinstance(value, Mapping):
        return {name: _without_infinity(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinity(entry) for entry in value]
    return value


def number_in(content: Mapping[str, Any], name: str) -> float | None:
    """A figure of a file that anybody may have written; None where it is no finite number."""
    value = content.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None


def figure_in(content: Mapping[str, Any], name: str) -> float | None:
    """As `number_in`, of one that may be infinite, as a perplexity may: see `json_text`."""
    return math.inf if content.get(name) == "Infinity" else number_in(content, name)


def _check_events(text: str, with_aliases: bool) -> None:
    """Refuse what would be deep, endless or huge, before any of it is made."""
    # Of every open collection its anchor, its values so far, and how deep they go below it.
    open_ones: list[list[Any]] = [[None, 0, 0]]
    known: dict[str, tuple[int, int]] = {}

    def add(values: int, depth: int, anchor: str | None) -> None:
        above = open_ones[-1]
        above[1] += values
        above[2] = max(above[2], depth)
        if above[1] > _MOST_YAML_VALUES:
            raise ValueError("too many values")
        if len(open_ones) + depth > _MOST_DEPTH:
            raise ValueError("too deep")
        if anchor is not None:
            known[anchor] = (values, depth)

    for event in yaml.parse(text, Loader=_Loader):
        if getattr(event, "tag", None) not in (None, "!", *_TAGS):
            raise ValueError(f"a value of kind {event.tag}")
        if isinstance(event, yaml.CollectionStartEvent):
            open_ones.append([event.anchor, 1, 0])
            if event.anchor is not None:
                known.pop(event.anchor, None)
            if len(open_ones) > _MOST_DEPTH:
                raise ValueError("too deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, values, depth = open_ones.pop()
            add(values, depth + 1, anchor)
        elif isinstance(event, yaml.AliasEvent):
            if not with_aliases:
                raise ValueError("a value that refers to another")
            if event.anchor not in known:
                raise ValueError(f"*{event.anchor} refers to itself, or to nothing")
            add(*known[event.anchor], None)
        elif isinstance(event, yaml.ScalarEvent):
            is_read = event.implicit[0] or event.tag is not None
            if is_read and len(event.value) > _LONGEST_NUMBER and event.value[0] in "+-.0123456789":
                raise ValueError("a number that is too long")
            add(1, 1, event.anchor)


def _check_plain(content: Any, most: int) -> None:
    """Raise ValueError for anything but plain values."""
    seen, waiting = 0, [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if seen > most:
            raise ValueError("too many values")
        if depth > _MOST_DEPTH:
            raise ValueError("too deep")
        if isinstance(value, dict):
            for name in value:
                if not isinstance(name, str):
                    raise ValueError(f"a name that is no text: {str(name)[:60]}")
                _check_text(name)
            waiting += ((entry, depth + 1) for entry in value.values())
        elif isinstance(value, list):
            waiting += ((entry, depth + 1) for entry in value)
        elif isinstance(value, str):
            _check_text(value)
        elif isinstance(value, int):
            if not -_MOST_NUMBER < value < _MOST_NUMBER:
                raise ValueError("a number that is too large")
        elif value is not None and not isinstance(value, float):
            raise ValueError(f"a value of kind {type(value).__name__}")


def _check_text(text: str) -> None:
    """Half a surrogate pair, but for those of a file's name, is no text: it cannot be printed."""
    text.encode("utf-8", "surrogateescape")
