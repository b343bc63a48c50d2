"""Any locale: what is written names its encoding, and what is said never fails."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import ROOT
from waiting import PATIENCE_S

from radcap.host import streams

SOURCES = sorted(file for folder in ("radcap", "scripts") for file in (ROOT / folder).rglob("*.py"))
# Of these a call without `encoding` is of the system, an archive or a picture, not of text.
_NOT_TEXT = {"os", "Image", "tarfile", "zipfile", "archive", "gzip", "Cache", "direct", "opener"}
_TEMPORARY = {"NamedTemporaryFile", "TemporaryFile", "SpooledTemporaryFile"}
# A library's, whose text is what the library says.
_LIBRARIES = ("metadata.distribution(",)


def without_encoding(source: str) -> Iterator[str]:
    """Each call that opens, reads or writes text in the encoding of the locale."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        of = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        name = node.func.attr if of else getattr(node.func, "id", "")
        given = {word.arg: word.value for word in node.keywords}
        if "encoding" in given or of.startswith(_LIBRARIES):
            continue
        if (
            (name == "read_text" and of and not node.args)
            or (name == "write_text" and len(node.args) < 2)
            or (name == "TextIOWrapper" and len(node.args) < 2)
            or (name in ("open", "fdopen") and is_of_text(node, of, given))
            or (name in _TEMPORARY and "b" not in literal(given.get("mode"), "w+b"))
            or (name == "makefile" and "b" not in literal(next(iter(node.args), None), "r"))
            or (name == "FileHandler")
        ):
            yield f"line {node.lineno}: {ast.unparse(node)}"


def is_of_text(node: ast.Call, of: str, given: dict[str | None, ast.expr]) -> bool:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else "open"
    if name == "open" and of in _NOT_TEXT:
        return False
    place = 0 if of and of not in ("io", "os", "codecs") else 1
    mode = given.get("mode") or (node.args[place] if len(node.args) > place else None)
    return "b" not in literal(mode, "r")


def literal(node: ast.expr | None, otherwise: str) -> str:
    return otherwise if node is None else str(getattr(node, "value", "?"))


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_text_names_its_encoding(file: Path) -> None:
    assert not list(without_encoding(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("source", "is_found"),
    [
        ("open('a')", True), ("open('a', 'w')", True), ("open('a', 'rb')", False),
        ("Path('a').open()", True), ("a.open('x')", True), ("a.open(mode='ab')", False),
        ("a.read_text()", True), ("a.read_text(encoding='ascii')", False),
        ("a.write_text('b')", True), ("a.write_text('b', 'utf-8')", False),
        ("os.fdopen(3, 'r+')", True), ("os.fdopen(3, 'r+b')", False), ("os.open('a', 0)", False),
        ("NamedTemporaryFile('w')", False), ("NamedTemporaryFile(mode='w')", True),
        ("io.TextIOWrapper(a)", True), ("Image.open(a)", False), ("read_text(a)", False),
    ],
)  # fmt: skip
def test_the_rule_sees_what_it_is_for(source: str, is_found: bool) -> None:
    assert bool(list(without_encoding(source))) == is_found


# The locale of a system without any: ASCII, unless Python is allowed to help itself.
ASCII = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
TEXT = r"Stra\xdfe \u653e\u5c04 \udcff"  # as source, in ASCII: a command line has an encoding too


def run(code: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        check=False,
        timeout=PATIENCE_S,
    )


def test_files_are_the_same_in_any_locale(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from radcap.files.atomic import write_atomically; "
        f"write_atomically(Path('file'), '{TEXT}')"
    )
    done = run(code, tmp_path, **ASCII)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "Straße 放射 \\udcff"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (ASCII, "Straße 放射 ".encode() + b"\xff" + rb" \ud800"),
        (
            {"PYTHONIOENCODING": "latin-1"},
            "Straße ".encode("latin-1") + rb"\u653e\u5c04 " + b"\xff" + rb" \ud800",
        ),
        (
            {"PYTHONIOENCODING": "shift-jis:strict"},
            rb"Stra\xdfe " + "放射 ".encode("shift-jis") + b"\xff" + rb" \ud800",
        ),
        ({"PYTHONUTF8": "1"}, "Straße 放射 ".encode() + b"\xff" + rb" \ud800"),
    ],
)
def test_what_a_stream_lacks_is_written_as_an_escape(
    tmp_path: Path, variables: dict[str, str], expected: bytes
) -> None:
    code = f"""
from radcap.host.console import put, report, run_command, say_at_once
def main(words):
    text = '{TEXT} \\ud800'
    put(text); say_at_once(text); say_at_once(text, error=True)
    import sys
    print(text, file=sys.stderr)
    return 0
import sys
sys.exit(run_command(main, 'usage'))
"""
    done = run(code, tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(b"\n") == [expected, expected, b""]
    assert done.stderr.split(b"\n") == [b"radcap: " + expected, expected, b""]


def test_names_on_standard_input_are_the_systems(tmp_path: Path) -> None:
    """A list of files, whatever the locale: the name that comes in is the one that is opened."""
    name = os.fsencode(tmp_path) + "/Straße.txt".encode()
    Path(os.fsdecode(name)).touch()
    code = (
        "import sys; from pathlib import Path; from radcap.host.console import run_command\n"
        "sys.exit(run_command(lambda words: not Path(next(sys.stdin).strip()).exists(), ''))"
    )
    for variables in (ASCII, {"PYTHONUTF8": "1"}):
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=name + b"\n",
            env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
            capture_output=True,
            check=False,
            timeout=PATIENCE_S,
        )
        assert (done.returncode, done.stderr) == (0, b"")


def test_escapes_stand_for_one_character_each() -> None:
    text = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors=streams._ERRORS)
    text.write("a\U0001f600\xe9\udc80b")
    text.flush()
    assert text.buffer.getvalue() == rb"a\U0001f600\xe9" + b"\x80b"  # type: ignore[attr-defined]
