from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from radcap.data.source import Source, open_source

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_dataset.py"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of 30 drawn pictures, PNG and JPEG, some in a folder below."""
    folder = tmp_path / "images"
    (folder / "below").mkdir(parents=True)
    for number in range(30):
        noise = np.random.default_rng(number).integers(0, 256, (20, 30), dtype=np.uint8)
        name = f"below/{number}.jpg" if number % 3 == 0 else f"{number}.png"
        Image.fromarray(noise).save(folder / name)
    return folder


def table(images: Path, separator: str = ",", lines: int = 30) -> str:
    text = separator.join(("file", "caption", "modality", "location", "pathology")) + "\n"
    for number in range(lines):
        name = f"below/{number}.jpg" if number % 3 == 0 else f"{number}.png"
        pathology = ("normal", "fracture", "")[number % 3]
        text += separator.join(
            (name, f'"caption {number}, the{separator} rest"', "ct", "lung", pathology)
        ) + "\n"  # fmt: skip
    return text


@pytest.fixture
def run(tmp_path: Path, images: Path) -> Run:
    def run(text: str | bytes, *words: str) -> subprocess.CompletedProcess[str]:
        csv = tmp_path / "captions.csv"
        csv.write_bytes(text if isinstance(text, bytes) else text.encode())
        command = [sys.executable, str(SCRIPT), str(images), str(csv), str(tmp_path / "out")]
        return subprocess.run([*command, *words], capture_output=True, text=True, check=False)

    return run


def open_split(tmp_path: Path, split: str) -> Source:
    return open_source(
        split=split, path=str(tmp_path / "out"), hub_id="", config="alignment", revision=None
    )


def rows(source: Source) -> list[dict[str, Any]]:
    return [row for group in range(len(source.row_groups)) for row in source.read(group)]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_pictures_come_back_as_they_were(
    run: Run, images: Path, tmp_path: Path, separator: str
) -> None:
    done = run(table(images, separator))
    assert (done.returncode, done.stderr) == (0, "")
    train, val = rows(open_split(tmp_path, "train")), rows(open_split(tmp_path, "val"))
    assert len(train) + len(val) == 30 and len(val) >= 1
    for row in train + val:
        path = row["image"]["path"]
        number = int(Path(path).stem)
        assert row["image"]["bytes"] == (images / path).read_bytes()
        assert row["conversations"][1]["value"] == f"caption {number}, the{separator} rest"
        assert row["metadata"]["pathology"] == ("normal", "fracture", None)[number % 3]
        assert row["metadata"]["is_abnormal"] == (False, True, None)[number % 3]
    order = [row["metadata"]["pathology"] or "" for row in train]
    assert order == sorted(order)


def test_the_files_are_of_the_real_sets_form(run: Run, images: Path, tmp_path: Path) -> None:
    run(table(images))
    file = next((tmp_path / "out" / "alignment").glob("train-00000-of-00001.parquet"))
    assert pq.read_metadata(file).num_row_groups >= 7
    features = datasets.Features.from_arrow_schema(pq.read_schema(file))
    assert features["image"] == datasets.Image()
    assert features["metadata"]["correct_text"] == datasets.Value("null")


def test_excels_csv_and_any_case_of_the_header(run: Run, images: Path, tmp_path: Path) -> None:
    text = b"\xef\xbb\xbfCaption;FILE\r\n" + "größer;1.png\r\n".encode() + b"x;2.png\r\n;\r\n"
    assert run(text).returncode == 0
    texts = {row["conversations"][1]["value"] for row in rows(open_split(tmp_path, "train"))}
    assert texts == {"größer", "x"}


def test_what_is_left_out_is_reported(run: Run, images: Path, tmp_path: Path) -> None:
    (images / "copy.png").write_bytes((images / "1.png").read_bytes())
    (images / "broken.png").write_bytes(b"<html>")
    (images / "half.png").write_bytes((images / "2.png").read_bytes()[:200])
    extra = "nowhere.png,x\n4.png,\n,x\ncopy.png,x\nbroken.png,x\nhalf.png,x\n"
    lines = table(images, lines=20).splitlines(keepends=True)
    done = run("".join(line for line in lines if not line.startswith("4.png")) + extra)
    assert done.returncode == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["left_out_by_reason"] == {
        "missing file": 2, "no caption": 1, "duplicate": 1, "undecodable": 1, "truncated": 1,
    }  # fmt: skip
    assert {"file": "broken.png", "reason": "undecodable"} in report["left_out"]
    assert report["images_not_in_csv"] == 10 and "not in the CSV: 10" in done.stdout
    assert sum(report["rows"].values()) == 19
    assert "left out, missing file: 2 (first: nowhere.png)" in done.stdout


