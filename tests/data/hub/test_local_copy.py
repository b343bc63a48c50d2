"""A copy of a data set has the bytes that the Hub states, or is none."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from files.test_locks import refuse_flock
from hub.stand_in import HUB_ID, StandInHub, point_client_at, serving

from radcap.data.faults import DataError
from radcap.data.hub.copy_note import NOTE
from radcap.data.hub.download import Hub
from radcap.data.hub.local_copy import copy_to_folder, whole_copy

ASKED: dict[str, Any] = {"config": "alignment", "splits": ("train", "val"), "revision": None}
FIRST, SECOND = (f"alignment/train-0000{number}-of-00002.parquet" for number in (0, 1))
FILES = {FIRST, SECOND, "alignment/val-00000-of-00001.parquet"}


@pytest.fixture
def stand_in(numbered: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    numbered(2, split="val")
    with serving(numbered(2, 1, 3)) as hub:
        point_client_at(hub.endpoint, monkeypatch)
        monkeypatch.setattr("radcap.data.hub.download._FIRST_PAUSE_S", 0.01)
        yield hub


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return tmp_path / "copies" / "copy"


def make(copy: Path) -> str:
    return copy_to_folder(Hub(HUB_ID, patience_to_connect_s=0.0), copy, **ASKED)


def assert_whole(copy: Path, stand_in: StandInHub) -> None:
    found = {file.relative_to(copy).as_posix() for file in copy.rglob("*") if file.is_file()}
    assert found == FILES | {NOTE}
    for name in FILES:
        assert (copy / name).read_bytes() == (stand_in.folder / name).read_bytes(), name


def damage(file: Path) -> None:
    """Another byte in the middle: the size stays."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def wrong(*names: str, times: int) -> Callable[[str, bytes], bytes]:
    """Damages the files when they are sent, so many times each."""
    left = dict.fromkeys(names, times)

    def change(name: str, data: bytes) -> bytes:
        if not left.get(name):
            return data
        left[name] -= 1
        return data[:-1] + bytes([data[-1] ^ 1])

    return change


@pytest.mark.parametrize("large", [(".parquet",), ()], ids=["large files", "small files"])
def test_wrong_bytes_are_fetched_again(
    stand_in: StandInHub, copy: Path, monkeypatch: pytest.MonkeyPatch, large: tuple[str, ...]
) -> None:
    """Against the hash of a large file's content, and against git's name of a small one."""
    monkeypatch.setattr("hub.stand_in._LARGE", large)
    stand_in.change_bytes = wrong(FIRST, SECOND, times=1)
    assert make(copy) == stand_in.commit
    assert_whole(copy, stand_in)
    assert stand_in.requests["GET bytes"] == 5


def test_bytes_that_stay_wrong_are_refused_and_are_no_copy(
    stand_in: StandInHub, copy: Path
) -> None:
    stand_in.change_bytes = wrong(FIRST, times=100)
    for _ in range(2):
        before = stand_in.requests["GET bytes"]
        with pytest.raises(DataError, match="came 3 times with other bytes") as caught:
            make(copy)
        assert FIRST in str(caught.value) and str(caught.value).isprintable()
        assert stand_in.requests["GET bytes"] == before + 3
        assert not [file for file in copy.rglob("*") if file.is_file()]
    stand_in.change_bytes = None
    make(copy)
    assert_whole(copy, stand_in)


def test_a_wrong_beginning_from_before_is_fetched_again(stand_in: StandInHub, copy: Path) -> None:
    commit = stand_in.commit
    stand_in.change_bytes = lambda name, data: b"x" * len(data)
    stand_in.fault = lambda number, method, path: (
        "half" if stand_in.requests["GET bytes"] == 1 and "/cdn/" in path else
        403 if "/cdn/" in path else None
    )  # fmt: skip
    with pytest.raises(DataError, match="HF_TOKEN"):
        make(copy)
    part = next(copy.rglob("*.part"))
    assert set(part.read_bytes()) == set(b"x")
    stand_in.change_bytes = None
    stand_in.fault = lambda number, method, path: None
    assert make(copy) == commit
    assert_whole(copy, stand_in)


def test_a_copy_with_wrong_bytes_is_found_and_healed(stand_in: StandInHub, copy: Path) -> None:
    make(copy)
    damage(copy / SECOND)
    stat = (copy / SECOND).stat()
    os.utime(copy / SECOND, ns=(stat.st_atime_ns, json.loads((copy / NOTE).read_text())["files"]
                                [SECOND]["times"][0]))  # fmt: skip
    before = stand_in.bytes_served
    assert make(copy) == stand_in.commit
    assert_whole(copy, stand_in)
    assert stand_in.bytes_served - before == (copy / SECOND).stat().st_size
    before = stand_in.number
    make(copy)
    assert stand_in.number == before


