"""Small files that anybody may have written: plain values come out, or a line that says why not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from bounds import bounded

from radcap.files.mappings import number_in, parse_json, parse_yaml, read_mapping, read_yaml

LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)
MERGED = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 9)}], y{n}: *a{n - 1}}}\n" for n in range(1, 9)
)
NESTED = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 60))
HOSTILE_YAML = {
    "laughs": (LAUGHS, "too many values"),
    "merged laughs": (MERGED, "too many values"),
    "itself": ("a: &a [1, *a]", "refers to itself"),
    "itself by a name of before": ("a: &a 1\nb: &a [*a]", "refers to itself"),
    "deep lists": ("[" * 20_000, "too deep"),
    "deep mappings": ("{a: " * 5_000, "too deep"),
    "deep blocks": ("".join(f"{' ' * n}a:\n" for n in range(200)), "too deep"),
    "deep keys": ("? " * 5_000, "too deep"),
    "deep by aliases": (NESTED, "too deep"),
    "many": ("- a\n" * 40_000, "too many values"),
    "long": ("a" * 300_000, "more than 250,000 bytes"),
    "sixties": ("a: " + "1:" * 50_000 + "1", "too long"),
    "sixties in quotes": ("a: !!int '" + "1:" * 50_000 + "1'", "too long"),
    "digits": ("a: " + "9" * 400, "too large"),
    "code": ("a: !!python/object/apply:os.system [true]", "of kind"),
    "bytes": ("a: !!binary aGVsbG8=", "of kind"),
    "date": ("a: !!timestamp 2001-01-01", "of kind"),
    "set": ("a: !!set {x, y}", "of kind"),
    "number for a name": ("1: a", "no text"),
    "list for a name": ("? [a]\n: b", "unhashable"),
    "no bool": ("a: !!bool perhaps", "perhaps"),
    "no number": ("a: !!int ''", "index"),
    "escape": ("a: \x1b[31m", "special characters"),
    "two": ("a: 1\n---\nb: 2", "single document"),
    "broken": ("a: [", "parsing"),
}  # fmt: skip
HOSTILE_JSON = {
    "deep": ("[" * 200_000, "too deep"),
    "deep and whole": ("[" * 500 + "]" * 500, "too deep"),
    "deep objects": ('{"a":' * 100_000, "too deep"),
    "many": ("[" + "[]," * 1_300_000 + "1]", "too many"),
    "long": ('"' + "a" * 5_000_000 + '"', "more than"),
    "digits": ('{"seed": 1' + "0" * 400 + "}", "too large"),
    "more digits": ("1" * 5_000, "digits"),
    "half a pair": ('"\\ud800"', "surrogates"),
    "half a pair for a name": ('{"\\ud800": 1}', "surrogates"),
    "broken": ("{", "Expecting"),
    "no text": (b"\xff\xfe\xff", "decode"),
}


@pytest.mark.parametrize("name", HOSTILE_YAML)
def test_hostile_yaml_is_refused_in_a_line(name: str) -> None:
    text, reason = HOSTILE_YAML[name]
    with bounded(200), pytest.raises(ValueError, match=reason) as caught:
        parse_yaml(text, with_aliases=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", HOSTILE_JSON)
def test_hostile_json_is_refused_in_a_line(name: str) -> None:
    text, reason = HOSTILE_JSON[name]
    with bounded(200), pytest.raises(ValueError, match=reason) as caught:
        parse_json(text)
    assert "\n" not in str(caught.value)


def test_values_refer_to_others_only_where_that_is_asked_for() -> None:
    text = "a: &a {x: 1}\nb: {<<: *a, y: [*a, *a]}"
    assert parse_yaml(text, with_aliases=True)["b"] == {"x": 1, "y": [{"x": 1}, {"x": 1}]}
    with pytest.raises(ValueError, match="refers to another"):
        parse_yaml(text)


def test_plain_values_come_out_as_they_stand() -> None:
    text = "a: 1\nb: 1.5\nc: true\nd: null\ne: 2001-01-01\nf: ['${oc.env:HOME}', !!str 5]\n"
    expected = {"a": 1, "b": 1.5, "c": True, "d": None, "e": "2001-01-01"}
    assert parse_yaml(text) == expected | {"f": ["${oc.env:HOME}", "5"]}
    odd = {"name": "\udcff.png", "n": -(10**25), "deep": [[[[{"a": []}]]]]}
    assert parse_json(json.dumps(odd)) == odd


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_what_is_no_file_is_never_waited_for(tmp_path: Path, suffix: str) -> None:
    pipe = tmp_path / f"pipe{suffix}"
    os.mkfifo(pipe)
    link = tmp_path / f"link{suffix}"
    link.symlink_to(pipe)
    device = tmp_path / f"device{suffix}"
    device.symlink_to("/dev/zero")
    with bounded(100):
        for file in (pipe, link, device):
            with pytest.raises(OSError, match="neither a file nor a folder"):
                read_mapping(file)
            with pytest.raises(ValueError, match=f"{file.name}: neither a file nor a folder"):
                read_yaml(file)
        large = tmp_path / f"large{suffix}"
        with large.open("wb") as stream:
            stream.truncate(10**12)  # all holes
        with pytest.raises(OSError, match="more than"):
            read_mapping(large)


def test_a_mapping_or_nothing(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    for text, expected in [('{"a": 1}', {"a": 1}), ("[1]", None), ("{", None), ("", None)]:
        file.write_text(text)
        assert read_mapping(file) == expected
    file.write_bytes(b"\xff\xfe")
    assert read_mapping(file) is None


@pytest.mark.parametrize("value", ["x", True, None, [1], float("nan"), float("inf")])
def test_a_figure_is_a_finite_number(value: object) -> None:
    assert number_in({"a": value}, "a") is None
    assert number_in({"a": 0}, "a") == 0
    assert number_in({}, "a") is None
