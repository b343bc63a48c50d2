from __future__ import annotations

import json
import os
import pickle
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bounds import bounded
from command_line import run_python
from watched import watch

from radcap.data.faults import DataError
from radcap.data.open import open_source
from radcap.data.records import Example, parse_row
from radcap.data.source import Source


def open_folder(folder: Path, split: str = "train") -> Source:
    return open_source(split=split, path=str(folder), config="alignment")


def captions(source: Source, group: int, start: int = 0) -> list[str]:
    return [row["conversations"][1]["value"] for row in source.read(group, start)]


def test_row_groups_stand_in_stored_order(numbered: Any) -> None:
    source = open_folder(numbered(3, 1, 4))
    assert [(Path(g.file).name[:11], g.index, g.num_rows) for g in source.row_groups] == [
        ("train-00000", 0, 3), ("train-00000", 1, 1), ("train-00001", 0, 4),
    ]  # fmt: skip
    assert source.num_rows == 8
    assert all(group.num_bytes > 1000 for group in source.row_groups)
    assert captions(source, 1) == ["row number 3"]
    assert captions(source, 2) == [f"row number {n}" for n in (4, 5, 6, 7)]
    assert source.row_id(2, 3) == "train-00001-of-00002:0:3"


def test_reading_from_a_row_on_across_chunks(numbered: Any) -> None:
    source = open_folder(numbered(150))
    for start in (0, 1, 63, 64, 65, 149, 150):
        assert captions(source, 0, start) == [f"row number {n}" for n in range(start, 150)]


def test_images_are_not_decoded(numbered: Any, row: Any) -> None:
    image = next(open_folder(numbered(1)).read(0))["image"]
    assert image == row(0)["image"]


@pytest.mark.parametrize("home", ["data", "."])
def test_other_places_for_the_files(numbered: Any, home: str) -> None:
    folder = numbered(2)
    target = folder / home
    target.mkdir(exist_ok=True)
    for file in (folder / "alignment").glob("*"):
        shutil.move(file, target / file.name)
    assert open_folder(folder).num_rows == 2


def test_a_column_null_in_one_file_and_text_in_the_next(write: Any, row: Any) -> None:
    later = row(1)
    later["metadata"] = later["metadata"] | {"correct_text": "yes", "is_abnormal": None}
    for files in ([[[row(0)]], [[later]]], [[[later]], [[row(0)]]]):
        source = open_folder(write(files))
        texts = [next(source.read(group))["metadata"]["correct_text"] for group in (0, 1)]
        assert sorted(texts, key=str) == [None, "yes"]


def test_metadata_may_be_absent_and_other_columns_are_not_read(write: Any, row: Any) -> None:
    bare = {key: value for key, value in row(0).items() if key != "metadata"}
    source = open_folder(write([[[bare | {"extra": 1}]]]))
    assert set(next(source.read(0))) == {"image", "conversations"}


def test_metadata_may_be_absent_from_one_file_of_several(write: Any, row: Any) -> None:
    bare = {key: value for key, value in row(1).items() if key != "metadata"}
    source = open_folder(write([[[row(0)]], [[bare]], [[row(2)]]]))
    rows = [next(source.read(group)) for group in range(3)]
    assert ["metadata" in row for row in rows] == [True, False, True]
    assert [row["conversations"][1]["value"][-1] for row in rows] == ["0", "1", "2"]


def test_images_as_structs_in_one_file_and_as_bytes_in_the_next(write: Any, row: Any) -> None:
    plain = row(1) | {"image": row(1)["image"]["bytes"]}
    source = open_folder(write([[[row(0)]], [[plain]]]))
    examples = [parse_row(next(source.read(group))) for group in (0, 1)]
    assert [example.image for example in examples if isinstance(example, Example)] == [
        row(number)["image"]["bytes"] for number in (0, 1)
    ]


@pytest.mark.parametrize(
    "notes",
    [
        b"no JSON",
        b'{"info": null}',
        json.dumps({"info": {"features": {"extra": {"_type": "OfTheFuture"}}}}).encode(),
    ],
)
def test_what_is_not_read_may_be_of_any_kind(numbered: Any, notes: bytes) -> None:
    folder = numbered(3)
    file = next((folder / "alignment").iterdir())
    table = pq.read_table(file)
    extra = pa.array([[("key", 1)]] * 3, pa.map_(pa.string(), pa.int64()))
    table = table.append_column("extra", extra).replace_schema_metadata({"huggingface": notes})
    pq.write_table(table, file)
    assert captions(open_folder(folder), 0, 0) == [f"row number {n}" for n in range(3)]


