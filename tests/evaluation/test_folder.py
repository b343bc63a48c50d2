"""Rows that survive, pictures that are kept, and a page that takes text for text."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

import pytest
from bounds import bounded

from radcap.data.labels import Labels
from radcap.errors import ConfigError, RadcapError
from radcap.evaluation.folder import EvaluationFolder
from radcap.evaluation.results import RowResult, WorstRows
from radcap.evaluation.worst_page import worst_page

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
        ([b"[1]\n"], "damaged"),
        ([b"[" * 100_000 + b"\n"], "damaged"),
        ([b"x" * 2_000_000 + b"\n"], "damaged"),
        ([result(0).to_line().replace(b'"tokens": 7', b'"tokens": 1' + b"0" * 400)], "damaged"),
        ([result(0).to_line().replace(b'"tokens": 7', b'"tokens": "7"')], "damaged"),
        ([result(0).to_line().replace(b'"knee"', b"5")], "damaged"),
        ([result(0).to_line().replace(b"a <b>", b"\\ud800")], "damaged"),
        ([result(0, loss=1.0).to_line().replace(b'"loss": 1.0', b'"loss": NaN')], "damaged"),
    ],
)
def test_damaged_rows_are_not_built_upon(tmp_path: Path, lines: list[bytes], said: str) -> None:
    folder = EvaluationFolder(tmp_path)
    folder.accept({"weights": "a"})
    folder.close()
    (tmp_path / "rows.jsonl").write_bytes(b"".join(lines))
    with pytest.raises(RadcapError, match=f"{said}.*evaluate.fresh=true"):
        EvaluationFolder(tmp_path)


@pytest.mark.parametrize("text", ["[1]", "5", "{", "[" * 100_000, '{"a": 1' + "0" * 99 + "}"])
def test_a_damaged_identity_is_told_in_a_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(RadcapError, match=r"evaluation.json is damaged.*fresh"):
        EvaluationFolder(tmp_path)


@pytest.mark.parametrize("name", [".", "pictures", "rows.jsonl", "evaluation.json"])
def test_a_link_leads_nowhere(tmp_path: Path, name: str) -> None:
    """What is written here would be written there, and old pictures deleted."""
    theirs, out = tmp_path / "theirs", tmp_path / "out"
    for folder in (theirs, out):
        (folder / "pictures").mkdir(parents=True)
        (folder / "evaluation.json").write_text("{}")
        (folder / "rows.jsonl").write_bytes(result(0).to_line() + b"half a li")
    (theirs / "pictures" / "1.png").write_bytes(b"holiday")
    if name == ".":
        shutil.rmtree(out)
        out.symlink_to(theirs)
    else:
        (out / name).rmdir() if name == "pictures" else (out / name).unlink()
        (out / name).symlink_to(theirs / name)
    before = {file: file.stat().st_size for file in theirs.rglob("*")}
    with pytest.raises(ConfigError, match="is a link"):
        EvaluationFolder(out)
    assert {file: file.stat().st_size for file in theirs.rglob("*")} == before


def test_pictures_that_are_not_ours_stay(tmp_path: Path) -> None:
    (tmp_path / "out" / "pictures").mkdir(parents=True)
    (tmp_path / "out" / "evaluation.json").write_text("{}")
    theirs = tmp_path / "out" / "pictures" / "holiday.png"
    theirs.write_bytes(b"x")
    (tmp_path / "photo").write_bytes(b"y")
    (tmp_path / "out" / "pictures" / "0.png").symlink_to(tmp_path / "photo")
    folder = EvaluationFolder(tmp_path / "out")
    folder.accept({"weights": "a"})
    folder.append([result(0)], {0: b"png"})
    folder.keep_pictures([])
    assert theirs.exists() and (tmp_path / "photo").read_bytes() == b"y"
    assert not (tmp_path / "out" / "pictures" / "0.png").exists()


def test_rows_have_to_know_what_they_are_of(tmp_path: Path) -> None:
    folder = EvaluationFolder(tmp_path)
    folder.accept({"weights": "a"})
    folder.append([result(0)], {})
    folder.close()
    again = EvaluationFolder(tmp_path)
    with pytest.raises(ConfigError, match=r"num_heads \(unknown -> 8\)"):
        again.accept({"weights": "a", "num_heads": 8})
    again.close()
    (tmp_path / "evaluation.json").write_text("{}")
    with pytest.raises(ConfigError, match="weights"):
        EvaluationFolder(tmp_path).accept({"weights": "a"})


def test_an_evaluation_stopped_before_a_result_binds_nothing(tmp_path: Path) -> None:
    folder = EvaluationFolder(tmp_path)
    folder.accept({"weights": "a", "rows": 5, "data_revision": "c0ffee"})
    folder.accept({"precision": "fp32"})
    folder.note({"device": "CPU"})
    folder.close()
    (tmp_path / "rows.jsonl").write_bytes(result(0).to_line()[:20])  # of half a row
    again = EvaluationFolder(tmp_path)
    assert (again.identity, again.results) == ({}, [])
    again.accept({"weights": "b", "rows": 7})
    again.accept({"precision": "bf16"})
    again.append([result(0)], {})
    again.close()
    last = EvaluationFolder(tmp_path)
    assert last.identity == {"weights": "b", "rows": 7, "precision": "bf16"}
    assert last.results == [result(0)]
    with pytest.raises(ConfigError, match=r"rows \(7 -> 5\)"):
        last.accept({"weights": "b", "rows": 5, "precision": "bf16"})
    last.close()


def test_rows_that_wait_for_their_disk_are_not_called_saved(tmp_path: Path) -> None:
    folder = EvaluationFolder(tmp_path / "out")
    folder.accept({"weights": "a"})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))
    try:
        folder.append([result(row) for row in range(50)], {})
        with pytest.raises(RadcapError, match=r"rows.jsonl: the last rows could not be written"):
            folder.settle()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    folder.settle()
    folder.close()
    assert len(EvaluationFolder(tmp_path / "out").results) == 50


def test_a_folder_of_nothing_goes_again(tmp_path: Path) -> None:
    EvaluationFolder(tmp_path / "run" / "evaluation" / "step-1-val").close()
    assert not list(tmp_path.iterdir())
    folder = EvaluationFolder(tmp_path / "out")
    folder.accept({"weights": "a"})
    folder.close()
    assert (tmp_path / "out" / "evaluation.json").is_file()


def test_an_evaluation_without_a_row_leaves_no_folder(tmp_path: Path) -> None:
    """A device that does not fit is found out when what is scored is noted down already."""
    folder = EvaluationFolder(tmp_path / "new" / "out")
    folder.accept({"weights": "a"})
    folder.forget()
    folder.close()
    assert list(tmp_path.iterdir()) == []
    for _ in range(2):  # the second one finds a row there
        folder = EvaluationFolder(tmp_path / "out")
        folder.accept({"weights": "a"})
        folder.append([result(0)] if not folder.results else [], {})
        folder.forget()
        folder.close()
    assert EvaluationFolder(tmp_path / "out").identity == {"weights": "a"}


def test_results_in_a_folder_that_has_gone_are_no_success(tmp_path: Path) -> None:
    folder = EvaluationFolder(tmp_path / "out")
    folder.accept({"weights": "a"})
    folder.append([result(0)], {})
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").mkdir()
    for use in (lambda: folder.append([result(1)], {}), lambda: folder.write("results.md", "")):
        with pytest.raises(RadcapError, match="was deleted, moved or replaced"):
            use()
    folder.close()
    assert list((tmp_path / "out").iterdir()) == []


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


@pytest.mark.parametrize("name", ["evaluation.json", "rows.jsonl", "pictures/0.png"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    folder = EvaluationFolder(tmp_path)
    folder.accept({"weights": "a"})
    folder.append([result(0)], {0: b"png"})
    folder.close()
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with bounded(100), pytest.raises(RadcapError, match="neither a file nor a folder"):
        EvaluationFolder(tmp_path, is_ours=False).read_picture(0)
