"""Data sets of others, read as they are: their columns, their files' names, their faults."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub.stand_in import StandInHub, point_client_at, serving

from radcap.config.compose import compose, from_yaml, to_yaml
from radcap.config.options import options_where
from radcap.config.schema import Config
from radcap.data.collate import encode_captions
from radcap.data.columns import Columns
from radcap.data.faults import DataError
from radcap.data.hub.download import Hub
from radcap.data.hub.local_copy import copy_to_folder, open_copy
from radcap.data.labels import Labels
from radcap.data.open import open_source
from radcap.data.records import Example, parse_row
from radcap.data.shelf import Cache, Shelf, Spool
from radcap.data.source import Source
from radcap.data.split_files import files_of_split
from radcap.diagnosis.dataset import splits
from radcap.errors import ConfigError
from radcap.training.inputs import Inputs
from radcap.training.run.folder import RunFolder

ROCO = "eltorio/ROCOv2-radiology"
CAPTION = Columns(caption="caption")
SECOND = "The arrow marks a mass."


def table(row: Any, start: int, count: int) -> pa.Table:
    """Rows of ROCOv2's form: struct, text, text of several sentences, list of texts."""
    kinds = {
        "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        "image_id": pa.string(),
        "caption": pa.string(),
        "cui": pa.list_(pa.string()),
    }
    rows = [
        {
            "image": row(number)["image"],
            "image_id": f"ROCOv2_{number}",
            "caption": f"CT of row {number}.\n{SECOND}",
            "cui": ["C0040405"],
        }
        for number in range(start, start + count)
    ]
    return pa.Table.from_pylist(rows, pa.schema(list(kinds.items())))


def save(folder: Path, name: str, content: pa.Table) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, file, row_group_size=2)
    return folder


@pytest.fixture
def roco(tmp_path: Path, row: Any) -> Path:
    folder = tmp_path / "roco"
    for split, start in (("train", 0), ("validation", 10), ("test", 20)):
        for part in range(2):
            name = f"data/{split}-0000{part}-of-00002.parquet"
            save(folder, name, table(row, start + 3 * part, 3))
    return folder


@pytest.fixture
def stand_in(roco: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    with serving(roco, ROCO) as hub:
        point_client_at(hub.endpoint, monkeypatch)
        yield hub


def open_folder(folder: Path, columns: Columns = CAPTION, split: str = "train") -> Source:
    return open_source(split=split, path=str(folder), config="default", columns=columns)


def examples(source: Source) -> list[Example]:
    rows = [row for group in range(len(source.row_groups)) for row in source.read(group)]
    found = [parse_row(row) for row in rows]
    assert all(isinstance(one, Example) for one in found)
    return [one for one in found if isinstance(one, Example)]


def text(number: int) -> str:
    return f"CT of row {number}. {SECOND}"


def test_a_caption_column_is_read_and_no_other(roco: Path, row: Any) -> None:
    source = open_folder(roco)
    assert [one.caption for one in examples(source)] == [text(n) for n in range(6)]
    assert examples(source)[4].image == row(4)["image"]["bytes"]
    assert all(one.labels == Labels() for one in examples(source))
    assert set(next(source.read(0))) == {"image", "caption"}
    # Nor are the bytes of the others fetched: cui stands behind the caption.
    groups = pq.read_metadata(source.row_groups[0].file).row_group(0)
    ends = {groups.column(i).path_in_schema: i for i in range(groups.num_columns)}
    assert source.row_groups[0].stop <= groups.column(ends["cui.list.element"]).data_page_offset


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_other_names_and_kinds(tmp_path: Path, row: Any, kind: pa.DataType) -> None:
    content = pa.table(
        {
            "metadata": pa.array([[("a", 1)]] * 3, pa.map_(pa.string(), pa.int64())),
            "jpg.raw": [row(number)["image"]["bytes"] for number in range(3)],
            "report.text": pa.array(["one", None, "  "], kind),
            "jpg.raw2": [b"x"] * 3,
        }
    )
    folder = save(tmp_path, "train.parquet", content)
    columns = Columns("jpg.raw", "report.text")
    source = open_folder(folder, columns)
    rows = [row for group in range(2) for row in source.read(group)]
    assert [set(row) for row in rows] == [{"image", "caption"}] * 3
    parsed = [parse_row(row) for row in rows]
    assert parsed[0] == Example(row(0)["image"]["bytes"], "one", Labels())
    assert [getattr(one, "reason", None) for one in parsed[1:]] == ["no caption"] * 2
    # A column may be called metadata and hold the captions.
    named = content.select(["jpg.raw"]).append_column("metadata", content["report.text"])
    other = open_folder(
        save(tmp_path / "b", "train.parquet", named), Columns("jpg.raw", "metadata")
    )
    assert next(other.read(0))["caption"] == "one"


NAMES = {
    "default/train-0.parquet": ["alignment/train-00000-of-00001.parquet", "train-1.parquet"],
    "data/train-0-of-2.parquet": ["train-1.parquet", "data/train/1.parquet"],
    "data/train.parquet": ["data/train/0.parquet", "data/retrain.parquet", "train.parquet"],
    "default/train/0000.parquet": ["default/partial-train/0000.parquet", "train-0.parquet"],
    "train.parquet": ["test.parquet", "other/train.parquet", "train.csv", "data/trains-0.parquet"],
    "train/0000.parquet": ["validation/0000.parquet", "train/more/0000.parquet"],
}


@pytest.mark.parametrize("name", NAMES)
def test_where_the_files_of_a_split_are(tmp_path: Path, row: Any, name: str) -> None:
    assert files_of_split([*NAMES[name], name], "train", "default") == [name]
    for number, other in enumerate((name, *NAMES[name])):
        save(tmp_path, other, table(row, 10 * number, 1))
    assert [one.caption for one in examples(open_folder(tmp_path))] == [text(0)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (Columns(), r"no column 'conversations': captions need image, conversations; there are "
         r"image, image_id, caption, cui; data.image_column and data.caption_column name others"),
        (Columns(caption="text"), r"no column 'text'"),
        (Columns(image="img", caption="text\n"), r"no column 'img', 'text\\n': .* img, text\\n;"),
        (Columns(caption="cui"), r"'cui' holds list<element: string>, not text; data.image_column"),
        (Columns(image="image_id", caption="caption"), r"'image_id' holds string, not pictures"),
    ],
)  # fmt: skip
def test_a_column_that_is_none_is_told_before_anything_is_read(
    roco: Path, columns: Columns, message: str
) -> None:
    with pytest.raises(DataError, match=message) as told:
        open_folder(roco, columns)
    assert "\n" not in str(told.value)