def test_text_that_is_not_utf8_spoils_its_row_only(numbered: Any) -> None:
    folder = numbered(3)
    file = next((folder / "alignment").iterdir())
    data = file.read_bytes()
    table = pq.read_table(file)
    texts = ["row number 0", "row number X", "row number 2"]
    values = pa.array([t.encode() for t in texts]).cast(pa.binary())
    bad = pa.array([v.as_py().replace(b"X", b"\xff") for v in values]).view(pa.string())
    turns = [pa.array([["human", "template"]] * 3).flatten()]
    interleaved = pa.concat_arrays(
        [part for i in range(3) for part in (pa.array(["q"]), bad.slice(i, 1))]
    )
    structs = pa.StructArray.from_arrays([turns[0], interleaved], ["from", "value"])
    conversations = pa.ListArray.from_arrays(pa.array([0, 2, 4, 6], pa.int32()), structs)
    pq.write_table(table.set_column(1, "conversations", conversations), file)
    assert file.read_bytes() != data
    rows = list(open_folder(folder).read(0))
    assert rows[1] == {}
    assert [rows[i]["conversations"][1]["value"] for i in (0, 2)] == [texts[0], texts[2]]


def test_revision_follows_the_content(numbered: Any) -> None:
    folder = numbered(3, 3)
    first = open_folder(folder).revision
    assert open_folder(folder).revision == first
    moved = folder.parent / "elsewhere"
    shutil.copytree(folder, moved)
    assert open_folder(moved).revision == first
    numbered(3, 4)
    assert open_folder(folder).revision != first


def test_a_source_can_be_pickled_small(numbered: Any) -> None:
    source = open_folder(numbered(2, 2))
    list(source.read(0))
    data = pickle.dumps(source)
    assert len(data) < 2000
    assert pickle.loads(data) == source and captions(pickle.loads(data), 1) == captions(source, 1)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("test", r"no split 'test' .* looked for alignment/test-\*.parquet.*there are: .*/train"),
        ("validation", "this data set calls it 'val'"),
    ],
)
def test_a_missing_split_says_what_is_there(numbered: Any, split: str, message: str) -> None:
    numbered(2, split="val")
    folder = numbered(2)
    with pytest.raises(DataError, match=message) as caught:
        open_folder(folder, split)
    assert "\n" not in str(caught.value)


def test_no_folder_no_files_no_parquet(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="there are no parquet files"):
        open_folder(tmp_path)
    (tmp_path / "train-00000-of-00001.parquet").write_bytes(b"PAR1 half")
    with pytest.raises(DataError, match="is not a whole parquet file"):
        open_folder(tmp_path)


def test_a_config_without_captions_is_refused(write: Any, row: Any) -> None:
    question = {"image": row(0)["image"], "question": "?", "answer": "!"}
    with pytest.raises(DataError, match="no column 'conversations'"):
        open_folder(write([[[question]]]))


def test_rows_of_several_questions_are_refused_by_their_footers(write: Any, row: Any) -> None:
    """Under whatever name, and with some rows of captions among them."""
    turn = row(0)["conversations"]
    system = {"from": "system", "value": "You describe pictures."}
    for number in (2, 9):
        rows = [row(i, conversations=turn * number) for i in range(3)]
        with pytest.raises(DataError, match=rf"questions and their answers, {2 * number} turns a"):
            open_folder(write([[rows]]))
    with pytest.raises(DataError, match=r"data\.config=alignment"):
        open_folder(write([[[row(0)], [row(1, conversations=turn * 9)]]]))
    source = open_folder(write([[[row(i, conversations=[system, *turn]) for i in range(3)]]]))
    assert captions(source, 0, 0)[0] == "<image>\nDescribe."  # the second turn of three


def test_files_that_change_under_us(numbered: Any) -> None:
    source = open_folder(numbered(4))
    numbered(5)
    with pytest.raises(DataError, match="changed while in use"):
        list(source.read(0))
    Path(source.row_groups[0].file).unlink()
    with pytest.raises(DataError, match="cannot read row group 0"):
        list(source.read(0))


def test_works_where_home_cannot_be_written(numbered: Any) -> None:
    """And opening needs no torch: faults must show before its import."""
    program = (
        "import sys; from radcap.data.open import open_source;"
        f"s = open_source(split='train', path={str(numbered(2))!r}, config='alignment');"
        " assert 'torch' not in sys.modules;"
        " print(len(list(s.read(0))));"
        " del s; import gc; gc.collect()"  # a thread of the stream's would end the process its way
    )
    home = dict.fromkeys(("HOME", "HF_HOME", "XDG_CACHE_HOME"), "/proc/none")
    done = run_python(program, **home)
    assert (done.returncode, done.stdout.strip()) == (0, "2"), done.stderr