def test_the_split_follows_content_and_seed(run: Run, images: Path, tmp_path: Path) -> None:
    def val(*words: str) -> set[bytes]:
        run(table(images), "--force", "--val-fraction", "0.4", *words)
        return {row["image"]["bytes"] for row in rows(open_split(tmp_path, "val"))}

    first = val()
    assert val() == first and val("--seed", "1") != first
    run(table(images, lines=15), "--force", "--val-fraction", "0.4")
    fewer = {row["image"]["bytes"] for row in rows(open_split(tmp_path, "val"))}
    assert fewer < first


def test_small_sets(run: Run, images: Path, tmp_path: Path) -> None:
    for lines in (10, 30):
        run(table(images, lines=lines), "--force", "--val-fraction", "0.0001")
        assert open_split(tmp_path, "val").num_rows == 1
        run(table(images, lines=lines), "--force", "--val-fraction", "0.9999")
        assert open_split(tmp_path, "train").num_rows == 1
    done = run(table(images, lines=9), "--force")
    assert "no validation split: 9 rows are fewer than 10" in done.stdout
    assert not list((tmp_path / "out" / "alignment").glob("val-*"))


def test_rows_per_group(run: Run, images: Path, tmp_path: Path) -> None:
    run(table(images), "--rows-per-group", "4", "--val-fraction", "0")
    assert [g.num_rows for g in open_split(tmp_path, "train").row_groups] == [4] * 7 + [2]


def test_a_full_folder_is_not_touched(run: Run, images: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    done = run(table(images))
    assert done.returncode == 2 and "is not empty" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    assert run(table(images), "--force").returncode == 0
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "words", "status", "message"),
    [
        ("name,caption\n", (), 2, "no column 'file'"),
        ("", (), 2, "no column 'file'"),
        ("file,caption\nnope.png,x\n", (), 1, "no usable picture"),
        (b"file,caption\n1.png,gr\xf6\xdfer\n", (), 2, "save it as CSV UTF-8"),
        ("file,caption\n1.png,x\n", ("--val-fraction", "1"), 2, "--val-fraction"),
        ("file,caption\n1.png,x\n", ("--rows-per-group", "0"), 2, "--rows-per-group"),
        ("file,caption\n1.png,x\n", ("--nonsense",), 2, "unrecognized arguments"),
    ],
)
def test_mistakes_are_told_in_one_line(
    run: Run, text: str, words: tuple[str, ...], status: int, message: str
) -> None:
    done = run(text, *words)
    assert done.returncode == status and message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1 or "usage:" in done.stderr


def test_missing_arguments_folders_and_files(tmp_path: Path) -> None:
    for images, csv in (("nowhere", "x.csv"), (".", "x.csv")):
        done = subprocess.run(
            [sys.executable, str(SCRIPT), str(tmp_path / images), str(tmp_path / csv), "out"],
            capture_output=True, text=True, check=False, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


def test_help_is_quick_and_needs_no_torch() -> None:
    start = time.perf_counter()
    command = [sys.executable, "-X", "importtime", str(SCRIPT), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert time.perf_counter() - start < 2
    assert done.returncode == 0 and "CAPTIONS.csv" in done.stdout
    assert "torch" not in done.stderr


def test_what_it_writes_can_be_trained_on(
    run: Run, images: Path, tmp_path: Path, tokenizer: Any
) -> None:
    from radcap.data.loader import Loader
    from radcap.data.order import Order

    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, "GIF")
    (images / "1.png").write_bytes(buffer.getvalue())
    run(table(images), "--val-fraction", "0")
    source = open_split(tmp_path, "train")
    counts = [group.num_rows for group in source.row_groups]
    order = Order(counts, counts, seed=0, batch_size=10, lanes=4, window_bytes=100)
    loader = Loader(source, order, tokenizer, workers=0, max_length=16, max_rows=30)
    captions = [caption for batch in loader for caption in batch.captions]
    assert sorted(captions) == sorted(f"caption {n}, the, rest" for n in range(30))