def test_a_column_that_is_there_twice(tmp_path: Path, row: Any) -> None:
    content = table(row, 0, 2).append_column("caption", pa.array(["x", "y"]))
    with pytest.raises(DataError, match="has several columns 'caption'"):
        open_folder(save(tmp_path, "train.parquet", content))


def test_the_hubs_are_the_folders_and_can_be_copied(
    stand_in: StandInHub, roco: Path, tmp_path: Path
) -> None:
    hub = Hub(ROCO)
    remote = open_source(split="train", path=None, config="default", hub=hub, columns=CAPTION)
    spool = Spool(tmp_path)
    shelf = Shelf(remote, hub=hub, spool=spool, cache=None, max_pixels=10**6)
    try:
        rows = [row for group in (0, 1) for row in loaded(shelf, group)]
    finally:
        spool.close()
    assert [row.caption for row in rows] == [text(n) for n in range(3)]

    asked: dict[str, Any] = {"config": "default", "splits": ("train", "validation")}
    copy = tmp_path / "copy"
    commit = copy_to_folder(hub, copy, revision=None, **asked)
    before = stand_in.number
    assert copy_to_folder(hub, copy, revision=None, **asked) == commit == remote.revision
    assert stand_in.number == before
    source = open_copy(
        copy, hub_id=ROCO, split="validation", config="default", commit=commit, columns=CAPTION
    )
    assert [one.caption for one in examples(source)] == [text(n) for n in range(10, 16)]


def loaded(shelf: Shelf, group: int) -> list[Any]:
    from radcap.data.ahead import Cancel

    return list(shelf.load([group], 0, Cancel()).rows)


def test_a_data_set_of_the_hub_without_parquet_files(stand_in: StandInHub, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "train.zip").write_bytes(b"x")
    stand_in.publish(tmp_path / "other")
    with pytest.raises(DataError, match=r"no parquet files; .* data.revision=refs/convert/parquet"):
        open_source(split="train", path=None, config="default", hub=Hub(ROCO))


