"""A table of captions as people save it -> its rows: CSV, or text with tabs, of any usual kind.

Nothing in it is guessed at: a row that does not have the header's number of fields, a quotation
mark that is not closed, or a character that no table holds is refused by its line. A caption may
hold line breaks, also those of Unicode, which end no row.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from radcap.errors import ConfigError
from radcap.files.names import shown
from radcap.files.reading import read_bytes

_MOST_BYTES = 1 << 30
_MOST_LINES_NAMED = 5
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}
# The first line that Excel writes, or takes, to name the delimiter.
_NAMED_DELIMITER = re.compile(r"sep=([,;\t])\r?\n?", re.IGNORECASE)
_ENCODINGS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx and .ods, .xls


@dataclass(frozen=True)
class TableRow:
    """A row.

    line: where it begins, counted from 1.
    fields: column, spelt by `plain_name` -> text without blanks around it.
    """

    line: int
    fields: Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """A whole table.

    columns: names as the header has them.
    rows: those that hold something.
    """

    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]


def plain_name(column: str) -> str:
    """A column's name as it is looked for: "Patient ID" is patient_id is PatientID."""
    return "".join(char for char in column.lower() if char.isalnum())


def read_table(
    path: Path, wanted: Sequence[str], is_named: Callable[[str], bool] = lambda text: False
) -> Table:
    """Read a table of UTF-8 or UTF-16 text, with a byte order mark or without.

    Args:
        path: the file.
        wanted: columns, spelt by `plain_name`, that tell which delimiter it is: the one that
            separates most of them in the header. The first one names what a row is of.
        is_named: whether a text may stand in that one. Where a line within quotation marks looks
            like a row so far, the mark was never closed.

    Raises:
        ConfigError: it cannot be read, or some of its rows are none; the line is named.
    """
    try:
        data = read_bytes(path, most=_MOST_BYTES)
    except OSError as error:
        raise ConfigError(f"CAPTIONS {path}: {error.strerror}") from None
    try:
        return _parse(_decode(data), wanted, is_named)
    except ValueError as error:
        raise ConfigError(f"CAPTIONS {path}: {error}") from None


def _decode(data: bytes) -> str:
    if data.startswith(_WORKBOOKS):
        raise ValueError("a workbook, not a table of text; save it as UTF-8 CSV")
    encoding = next((e for mark, e in _ENCODINGS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        name = encoding.upper().removesuffix("-SIG")
        raise ValueError(f"line {line} is not {name}; save the table as UTF-8 CSV") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(
            f"line {line} holds a NUL character: the file is damaged, or not UTF-8; save the table "
            "as UTF-8 CSV"
        )
    return text


def _parse(text: str, wanted: Sequence[str], is_named: Callable[[str], bool]) -> Table:
    # Where "\n", "\r" or both end them: no other line break ends a row.
    lines = list(io.StringIO(text, newline=""))
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # a caption may be long
    skipped = 0
    if lines and (found := _NAMED_DELIMITER.fullmatch(lines[0])):
        delimiter, skipped = found[1], 1
    else:
        delimiter = _delimiter(lines, wanted)
    rows = _rows(lines[skipped:], delimiter, skipped)
    columns = _header(rows)
    names = [plain_name(column) for column in columns]
    twice = [columns[names.index(n)] for n in wanted if names.count(n) > 1]
    if twice:
        raise ValueError(f"several columns {shown(twice[0])} in the header; keep one")
    key = names.index(wanted[0]) if wanted[0] in names else 0
    kept: list[TableRow] = []
    wrong: list[tuple[int, int]] = []
    for line, last, fields in rows:
        if _is_blank(fields):
            continue
        for number in range(line + 1, last + 1):
            inside = [field.strip(' "\r\n') for field in lines[number - 1].split(delimiter)]
            if len(inside) >= len(names) and inside[key] and is_named(inside[key]):
                raise ValueError(
                    f"line {line}: a quotation mark is opened and not closed before line {number}, "
                    "which looks like another row"
                )
        if len(fields) != len(names):
            wrong.append((line, len(fields)))
            continue
        pairs = zip(names, fields, strict=True)
        kept.append(TableRow(line, {name: field.strip() for name, field in pairs}))
    if wrong:
        raise ValueError(_told(wrong, len(names), delimiter))
    return Table(tuple(columns), tuple(kept))


def _delimiter(lines: Sequence[str], wanted: Sequence[str]) -> str:
    """The one that separates most of the wanted columns in the header, else most columns."""

    def separated(delimiter: str) -> tuple[int, int]:
        try:
            columns = _header(_rows(lines, delimiter, 0))
        except ValueError:
            return 0, 0
        return len({plain_name(column) for column in columns} & set(wanted)), len(columns)

    return max(_DELIMITERS, key=separated)


def _rows(
    lines: Sequence[str], delimiter: str, skipped: int
) -> Iterator[tuple[int, int, list[str]]]:
    """Yield (first line, last line, fields) of each row; blanks before a field are dropped, or a
    quotation mark after one would count as text."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
    while True:
        line = skipped + reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                fault = "a quotation mark is opened and never closed"
            else:
                fault = 'text stands behind the closing quotation mark; one inside of a text is ""'
            raise ValueError(f"line {line}: {fault}") from None
        yield line, skipped + reader.line_num, fields


def _header(rows: Iterator[tuple[int, int, list[str]]]) -> list[str]:
    return next((fields for _, _, fields in rows if not _is_blank(fields)), [])


def _is_blank(fields: Sequence[str]) -> bool:
    """Whether a row holds nothing: programs write rows of delimiters alone below a table."""
    return not any(field.strip() for field in fields)


def _told(wrong: Sequence[tuple[int, int]], num_columns: int, delimiter: str) -> str:
    line, count = wrong[0]
    name = _DELIMITERS[delimiter]
    hint = (
        f'put a text that holds a {name} into quotation marks ("...")'
        if count > num_columns
        else f"an empty field has its {name} too, and a text with a line break quotation marks"
    )
    fields = "field" if count == 1 else "fields"
    told = f"line {line} has {count} {fields}, the header {num_columns}: {hint}"
    if others := [str(number) for number, _ in wrong[1:]]:
        more = ", ..." if len(others) > _MOST_LINES_NAMED else ""
        told += f"; also line{'s' if len(others) > 1 else ''} " + (
            f"{', '.join(others[:_MOST_LINES_NAMED])}{more}, {len(wrong):,} in all"
        )
    return told
