"""The words of a command line in Hydra's grammar, and the combinations that a sweep makes of them.

Hydra's own parser reads them; Hydra's sweeper and launcher are not used. The grammar knows no
options: it takes 1_1 for 11, 1.10 for 1.1 and true for a truth wherever they stand. Of an option
that holds a text, and of the choice of a group, the word is taken as it stands. Of a path or an
address so is everything else: brackets, blanks, commas, letters of any language. Quotation marks
around the whole of it and a backslash before a special character mean what they mean to Hydra; in a
sweep commas part several values.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from hydra.core.override_parser.overrides_parser import (
    CommonTokenStream,
    InputStream,
    OverrideLexer,
    OverrideParser,
    OverridesParser,
    create_functions,
)
from hydra.core.override_parser.overrides_visitor import HydraErrorListener, HydraOverrideVisitor
from hydra.core.override_parser.types import (
    Glob,
    IntervalSweep,
    Override,
    QuotedString,
    RangeSweep,
    Transformer,
)
from hydra.errors import HydraException

from radcap.config.options import options_where
from radcap.config.schema import Config, text_options
from radcap.errors import ConfigError, first_line
from radcap.files.names import shortened

MAX_COMBINATIONS = 1000
_KEY = re.compile(r"[+~]*([^=@]*)")
_PLACES = frozenset(options_where(Config, "is_place"))
_NO_GROUPS: Mapping[str, Sequence[str]] = {}
_OF_VALUES = ("choice", "sort", "shuffle", "tag")  # functions whose arguments are values


@dataclass(frozen=True)
class Combination:
    """One of the combinations of a sweep.

    Attributes:
        words: its overrides, each with one value, in the order of the command line.
        swept: option or group -> value as text, of those given several values.
    """

    words: tuple[str, ...]
    swept: Mapping[str, str]


def parse(word: str, groups: Mapping[str, Sequence[str]] = _NO_GROUPS) -> Override:
    """Read one override, which may hold several values.

    Args:
        word: `key=value`.
        groups: the options of every config group, by its name.

    Raises:
        ConfigError: it is not of Hydra's grammar.
    """
    return _parse(word, groups, may_sweep=True)


def _parse(word: str, groups: Mapping[str, Sequence[str]], *, may_sweep: bool) -> Override:
    homes = [name for name, options in groups.items() if word in options]
    if len(homes) == 1:
        plus = "+" * (homes[0] == "experiment")
        raise ConfigError(f"'{word}' is not of the form key=value; write {plus}{homes[0]}={word}")
    texts, key = text_options(), _KEY.match(word)[1]  # type: ignore[index]
    if key not in texts and key not in groups:
        return _read(word, OverridesParser.create().parse_override)
    parser = partial(_parse_words, with_null=texts.get(key, True))
    is_place = key in _PLACES and "=" in word
    override = _parse_place(word, parser, may_sweep) if is_place else _read(word, parser)
    value = override.value()
    if isinstance(value, str):  # in quotes no grammar makes a number of it
        override.input_line = f"{override.get_key_element()}={quoted(value)}"
    return override


def _parse_place(word: str, parser: Callable[[str], Override], may_sweep: bool) -> Override:
    """Read an override whose value is a text, though Hydra reads something else or nothing."""
    key, _, text = word.partition("=")
    try:
        found = _read(word, parser)
    except ConfigError:
        pass
    else:
        if may_sweep and found.is_sweep_override():
            return found
        value = found.value()
        # Of a text without quotation marks Hydra drops the blanks at its ends.
        if value is None or value == text or (isinstance(value, str) and _is_marked(text)):
            return found
    return _read(f"{key}={quoted(text)}", parser)


def _is_marked(text: str) -> bool:
    """Whether a text has marks that are Hydra's and not its own."""
    return "\\" in text or text.strip()[:1] in ("'", '"')


