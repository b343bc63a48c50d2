"""scripts/make_dataset.py: a user's own pictures become a data set that trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import programs
import pytest
from PIL import Image
from waiting import PATIENCE_S

from radcap.data.records import Example, parse_row
from radcap.data.source import open_source

SCRIPT = Path(__file__).parent.parent / "scripts" / "make_dataset.py"


def make(*words: object) -> subprocess.CompletedProcess[str]:
    return programs.run([SCRIPT, *map(str, words)])


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    for number in range(12):
        noise = np.random.default_rng(number).integers(0, 256, (40, 30), np.uint8)
        Image.fromarray(noise).save(folder / "sub" / f"{number}.png")
    return folder


def table(folder: Path, lines: list[str], header: str = "file,caption,modality") -> Path:
    path = folder.parent / "captions.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def captions(out: Path, split: str) -> list[str]:
    source = open_source(split=split, path=str(out), config="alignment")
    found = []
    for group in range(len(source.row_groups)):
        for row in source.read(group):
            example = parse_row(row)
            assert isinstance(example, Example)
            found.append(example.caption)
    return found


def test_every_good_row_arrives_and_every_other_is_named(pictures: Path, tmp_path: Path) -> None:
    (pictures / "broken.png").write_bytes(b"no picture")
    (pictures / "twin.png").write_bytes((pictures / "sub" / "0.png").read_bytes())
    (pictures / "unlisted.png").write_bytes((pictures / "sub" / "1.png").read_bytes())
    lines = [f"sub/{n}.png,picture number {n},{'ct' if n % 2 else 'mri'}" for n in range(11)]
    lines += ["sub/11.png,  ,ct", "gone.png,a,ct", "broken.png,b,ct", "twin.png,c,ct"]
    lines += ["../captions.csv,d,ct"]
    done = make(pictures, table(pictures, lines), tmp_path / "out", "--rows-per-group", 4)
    assert done.returncode == 0, done.stderr
    found = captions(tmp_path / "out", "train") + captions(tmp_path / "out", "val")
    assert sorted(found) == sorted(f"picture number {n}" for n in range(11))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    reasons = {item["file"]: item["reason"] for item in report["left_out"]}
    assert reasons == {
        "sub/11.png": "no caption",
        "gone.png": "cannot be read: No such file or directory",
        "broken.png": "undecodable",
        "twin.png": "duplicate of an earlier picture",
        "../captions.csv": "outside of the folder",
    }
    assert report["pictures_without_a_row"] == ["unlisted.png"]
    assert report["rows"]["val"] >= 1
    source = open_source(split="train", path=str(tmp_path / "out"), config="alignment")
    assert max(group.num_rows for group in source.row_groups) <= 4


def test_what_is_validated_on_does_not_move(pictures: Path, tmp_path: Path) -> None:
    lines = [f"sub/{n}.png,picture {n}," for n in range(12)]
    make(pictures, table(pictures, lines[:11]), tmp_path / "some", "--val-fraction", 0.4)
    make(pictures, table(pictures, lines), tmp_path / "all", "--val-fraction", 0.4)
    assert set(captions(tmp_path / "some", "val")) <= set(captions(tmp_path / "all", "val"))
    assert set(captions(tmp_path / "some", "train")) <= set(captions(tmp_path / "all", "train"))


def test_tables_as_people_have_them(pictures: Path, tmp_path: Path) -> None:
    """A byte order mark, semicolons, capitals in the header and further columns."""
    path = table(pictures, ["sub/1.png;x;a knee, seen from aside"], "File;Note;CAPTION")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    done = make(pictures, path, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert captions(tmp_path / "out", "train") == ["a knee, seen from aside"]
    assert "no validation split" in done.stdout


def test_long_captions_over_several_lines(pictures: Path, tmp_path: Path) -> None:
    long = "word " * 40_000
    lines = ['sub/1.png,"a knee,\nseen from aside",ct', f"sub/2.png,{long},ct"]
    done = make(pictures, table(pictures, lines), tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert sorted(captions(tmp_path / "out", "train")) == ["a knee, seen from aside", long.strip()]


def test_a_small_set_still_has_places_to_draw_from(pictures: Path, tmp_path: Path) -> None:
    lines = [f"sub/{n}.png,picture {n}," for n in range(12)]
    make(pictures, table(pictures, lines), tmp_path / "out", "--val-fraction", 0)
    source = open_source(split="train", path=str(tmp_path / "out"), config="alignment")
    assert len(source.row_groups) >= 8


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ("file in the way", 2, "a file is in the way"),
        ("no folder", 2, "no such folder"),
        ("no table", 2, "No such file"),
        ("no column", 2, "no column caption"),
        ("pipe for a table", 2, "neither a file nor a folder"),
        ("pipe for a picture", 1, "no usable picture"),
        ("not empty", 2, "--force"),
        ("nothing usable", 1, "no usable picture"),
    ],
)
def test_mistakes_are_told_in_one_line(
    pictures: Path, tmp_path: Path, change: str, status: int, message: str
) -> None:
    path, out = table(pictures, ["sub/1.png,x,ct"]), tmp_path / "out"
    if change == "no folder":
        pictures = tmp_path / "absent"
    elif change == "no table":
        path = tmp_path / "absent.csv"
    elif change == "pipe for a table":
        path.unlink()
        os.mkfifo(path)
    elif change == "pipe for a picture":
        path.write_text("file,caption\npipe.png,x\n")
        os.mkfifo(pictures / "pipe.png")
    elif change == "no column":
        path.write_text("file,text\na,b\n")
    elif change == "file in the way":
        out.write_text("mine")
    elif change == "not empty":
        out.mkdir()
        (out / "mine.txt").write_text("x")
    else:
        path.write_text("file,caption\nabsent.png,x\n")
    done = make(pictures, path, out)
    assert done.returncode == status
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_help_is_quick_and_loads_no_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(SCRIPT), "--help"],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0
    assert "data.path=OUT" in done.stdout
    assert not [line for line in done.stderr.splitlines() if line.endswith("| torch")]
