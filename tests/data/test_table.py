"""Tables of captions: every usual kind is read, and what is no table is refused by its line."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radcap.data.table import Table, plain_name, read_table
from radcap.errors import ConfigError

WANTED = ("file", "caption")
ENDS = {"U+2028": "\u2028", "U+2029": "\u2029", "U+0085": "\x85", "form feed": "\f"}
ENDS |= {"vertical tab": "\v", "file separator": "\x1c", "record separator": "\x1e"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "captions.csv"


def read(file: Path, content: str | bytes, *pictures: str) -> Table:
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(file, WANTED, pictures.__contains__)


def pairs(table: Table) -> list[tuple[str, ...]]:
    return [tuple(row.fields[name] for name in WANTED) for row in table.rows]


@pytest.mark.parametrize("char", ENDS.values(), ids=ENDS.keys())
def test_only_line_feeds_and_carriage_returns_end_a_row(file: Path, char: str) -> None:
    table = read(file, f"file,caption\na.png,one{char}two\nb.png,three\n")
    assert pairs(table) == [("a.png", f"one{char}two"), ("b.png", "three")]
    assert [row.line for row in table.rows] == [2, 3]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_and_line_ends(file: Path, delimiter: str, end: str) -> None:
    lines = [["File", "Note", "CAPTION"], ["a.png", "x", '"one, two; three\tfour"'], ["", "", ""]]
    table = read(file, end.join(delimiter.join(line) for line in lines) + end)
    assert pairs(table) == [("a.png", "one, two; three\tfour")]
    assert table.columns == ("File", "Note", "CAPTION")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(file: Path, encoding: str) -> None:
    text = "file\tcaption\na.png\tKnöchel, 骨折\n"
    assert pairs(read(file, text.encode(encoding))) == [("a.png", "Knöchel, 骨折")]


def test_what_excel_writes_and_people_type(file: Path) -> None:
    table = read(file, 'sep=;\r\n\r\n"File";"Caption"\r\na.png;"one\r\ntwo ""three"""\r\n;\r\n')
    assert pairs(table) == [("a.png", 'one\r\ntwo "three"')]
    assert table.rows[0].line == 4
    assert pairs(read(file, 'file, caption\na.png, "one, two"\n')) == [("a.png", "one, two")]
    assert pairs(read(file, 'file,caption\na.png,a 5" nodule\n')) == [("a.png", 'a 5" nodule')]
    # The delimiter is the one that separates the columns, not the one that is there most often.
    assert pairs(read(file, "file;caption;a,b,c,d\nx;y;z\n")) == [("x", "y")]
    assert {plain_name(n) for n in ("Patient ID", "patient_id", "PatientID")} == {"patientid"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,caption\na,b\nc,d, e\n", r"line 3 has 3 fields, the header 2: put a text that "
         r"holds a comma into quotation marks"),
        ("file;caption\n\na;b;c\n", r"line 3 has 3 fields.*semicolon"),
        ("file,caption,modality\na,b,\nc,d\n", r"line 3 has 2 fields, the header 3: an empty"),
        ("file,caption\na,one\rtwo,b\nc\n", r"line 4 has 1 field, the header 2"),
        ('file,caption\na,"b\nc"\nd,e,f\ng\nh,i\nj\n', r"line 4 has 3 .*; also lines 5, 7, 3 in"),
        ("file,caption\n" + "a\n" * 9, r"; also lines 3, 4, 5, 6, 7, \.\.\., 9 in all$"),
        ('file,caption\na,b\nc,"d\ne,f\n', r"line 3: a quotation mark is opened and never closed"),
        ('file,caption\na,"b\nc,d\ne,"f"\n', r"line 2: text stands behind the closing"),
        ('file,caption\na,"b" c\n', r"line 2: text stands behind the closing quotation mark"),
        # It is closed by the mark for inches of another row.
        ('file,caption\na,"b\nc.png,d\ne,4"\n', r"line 2: .* not closed before line 3, which"),
        ("file,caption\na,b\0c\n", r"line 2 holds a NUL character"),
        ("file,caption\na,b\nc,d".encode("utf-16-le"), r"line 1 holds a NUL character"),
        (b"file,caption\na,b\nc,\xff\n", r"line 3 is not UTF-8; save the table as UTF-8 CSV"),
        (b"\xff\xfef\0i\0x", r"line 1 is not UTF-16"),
        (b"PK\x03\x04rest", r"a workbook, not a table of text"),
        ("file,caption,Caption\na,b,c\n", r"several columns 'caption' in the header"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_refused_by_its_line(
    file: Path, content: str | bytes, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as told:
        read(file, content, "c.png")
    assert str(told.value).startswith(f"CAPTIONS {file}: ")
    assert "\n" not in str(told.value)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 99), st.text(st.characters(codec="utf-8", exclude_characters="\0"))
        ),
        min_size=1,
    ),
    delimiter=st.sampled_from(",;\t"),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_what_pythons_csv_writes_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[int, str]],
    delimiter: str,
    end: str,
) -> None:
    text = io.StringIO(newline="")
    # The writer leaves a lone return bare where lines end otherwise, and its own reader refuses it.
    quoting = csv.QUOTE_ALL if any("\r" in caption for _, caption in rows) else csv.QUOTE_MINIMAL
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerows([["file", "caption"], *((f"{n}.png", caption) for n, caption in rows)])
    file = tmp_path_factory.mktemp("table") / "captions.csv"
    table = read(file, text.getvalue().encode("utf-8", "surrogatepass"))
    assert pairs(table) == [(f"{n}.png", caption.strip()) for n, caption in rows]
