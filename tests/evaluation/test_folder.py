"""Rows that survive, pictures that are kept, and a page that takes text for text."""

from __future__ import annotations

from pathlib import Path

import pytest

from radcap.errors import RadcapError
from radcap.evaluation.folder import EvaluationFolder
from radcap.evaluation.page import worst_page
from radcap.evaluation.results import RowResult, WorstRows
from radcap.labels import Labels

KNEE = Labels.of("mri", "knee", "fracture")
RIGHT = "mri of the knee displays fracture"


def result(row: int, caption: str | None = RIGHT, loss: float = 1 / 3) -> RowResult:
    return RowResult(row, f"val:0:{row}", loss, 7, "a <b>caption</b>", KNEE, caption)


def test_rows_come_back_exactly(tmp_path: Path) -> None:
    folder = EvaluationFolder(tmp_path / "out")
    folder.accept({"weights": "a"})
    written = [result(0), result(1, None), RowResult(2, "val:0:2", skipped="no caption")]
    folder.append(written[:2], {0: b"png"})
    folder.append(written[2:], {})
    folder.close()
    again = EvaluationFolder(tmp_path / "out")
    assert again.results == written
    assert again.identity == {"weights": "a"}
    assert again.read_picture(0) == b"png" and again.read_picture(1) is None
    again.keep_pictures([1])
    assert again.read_picture(0) is None


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([b"{}\n"], "damaged"),
        ([b"\xff\n"], "damaged"),
        ([result(1).to_line()], "lacks rows"),
        ([result(0).to_line(), result(0).to_line()], "lacks rows"),
    ],
)
def test_damaged_rows_are_not_built_upon(tmp_path: Path, lines: list[bytes], said: str) -> None:
    folder = EvaluationFolder(tmp_path)
    folder.accept({"weights": "a"})
    folder.close()
    (tmp_path / "rows.jsonl").write_bytes(b"".join(lines))
    with pytest.raises(RadcapError, match=f"{said}.*evaluate.fresh=true"):
        EvaluationFolder(tmp_path)


def test_the_worst_are_those_with_most_wrong_labels() -> None:
    wrong, half = "ct of the hip displays nodule", "mri of the knee displays nodule"
    rows = [
        result(0, half, loss=1.0),
        result(1, loss=50.0),
        result(2, wrong, loss=0.1),
        result(3, half, loss=2.0),
        result(4, None, loss=99.0),
    ]
    worst = WorstRows(3)
    assert [worst.add(row) for row in rows] == [True, True, True, True, False]
    assert [row.row for row in worst.rows()] == [2, 3, 0]
    assert not WorstRows(0).add(rows[0])


def test_the_page_takes_text_for_text() -> None:
    row = result(0, "<script>alert(1)</script> mri")
    page = worst_page([row], {0: KNEE}, lambda _: None, origin="<i>", data="a & b")
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "a <b>caption" not in page and "&lt;i&gt;" in page and "a &amp; b" in page
    assert "was not kept" in page