def test_rocov2_is_one_word(stand_in: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADCAP_CACHE", str(stand_in.folder / "cache"))
    words = ["data=rocov2", "data.batch_size=4", "data.workers=0", "data.val_workers=0"]
    config = compose([*words, "data.max_length=512"])
    inputs = Inputs(config, revision=None)
    assert (inputs.num_train_rows, inputs.num_val_rows) == (6, 6)
    train, val = inputs.loaders(None)
    try:
        captions = {c for batch in islice(train, inputs.steps_per_epoch) for c in batch.captions}
        assert captions - {""} == {text(number) for number in range(6)}
        batches = list(val)
        assert [c for b in batches for c in b.captions if c] == [text(n) for n in range(10, 16)]
        assert batches[0].tokens.shape == (4, 513)
    finally:
        train.close()
        val.close()


def test_captions_of_several_sentences_are_kept_whole(tokenizer: Any) -> None:
    text = " ".join(f"finding {number} is seen." for number in range(100))
    pieces = len(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert 450 < pieces < 511
    for max_length, is_cut in ((512, False), (pieces, True)):
        ids, cut = encode_captions(tokenizer, [text], max_length)
        assert ids.shape == (1, max_length + 1) and cut.tolist() == [is_cut]
        assert tokenizer.decode(ids[0].tolist()[1 : pieces + 1]).startswith("finding 0 is seen.")
    assert compose(["data.max_length=512"]).data.max_length == 512


def test_a_cache_keeps_what_was_read_of_which_column(tmp_path: Path, row: Any) -> None:
    content = table(row, 0, 2).append_column("findings", pa.array(["x", "y"]))
    folder = save(tmp_path / "set", "train.parquet", content)
    cache = Cache.open(tmp_path / "cache", limit_bytes=10**9, decoded=False)
    spool = Spool(tmp_path)
    try:
        for _ in range(2):
            for columns, expected in ((CAPTION, text(0)), (Columns(caption="findings"), "x")):
                source = open_folder(folder, columns)
                shelf = Shelf(source, hub=None, spool=spool, cache=cache, max_pixels=10**6)
                assert loaded(shelf, 0)[0].caption == expected
    finally:
        spool.close()
    assert len(list((tmp_path / "cache").rglob("*.rows"))) == 2
    # Those of the usual columns stay where they were.
    usual = cache.path(open_folder(folder, Columns(caption="findings")), source.row_groups[0], 1)
    assert usual.parent.name != f"{source.revision[:16]}-encoded"
    assert Columns().tag == ""


def test_both_are_bound_and_older_runs_had_the_usual_ones(tmp_path: Path) -> None:
    bound = options_where(Config, "is_free", False)
    assert {"data.image_column", "data.caption_column"} <= set(bound)
    stored = to_yaml(compose([]))
    for line in ("  image_column: image\n", "  caption_column: null\n"):
        assert line in stored
        stored = stored.replace(line, "")
    assert Columns.of(from_yaml(stored).data) == Columns()
    word = f"run.dir={tmp_path / 'run'}"
    run = RunFolder(compose([word]))
    run.accept()
    run.close()
    with pytest.raises(ConfigError, match=r"data\.caption_column \(None -> text\)"):
        RunFolder(compose([word, "data.caption_column=text"]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.caption_column=image"], r"^data\.caption_column='image': that is data\.image_col"),
        (["data.caption_column=' '"], r"^data\.caption_column: must not be empty"),
        (["data.image_column=''"], r"^data\.image_column: must not be empty"),
    ],
)
def test_wrong_columns(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(words)


def test_the_doctor_reads_the_same_columns(roco: Path) -> None:
    words = [f"data.path='{roco}'", "data.val_split=validation"]
    first, *_ = splits(compose([*words, "data.caption_column=caption"]))
    assert first.found.endswith("6 training, 6 val rows")
    first, *_ = splits(compose(words))
    assert "no column 'conversations'" in first.found


@pytest.mark.parametrize("name", ["scan.dcm", "study/IM0001", "a b.png"])
def test_a_folder_of_pictures_is_told_what_makes_a_data_set(tmp_path: Path, name: str) -> None:
    file = tmp_path / "my pictures" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    (tmp_path / "my pictures" / ".hidden").write_bytes(b"x")
    with pytest.raises(DataError) as told:
        open_folder(tmp_path / "my pictures")
    assert (
        f"others such as '{file.name}'; pictures and a table of captions become a data set by "
        f"python scripts/make_dataset.py '{tmp_path}/my pictures' CAPTIONS.csv OUT"
    ) in str(told.value)


def test_a_file_in_the_place_of_the_folder(tmp_path: Path, row: Any) -> None:
    (tmp_path / "captions.csv").write_text("file,caption\n")
    with pytest.raises(DataError, match=r"is not a folder; .*make_dataset.py \S+ CAPTIONS.csv"):
        open_folder(tmp_path / "captions.csv")
    save(tmp_path, "train.parquet", table(row, 0, 1))
    with pytest.raises(DataError, match=rf"is not a folder; name the one that .* {tmp_path}$"):
        open_folder(tmp_path / "train.parquet")


def test_a_split_of_another_name(roco: Path) -> None:
    with pytest.raises(DataError, match=r"calls it 'validation': data.val_split=validation"):
        open_folder(roco, split="val")
