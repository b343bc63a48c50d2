"""Errors of others as they stand in a message: in one line that prints."""

from __future__ import annotations

from radcap.errors import first_line, one_line


def test_an_exception_is_told_in_one_line_that_prints() -> None:
    odd = ValueError("a\n  b\t\x1b[31m\u202e \udcff é" + "x" * 1000)
    assert one_line(odd) == f"ValueError: a b \\x1b[31m\\u202e \\udcff é{'x' * 273}"
    assert one_line(odd, names_type=False, most=5) == "a b \\"
    assert one_line(odd, names_type=False, most=None).endswith("x" * 1000)
    assert first_line(odd) == "a"
    for silent in (ValueError(), ValueError(" \n")):
        assert one_line(silent) == one_line(silent, names_type=False) == "ValueError"
        assert first_line(silent) == "ValueError"