def _read(word: str, parser: Callable[[str], Override]) -> Override:
    """Read one override, and say in a line where that cannot be."""
    try:
        return parser(word)
    except HydraException as error:
        raise ConfigError(f"'{word}' is not of the form key=value: {first_line(error)}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; too deep
        raise ConfigError(f"'{shortened(word)}' cannot be read: {first_line(error)}") from None


def _parse_words(word: str, *, with_null: bool) -> Override:
    """Parse an override of something that holds a text."""
    lexer = OverrideLexer(InputStream(word))
    parser = OverrideParser(CommonTokenStream(lexer))
    for part in (lexer, parser):
        part.removeErrorListeners()
        part.addErrorListener(HydraErrorListener())
    override: Override = _WordVisitor(with_null=with_null).visit(parser.override())
    override.input_line = word
    return override


class _WordVisitor(HydraOverrideVisitor):
    """Leaves what is not quoted as it stands, but for null where that is a value."""

    def __init__(self, *, with_null: bool) -> None:
        super().__init__(create_functions())
        self._with_null = with_null
        self._plainly = HydraOverrideVisitor(self.functions)

    def visitFunction(self, ctx: Any) -> Any:
        """Numbers are what range(...) and int(...) are about."""
        if ctx.getChild(0).getText() in _OF_VALUES:
            return super().visitFunction(ctx)
        return self._plainly.visitFunction(ctx)

    def visitElement(self, ctx: Any) -> Any:
        """Of a function's named arguments, such as reverse=true, none is a value."""
        siblings = list(ctx.parentCtx.getChildren())
        before = siblings[siblings.index(ctx) - 1]
        if isinstance(before, OverrideParser.ArgNameContext):
            return self._plainly.visitElement(ctx)
        return super().visitElement(ctx)

    def _createPrimitive(self, ctx: Any) -> Any:
        value = super()._createPrimitive(ctx)
        if isinstance(value, str | QuotedString) or (value is None and self._with_null):
            return value
        return ctx.getText().strip()


def parse_single(word: str, groups: Mapping[str, Sequence[str]] = _NO_GROUPS) -> Override:
    """As `parse`, of an override that has one value.

    Raises:
        ConfigError: it has several, or is not of Hydra's grammar.
    """
    override = _parse(word, groups, may_sweep=False)
    if override.is_sweep_override():
        raise ConfigError(
            f"'{word}' holds several values; write [a,b] for a list; python -m radcap.train -m "
            "sweeps over them"
        )
    return override


def combine(words: Sequence[str], groups: Mapping[str, Sequence[str]]) -> list[Combination]:
    """Every combination of the values given, the first word's changing slowest, as Hydra's.

    Args:
        words: overrides; some with several values, as `seed=1,2`, `choice(...)`, `range(...)`
            or, of a group, `glob(...)`.
        groups: the options of every config group, by its name.

    Raises:
        ConfigError: nothing is swept, or something that has no single values, or too much.
    """
    overrides = [parse(word, groups) for word in words]
    keys = [override.key_or_group for override in overrides]
    axes: list[list[tuple[str, dict[str, str]]]] = []
    for word, override in zip(words, overrides, strict=True):
        if not override.is_sweep_override():
            axes.append([(word, {})])  # as it stands: the job reads it as it is read here
            continue
        key = override.key_or_group
        if keys.count(key) > 1:
            raise ConfigError(f"{key}: stands twice on the command line of a sweep; keep one")
        left = override.get_key_element()
        axes.append(
            [(f"{left}={Transformer.str(v)}", {key: _text(v)}) for v in _values(override, groups)]
        )
    if not any(override.is_sweep_override() for override in overrides):
        raise ConfigError("-m: no option has several values; give one some, such as seed=1,2")
    if math.prod(len(axis) for axis in axes) > MAX_COMBINATIONS:
        raise _too_many()
    found = []
    for chosen in itertools.product(*axes):
        swept = {key: text for _, values in chosen for key, text in values.items()}
        found.append(Combination(tuple(word for word, _ in chosen), swept))
    return found


def quoted(value: Any) -> str:
    """A plain value in the grammar of overrides.

    Raises:
        ValueError: an option takes no such value.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        # A backslash is itself, but for those before a quotation mark.
        escaped = re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + (m[2] and "\\'"), value)
        return f"'{escaped}'"
    raise ValueError(f"{value!r} is no value of an option")


def _values(override: Override, groups: Mapping[str, Sequence[str]]) -> list[Any]:
    """The values of an override that has several."""
    word, key, value = override.input_line, override.key_or_group, override.value()
    if isinstance(value, IntervalSweep):
        raise ConfigError(
            f"'{word}': an interval has no end of values, and a sweep runs each; use "
            "choice(...) or range(...)"
        )
    if isinstance(value, Glob):
        if key not in groups:
            raise ConfigError(f"'{word}': glob(...) chooses from a group, and {key} is none")
        found: list[Any] = value.filter(list(groups[key]))
        if not found:
            raise ConfigError(f"'{word}': none matches; there are {', '.join(groups[key])}")
        return found
    try:
        # Of a shuffled one Hydra lists all values before it gives the first.
        if isinstance(value, RangeSweep) and _is_long(value.range()):
            raise _too_many()
        found = list(itertools.islice(override.sweep_iterator(), MAX_COMBINATIONS + 1))
    except (HydraException, ValueError, ArithmeticError) as error:
        raise ConfigError(f"'{word}': {first_line(error)}") from None
    if not found:
        raise ConfigError(f"'{word}' holds no value")
    return found


def _is_long(values: Iterable[Any]) -> bool:
    return sum(1 for _ in itertools.islice(values, MAX_COMBINATIONS + 1)) > MAX_COMBINATIONS


def _too_many() -> ConfigError:
    return ConfigError(f"-m: more than {MAX_COMBINATIONS:,} combinations; sweep over fewer")


def _text(value: Any) -> str:
    """A value as people write it: without quotation marks around and escapes in it."""
    if isinstance(value, QuotedString):
        return str(value.text)
    return value if isinstance(value, str) else str(Transformer.str(value))
