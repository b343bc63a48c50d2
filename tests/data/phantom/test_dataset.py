"""The written phantom data set: files, types, determinism, interruptions."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import signal
from collections import Counter
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from waiting import wait_until

from radcap.data.labels import NORMAL, PATHOLOGIES, Labels
from radcap.data.phantom.dataset import FORMAT_VERSION, ensure_phantom, read_floor, write_phantom
from radcap.data.phantom.grammar import caption_distribution, draw_labels
from radcap.data.phantom.images import png_bytes
from radcap.data.phantom.rows import HUMAN_PROMPT, SCHEMAS

TRAIN_ROWS, VAL_ROWS = 330, 70


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "set"
    write_phantom(
        folder,
        train_rows=TRAIN_ROWS,
        val_rows=VAL_ROWS,
        seed=3,
        row_group_size=50,
        processes=2,
    )
    return folder


def read_rows(folder: Path, pattern: str) -> list[dict]:
    return [row for path in sorted(folder.glob(pattern)) for row in pq.read_table(path).to_pylist()]


def row_labels(row: dict) -> Labels:
    metadata = row["metadata"]
    return Labels(
        metadata["modality"], metadata["location"], metadata["pathology"], metadata["is_abnormal"]
    )


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_files_and_row_groups(folder: Path) -> None:
    assert sorted(path for path in content(folder)) == [
        "README.md",
        "alignment/train-00000-of-00002.parquet",
        "alignment/train-00001-of-00002.parquet",
        "alignment/val-00000-of-00002.parquet",
        "alignment/val-00001-of-00002.parquet",
        "benchmark/test-00000-of-00001.parquet",
        "floor.json",
        "instruct/train-00000-of-00001.parquet",
        "instruct/val-00000-of-00001.parquet",
    ]
    file = pq.ParquetFile(folder / "alignment/train-00000-of-00002.parquet")
    groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert groups == [50, 50, 50, 15]


def test_everything_says_synthetic(folder: Path) -> None:
    for path in folder.rglob("*.parquet"):
        assert pq.read_schema(path).metadata[b"notice"] == b"synthetic, not RadImageNet"
    assert "synthetic, not RadImageNet" in (folder / "README.md").read_text()
    assert json.loads((folder / "floor.json").read_text())["notice"] == (
        "synthetic, not RadImageNet"
    )


def test_alignment_types_are_the_cards() -> None:
    schema = SCHEMAS["alignment"]
    assert schema.names == ["image", "conversations", "metadata"]
    assert schema.field("metadata").type.field("correct_text").type == pa.null()


@pytest.mark.parametrize("config", SCHEMAS)
def test_feature_metadata_is_what_datasets_writes(config: str) -> None:
    schema = SCHEMAS[config]
    features = datasets.Features.from_arrow_schema(schema)
    assert isinstance(features["image"], datasets.Image)
    assert json.loads(schema.metadata[b"huggingface"]) == json.loads(
        features.arrow_schema.metadata[b"huggingface"]
    )
    assert features.arrow_schema.remove_metadata() == schema.remove_metadata()


def test_alignment_rows(folder: Path) -> None:
    rows = read_rows(folder, "alignment/train-*")
    assert len(rows) == TRAIN_ROWS
    for row in rows:
        labels = row_labels(row)
        human, template = row["conversations"]
        assert human == {"from": "human", "value": HUMAN_PROMPT}
        assert template["from"] == "template"
        assert template["value"] in caption_distribution(labels)
        assert row["metadata"]["correct_text"] is None
        assert row["metadata"]["content_type"] == row["metadata"]["question_id"] == "description"
        assert labels.abnormal is (labels.pathology != NORMAL)
        assert labels.pathology in PATHOLOGIES
    labels = [row_labels(row) for row in rows]
    assert labels == sorted(labels)
    assert len({labels.location for labels in labels}) == 8


def test_pictures_are_grey_rgb_pngs(folder: Path) -> None:
    pictures = [row["image"]["bytes"] for row in read_rows(folder, "alignment/val-*")]
    assert len(set(pictures)) == VAL_ROWS
    for picture in pictures[::7]:
        image = Image.open(io.BytesIO(picture))
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (224, 224))
        red, green, blue = np.moveaxis(np.asarray(image), 2, 0)
        assert (red == green).all() and (green == blue).all()
        assert red.std() > 10


def test_png_keeps_every_grey_level() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    decoded = np.asarray(Image.open(io.BytesIO(png_bytes(grey))))
    assert (decoded == grey[:, :, None]).all()


def test_instruct_and_benchmark(folder: Path) -> None:
    for row in read_rows(folder, "instruct/train-*"):
        turns = row["conversations"]
        assert [turn["from"] for turn in turns] == ["human", "template"] * 9
        assert turns[0]["value"].startswith("<image>\n")
        assert sum("<image>" in turn["value"] for turn in turns) == 1
    rows = read_rows(folder, "benchmark/test-*")
    assert Counter(row["question_type"] for row in rows) == {
        "closed": 50,
        "open": 20,
        "multiple_choice": 20,
    }
    for row in rows:
        if row["question_type"] != "multiple_choice":
            assert row["choices"] is None
            continue
        assert len(set(row["choices"])) == 4
        chosen = row["choices"]["ABCD".index(row["answer"])]
        labels = row_labels(row)
        right = {labels.location, "no pathology seen"} if not labels.abnormal else None
        assert right is None or chosen in right


@pytest.mark.parametrize(
    ("config", "split", "rows"),
    [("alignment", "train", TRAIN_ROWS), ("instruct", "val", 20), ("benchmark", "test", 90)],
)
def test_load_dataset_streams_the_folder(folder: Path, config: str, split: str, rows: int) -> None:
    stream = datasets.load_dataset(str(folder), config, split=split, streaming=True)
    assert isinstance(stream.features["image"], datasets.Image)
    seen = list(stream)
    assert len(seen) == rows
    assert seen[0]["image"].size == (224, 224)


def test_bytes_do_not_depend_on_the_run_or_the_processes(folder: Path, tmp_path: Path) -> None:
    again = partial(write_phantom, train_rows=TRAIN_ROWS, val_rows=VAL_ROWS, row_group_size=50)
    again(tmp_path / "one", seed=3, processes=1)
    assert content(tmp_path / "one") == content(folder)
    again(tmp_path / "other", seed=4, processes=2)
    mine, other = content(folder), content(tmp_path / "other")
    same = {name for name in mine if mine[name] == other[name]}
    assert same <= {"README.md", "floor.json"}


def test_val_is_drawn_apart_from_train(folder: Path) -> None:
    train, val = (
        {row["image"]["bytes"] for row in read_rows(folder, f"alignment/{split}-*")}
        for split in ("train", "val")
    )
    assert not train & val


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_phantom(
        tmp_path / "set",
        train_rows=4,
        val_rows=1,
        processes=1,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls[-1][0] == calls[-1][1] == 4 + 1 + 60 + 10
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert read_floor(tmp_path / "set")["val"].rows == 1


@pytest.mark.parametrize("wrong", [{"train_rows": 0}, {"val_rows": -1}, {"seed": -1}])
def test_impossible_sizes_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        write_phantom(tmp_path / "set", **{"train_rows": 2, "val_rows": 2, **wrong})
    assert not (tmp_path / "set").exists()


def test_ensure_writes_once(tmp_path: Path) -> None:
    first = ensure_phantom(tmp_path, train_rows=3, val_rows=2, seed=1)
    before = content(first)
    stamp = (first / "floor.json").stat().st_mtime_ns
    assert ensure_phantom(tmp_path, train_rows=3, val_rows=2, seed=1) == first
    assert (first / "floor.json").stat().st_mtime_ns == stamp
    assert content(first) == before
    assert ensure_phantom(tmp_path, train_rows=3, val_rows=2, seed=2) != first


def _ensure(root: Path) -> None:
    ensure_phantom(root, train_rows=300, val_rows=10)


def test_a_killed_writer_leaves_no_set_and_the_next_one_repairs(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writer = context.Process(target=_ensure, args=(tmp_path,))
    writer.start()
    wait_until(lambda: list(tmp_path.rglob("train-*.parquet")), "the writer's begin", every_s=0.01)
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("phantom")]

    folder = ensure_phantom(tmp_path, train_rows=300, val_rows=10)
    write_phantom(tmp_path / "fresh", train_rows=300, val_rows=10)
    assert content(folder) == content(tmp_path / "fresh")
    assert not list(tmp_path.glob("*.partial"))


def test_two_at_once_write_one_whole_set(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_ensure, args=(tmp_path,)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    (folder,) = [path for path in tmp_path.iterdir() if path.name.startswith("phantom")]
    assert len(read_rows(folder, "alignment/train-*")) == 300


def test_rows_of_format_version_2(tmp_path: Path) -> None:
    """Folders of one name must hold the same rows: if this fails, raise FORMAT_VERSION."""
    write_phantom(tmp_path, train_rows=60, val_rows=1, processes=1)
    rows = read_rows(tmp_path, "alignment/train-*")
    captions = "\n".join(row["conversations"][1]["value"] for row in rows)
    brightness = [
        np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))).mean() for row in rows[::10]
    ]
    assert FORMAT_VERSION == 2
    assert hashlib.sha256(captions.encode()).hexdigest() == (
        "5baf180d753551e724d0a6afed7969d802ad7db50e858f8913f342275c5e121b"
    )
    # Means, not bytes: PNG bytes follow the zlib at hand, and sin and cos the processor.
    assert brightness == pytest.approx([83.9, 72.4, 64.7, 48.9, 46.6, 43.8], abs=0.1)


def test_labels_have_the_real_frequencies() -> None:
    rows = 200_000
    labels = draw_labels(rows, np.random.default_rng(0))
    counts = Counter(each.pathology for each in labels)
    assert sum(each.modality == "ct" for each in labels) / rows == pytest.approx(0.2746, abs=0.005)
    assert counts[NORMAL] / rows == pytest.approx(0.2, abs=0.01)
    # 40,498 of 833,677 rows, and 85,073 of them
    assert counts["meniscal_abnormality"] / rows == pytest.approx(0.0486, abs=0.003)
    assert counts["chondral_abnormality"] / rows == pytest.approx(0.1020, abs=0.004)
    assert {each.location for each in labels if each.modality == "ct"} == {"lung", "abdomen"}
