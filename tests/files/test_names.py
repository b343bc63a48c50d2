"""Names from outside are of a known form, or refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from radcap.files.names import (
    fault_in_path,
    fault_in_repository,
    fault_in_revision,
    fault_in_split,
    is_commit,
    is_sha256,
    shown,
)

Fault = Callable[[object], str | None]

NOWHERE_ALLOWED = [
    *("", ".", "..", "../x", "a/../b", "a/..", "/etc/passwd", "a//b", "a/", "./a", "a/./b"),
    *("a\\b", "..\\x", "a\0b", "a\nb", "\x1b[31m", "a\u202eb", "\ud800", "a\x7f", "\u2028"),
    *("x" * 256, "é" * 128, "/".join(["x" * 200] * 6), None, 5, 1.5, b"a", ["a"], {}, True),
]


@pytest.mark.parametrize(
    "fault_in", [fault_in_path, fault_in_split, fault_in_revision, fault_in_repository]
)
@pytest.mark.parametrize("name", NOWHERE_ALLOWED, ids=lambda name: ascii(name)[:20])
def test_what_may_lead_outside_is_refused_everywhere(fault_in: Fault, name: object) -> None:
    assert fault_in(name)


@pytest.mark.parametrize(
    ("fault_in", "names"),
    [
        (fault_in_path, ["a", "alignment/train-00000-of-00065.parquet", ".gitattributes", "ä b/c"]),
        (fault_in_path, ["x" * 255, "...", "a..b", "~", "-a", "a*b", "été.png"]),
        (fault_in_split, ["train", "val", "test", "validation_2", "a.b", "..."]),
        (fault_in_revision, ["main", "refs/pr/1", "v1.0", "0" * 40, "feature/x+y", "a@b", "1"]),
        (fault_in_repository, ["raidium/RadImageNet-VQA", "squad", "a_b/c.d-e", "1/2"]),
    ],
)
def test_what_is_in_use_is_allowed(fault_in: Fault, names: list[str]) -> None:
    assert [fault_in(name) for name in names] == [None] * len(names)


@pytest.mark.parametrize(
    ("fault_in", "names"),
    [
        (fault_in_split, ["a/b", "*", "tr?in", "[ab]"]),
        (fault_in_revision, ["a..b", "a b", "a~1", "a^", "a:b", "a?", "a*", "a[", "a@{1}"]),
        (fault_in_revision, [".a", "a/.b", "a.lock", "a.lock/b", "/".join(["x"] * 200)]),
        (fault_in_repository, ["a/b/c", "a b/c", "a/b@main", "a--b/c", "a..b/c", "é/a", "-a/b"]),
        (fault_in_repository, ["a" * 97, "a/b.", "https://huggingface.co/a"]),
    ],
)
def test_what_is_no_such_name_is_refused(fault_in: Fault, names: list[str]) -> None:
    assert all(fault_in(name) for name in names), [name for name in names if not fault_in(name)]


def test_hashes_are_of_their_length_and_digits() -> None:
    assert is_commit("0123456789abcdef" * 2 + "01234567") and is_sha256("0a" * 32)
    for wrong in ("0" * 39, "0" * 41, "G" * 40, "A" * 40, "0" * 39 + "\n", "\u0660" * 40, None, 0):
        assert not is_commit(wrong)
    for wrong in ("0" * 63, "0" * 40, "../" + "0" * 61, "0" * 64 + "\n", None):
        assert not is_sha256(wrong)


def test_a_message_quotes_a_name_in_one_short_line() -> None:
    assert shown("../x") == "'../x'"
    for hostile in ("a\nb\x1b[2J", "\ud800", "x" * 10_000, {"a": "\n"}, ["\x1b"] * 1000):
        text = shown(hostile)
        assert text.isprintable() and len(text) < 100
        text.encode()
