"""The report for people: tables that stay tables."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from tensorboard.plugin_util import markdown_to_safe_html

from radcap.data.labels import PATHOLOGIES, Labels, display_name
from radcap.evaluation.report import figure_lines, markdown
from radcap.evaluation.results import RowResult
from radcap.evaluation.scores import score, to_json
from radcap.evaluation.worst_page import worst_page
from radcap.files.mappings import json_text
from radcap.host.console import printable
from radcap.scoring.comparable import COMPARABLE


def report(rows: list[RowResult]) -> dict[str, Any]:
    return {
        "weights": {"origin": "a|b\n`c`", "step": None, "sha256": "0" * 64},
        "data": {
            "name": "set",
            "split": "val",
            "revision": "c0ffee",
            "revision_is": "commit",
            "split_rows": len(rows),
        },
        "settings": {"device": "CPU", "beams": 3, "max_length": 32, "bleu": "signature"},
        "floor": None,
        **to_json(score(rows)),
        "comparable": COMPARABLE,
    }


def row(number: int, pathology: str, said: str) -> RowResult:
    text = f"mri of the knee displays {display_name(said)}"
    labels = Labels.of("mri", "knee", pathology)
    return RowResult(number, str(number), 2.0, 4, f"mri {pathology}", labels, text)


def test_many_classes_are_told_by_their_most_frequent_confusions() -> None:
    names = PATHOLOGIES[:30]
    rows = [row(i, name, name) for i, name in enumerate(names)]
    rows += [row(100 + i, names[0], names[1]) for i in range(5)]
    rows += [row(200 + i, name, names[3]) for i, name in enumerate(names[4:29])]
    text = markdown(report(rows))
    assert f"| `{names[0]}` | `{names[1]}` | 5 |" in text
    assert f"| `{names[0]}` | 6 | 1 | 16.7% | `{names[1]}` 5 |" in text
    assert "6 rarer pairs stand in results.json." in text
    assert "3 beams" in text and "none left out" in text


def test_every_line_of_a_table_has_its_columns() -> None:
    rows = [row(0, "a|b`c", "fracture"), row(1, "normal", "normal"), row(2, "x\r# y\n z", "x")]
    text = markdown(report(rows))
    assert "\r" not in text and "`x # y z`" in text and "\n# y" not in text
    lines = text.splitlines()
    widths: list[int] = []
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("|"):
            widths = [*(widths if before.startswith("|") else []), line.count("|")]
            assert len(set(widths)) == 1, line
    assert "`a/b'c`" in text


def test_nothing_of_the_data_acts_in_the_report() -> None:
    evil = "\x1b]0;owned\x07 [x](http://evil.example) | <b>\u202ey</b>\n# z"
    rows = [row(0, evil, "fracture"), RowResult(1, evil, skipped=evil), row(2, "normal", evil)]
    content = report(rows)
    content["settings"]["device"] = evil
    text = markdown(content)
    assert printable(text.replace("\n", "")) == text.replace("\n", "")
    page = markdown_to_safe_html(re.sub("`[^`]*`", "", text))
    assert "<a " not in page and "<b>" not in page and "evil" in page
    assert page.count("<h1>") == 1
    html = worst_page([row(0, evil, evil)], {0: Labels()}, lambda _: None, origin=evil, data=evil)
    assert printable(html.replace("\n", "")) == html.replace("\n", "")
    assert "<b>" not in html and "&lt;b&gt;" in html


def test_the_lines_for_a_terminal_fit_it() -> None:
    lines = figure_lines(report([row(0, "fracture", "fracture"), row(1, "normal", "nodule")]))
    assert len(lines) == 14
    assert all(len(line) <= 100 for line in lines)
    huge = [RowResult(0, "0", 40.0, 2, "x", Labels())]
    assert "485,165,195" in figure_lines(report(huge))[1]


def test_large_figures_are_short_and_infinity_is_said() -> None:
    for loss, said in ((705.0, "1.505e+306"), (800.0, "infinity")):
        found = report([RowResult(number, "0", loss, 1, "x", Labels()) for number in range(3)])
        line = figure_lines(found)[1]
        assert f"{said}   {said} to {said}" in line and len(line) <= 100
        stored = json.loads(json_text(found), parse_constant=lambda word: pytest.fail(word))
        assert f"| perplexity | {said} | {said} to {said} | 3 |" in markdown(stored)