@pytest.fixture
def refusing_hub() -> Iterator[Any]:
    """A Hub on loopback: one status for every request; counts those for data sets."""

    class Hub(BaseHTTPRequestHandler):
        status, requests = 403, 0

        def do_GET(self) -> None:
            type(self).requests += self.path.startswith("/api/datasets/")
            self.send_response(self.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def open_hub(endpoint: str) -> str:
    program = (
        "from radcap.data.faults import DataError\n"
        "from radcap.data.hub.download import Hub; from radcap.data.open import open_source\n"
        "try: open_source(split='train', path=None, config='alignment', hub=Hub('some/set'))\n"
        "except DataError as error: print(error)"
    )
    watched = watch(Path.cwd(), "-c", program, variables=os.environ | {"HF_ENDPOINT": endpoint})
    assert watched.done.returncode == 0, watched.done.stderr
    # Five seconds with growing pauses, where nobody answers.
    assert 1 <= len(watched.connections) <= 9
    return watched.done.stdout.strip()


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_final_and_names_set_and_token(refusing_hub: Any, status: int) -> None:
    refusing_hub.RequestHandlerClass.status = status
    message = open_hub(f"http://127.0.0.1:{refusing_hub.server_port}")
    assert "some/set" in message and "HF_TOKEN" in message and "\n" not in message
    assert refusing_hub.RequestHandlerClass.requests == 1


def test_no_network_names_the_address_and_the_way_without() -> None:
    message = open_hub("http://127.0.0.1:9")
    assert "http://127.0.0.1:9" in message
    assert "data=phantom or data.path=FOLDER" in message


def test_rows_without_anything_in_them_are_not_counted_up(tmp_path: Path, row: Any) -> None:
    folder = tmp_path / "alignment"
    folder.mkdir()
    schema = pa.Table.from_pylist([row(0)]).schema
    columns = [pa.nulls(300_000, field.type) for field in schema]
    file = folder / "train-00000-of-00001.parquet"
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), file, row_group_size=300_000)
    assert file.stat().st_size < 50_000
    with (
        bounded(300),
        pytest.raises(DataError, match=r"is said to have 300,000 rows in the bytes") as told,
    ):
        open_folder(tmp_path)
    assert "\n" not in str(told.value)


def test_a_row_group_that_grows_without_bound_is_refused(tmp_path: Path, row: Any) -> None:
    folder = tmp_path / "alignment"
    folder.mkdir()
    table = pa.Table.from_pylist([row(0) | {"image": {"bytes": b"\0" * 300_000_000, "path": None}}])
    path = folder / "train-00000-of-00001.parquet"
    pq.write_table(table, path, compression="zstd", use_dictionary=False, write_statistics=False)
    assert path.stat().st_size < 100_000
    del table
    with (
        bounded(200),
        pytest.raises(DataError, match=r"row group 0 grows from .* to 300,000,\d+ when it is read"),
    ):
        open_folder(tmp_path)


def test_rows_of_which_many_are_empty_are_still_read(write: Any, row: Any) -> None:
    empty = row(0, image=None, conversations=None, metadata=None)
    source = open_folder(write([[[row(1), *[empty] * 400]]]))
    assert len(list(source.read(0))) == 401


def test_a_pipe_for_a_parquet_file_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "alignment").mkdir()
    os.mkfifo(tmp_path / "alignment" / "train-00000-of-00001.parquet")
    with bounded(300), pytest.raises(DataError, match="neither a file nor a folder"):
        open_folder(tmp_path)


def test_reading_asks_nobody_for_anything(numbered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` would count each load as a download, at a server that may be out of reach."""
    import datasets

    asked: list[int] = []
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.load, "get_session", lambda: asked.append(1))
    source = open_folder(numbered(3, 1))
    assert captions(source, 0) == [f"row number {n}" for n in range(3)]
    assert asked == []


@pytest.mark.parametrize(
    "name",
    [
        "v1 [final]",
        "a(b){c},=#'",
        "zip::a",
        "::",
        "Straße 放射",
        "~",
        "a*?",
        "%41",
        "http:",
        "\udcff",
    ],
)
def test_a_folder_of_any_name_is_read(numbered: Any, name: str) -> None:
    folder = numbered(3, 2, 4)
    folder = folder.rename(folder.with_name(name))
    source = open_folder(folder)
    assert [captions(source, group) for group in (2, 0, 1)] == [
        [f"row number {n}" for n in numbers] for numbers in ((5, 6, 7, 8), (0, 1, 2), (3, 4))
    ]
    assert captions(source, 2, 3) == ["row number 8"]


def test_reading_makes_no_file_and_takes_no_lock(
    numbered: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it needs neither a temporary folder nor a file system with locks."""
    import fcntl
    import tempfile

    def none(*_: Any, **__: Any) -> Any:
        raise OSError("not to be used")

    source = open_folder(numbered(2))
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(fcntl, "flock", none)
    monkeypatch.setattr(tempfile, "mkdtemp", none)
    monkeypatch.setattr(tempfile, "gettempdir", none)
    assert captions(source, 0) == ["row number 0", "row number 1"]
    assert sorted(tmp_path.rglob("*")) == before