def test_a_copy_with_wrong_bytes_is_not_used_without_the_hub(
    stand_in: StandInHub, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(copy)
    damage(copy / FIRST)
    point_client_at("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(DataError, match="cannot reach"):
        make(copy)


def test_a_copy_that_was_only_touched_needs_no_hub_and_is_read_once(
    stand_in: StandInHub, copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    commit = make(copy)
    for name in FILES:
        os.utime(copy / name)
    point_client_at("http://127.0.0.1:9", monkeypatch)
    caplog.clear()
    assert make(copy) == commit
    assert "reading 3 files" in caplog.text
    caplog.clear()
    assert make(copy) == commit
    assert caplog.text == ""


def test_a_file_system_without_locks_takes_a_copy(
    stand_in: StandInHub, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_flock(monkeypatch)
    assert make(copy) == stand_in.commit
    assert_whole(copy, stand_in)


def test_files_without_a_note_are_compared_and_not_fetched(
    stand_in: StandInHub, copy: Path
) -> None:
    commit = make(copy)
    note = json.loads((copy / NOTE).read_text())
    sizes = {name: entry["size"] for name, entry in note["files"].items()}
    damage(copy / FIRST)
    for content in (None, note | {"files": sizes}):
        (copy / NOTE).unlink()
        if content is not None:
            (copy / NOTE).write_text(json.dumps(content))
        before = stand_in.bytes_served
        assert make(copy) == commit
        expected = 0 if content else (copy / FIRST).stat().st_size
        assert stand_in.bytes_served - before == expected
        assert_whole(copy, stand_in)


def test_a_hub_that_states_no_hash_is_believed_once(stand_in: StandInHub, copy: Path) -> None:
    """What came is noted with the hash it had, so that a later change is seen."""
    stand_in.change_info = lambda info: (
        info | {"siblings": [{"rfilename": one["rfilename"]} for one in info["siblings"]]}
    )
    make(copy)
    assert_whole(copy, stand_in)
    damage(copy / FIRST)
    make(copy)
    assert_whole(copy, stand_in)


NOTES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "null": lambda note: None,
    "a list": lambda note: [],
    "a commit that leads outside": lambda note: note | {"revision": "../../../outside"},
    "a commit that is a list": lambda note: note | {"revision": []},
    "no files": lambda note: note | {"files": None},
    "a file that leads outside": lambda note: note | {
        "files": {**note["files"], "alignment/train-/../../../x": note["files"][FIRST]}
    },
    "a size in words": lambda note: note | {
        "files": {name: one | {"size": "5"} for name, one in note["files"].items()}
    },
    "no hash": lambda note: note | {
        "files": {name: one | {"digest": "../x"} for name, one in note["files"].items()}
    },
    "other times": lambda note: note | {
        "files": {name: one | {"times": [[], {}]} for name, one in note["files"].items()}
    },
    "an id that is a list": lambda note: note | {"hub_id": [1]},
}  # fmt: skip


@pytest.mark.parametrize("name", NOTES)
def test_a_note_that_is_none_is_not_believed(
    stand_in: StandInHub, copy: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = make(copy)
    content = json.loads((copy / NOTE).read_text())
    (copy / NOTE).write_text(json.dumps(NOTES[name](content)))
    asked = {**ASKED, "hub_id": HUB_ID}
    assert whole_copy(copy, **asked) is None
    before = stand_in.bytes_served
    assert make(copy) == commit
    assert stand_in.bytes_served == before
    assert_whole(copy, stand_in)
    assert whole_copy(copy, **asked) == commit


@pytest.mark.parametrize("text", [b"[" * 10**5, b"\xff", b'{"a": ' + b"9" * 5000 + b"}", b""])
def test_a_note_that_cannot_be_read_is_none(stand_in: StandInHub, copy: Path, text: bytes) -> None:
    commit = make(copy)
    (copy / NOTE).write_bytes(text)
    assert whole_copy(copy, **ASKED, hub_id=HUB_ID) is None
    with (copy / NOTE).open("wb") as stream:
        stream.truncate(10**12)  # of holes
    assert whole_copy(copy, **ASKED, hub_id=HUB_ID) is None
    assert make(copy) == commit


def test_nothing_is_written_outside(stand_in: StandInHub, copy: Path, tmp_path: Path) -> None:
    stand_in.change_info = lambda info: info | {
        "siblings": [*info["siblings"], info["siblings"][0] | {
            "rfilename": "alignment/train-/../../../outside.parquet"
        }]
    }  # fmt: skip
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=r"component '\.\.'"):
        make(copy)
    assert {file for file in tmp_path.rglob("*") if file.is_file()} <= before


def test_a_link_in_the_copy_leads_no_write_elsewhere(
    stand_in: StandInHub, copy: Path, tmp_path: Path
) -> None:
    make(copy)
    mine = tmp_path / "mine"
    mine.write_text("mine")
    from radcap.data.hub.local_copy import _part

    (copy / FIRST).unlink()
    part = _part(copy / FIRST, stand_in.commit)
    part.symlink_to(mine)
    with pytest.raises(DataError, match=r"data\.local_copy="):
        make(copy)
    assert mine.read_text() == "mine"
    part.unlink()
    (copy / f".{NOTE}.partial").symlink_to(mine)
    make(copy)
    assert mine.read_text() == "mine"
    assert_whole(copy, stand_in)


def test_more_than_the_disk_holds_is_refused_before_it_is_fetched(
    stand_in: StandInHub, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10**9}))
    stand_in.change_info = lambda info: info | {
        "siblings": [
            one | {"lfs": one["lfs"] | {"size": 10**12}} for one in info["siblings"]
        ]
    }  # fmt: skip
    with pytest.raises(DataError, match=r"3,000\.0 GB are to be fetched and 1\.0 GB are free"):
        make(copy)
    assert stand_in.requests == {"GET listing": 1}
