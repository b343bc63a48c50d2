"""The stream from a Hub that misbehaves."""

from __future__ import annotations

import errno
import itertools
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from command_line import run_python
from hub.stand_in import FAULTS, HUB_ID, StandInHub, one_in, plain, point_client_at, serving
from waiting import PATIENCE_S, is_asleep, wait_until

from radcap.data.faults import DataError
from radcap.data.hub.download import Hub
from radcap.data.hub.local_copy import copy_to_folder, open_copy
from radcap.data.loader import Loader
from radcap.data.open import open_source
from radcap.data.order import Order
from radcap.data.rowfile import open_rows
from radcap.data.shelf import Cache, Spool
from radcap.data.source import Source

SIZES = (5, 3, 6, 4, 2, 7, 1, 5)


@pytest.fixture
def stand_in(numbered: Any, monkeypatch: Any) -> Iterator[StandInHub]:
    numbered(3, split="val")
    with serving(numbered(*SIZES)) as hub:
        point_client_at(hub.endpoint, monkeypatch)
        monkeypatch.setattr("radcap.data.hub.download._FIRST_PAUSE_S", 0.01)
        yield hub


def reader(**options: Any) -> Hub:
    return Hub(HUB_ID, **({"patience_s": PATIENCE_S, "timeout_s": PATIENCE_S} | options))


def open_split(hub: Hub, split: str = "train", revision: str | None = None) -> Source:
    return open_source(split=split, path=None, config="alignment", hub=hub, revision=revision)


def make_order(source: Source, **options: Any) -> Order:
    groups = source.row_groups
    settings = {"seed": 3, "batch_size": 4, "lanes": 3, "window_bytes": 50_000} | options
    return Order([g.num_rows for g in groups], [g.num_bytes for g in groups], **settings)


@pytest.fixture
def load(tokenizer: Any) -> Iterator[Callable[..., Loader]]:
    opened = []

    def load(source: Source, **options: Any) -> Loader:
        order = options.pop("order", None) or make_order(source)
        settings = {"workers": 0, "max_length": 8, "max_skipped_fraction": 1.0}
        settings |= {"ahead_bytes": 1, "connections": 1, **options}  # one request at a time
        if settings["workers"]:  # beside threads that fetch, a fork may copy a lock that is held
            for other in opened:
                other.close()
        loader = Loader(source, order, tokenizer, **settings)
        opened.append(loader)
        return loader

    yield load
    for loader in opened:
        loader.close()


def captions(loader: Loader, batches: int) -> list[str]:
    return [c for batch in islice(loader, batches) for c in batch.captions if c]


def test_the_hubs_rows_are_the_folders(stand_in: StandInHub, load: Any, numbered: Any) -> None:
    hub = reader()
    remote = open_split(hub)
    local = open_source(split="train", path=str(stand_in.folder), config="alignment")
    assert remote.revision == stand_in.commit
    assert [g.num_rows for g in remote.row_groups] == list(SIZES)
    for workers in (0, 2):
        found = list(islice(load(remote, hub=hub, workers=workers), 10))
        expected = list(islice(load(local, order=make_order(remote)), 10))
        for one, other in zip(found, expected, strict=True):
            assert one.rows == other.rows and one.captions == other.captions
            assert bool((one.images == other.images).all())


def test_bytes_fetched_are_those_of_the_row_groups(stand_in: StandInHub, load: Any) -> None:
    hub = reader()
    source = open_split(hub)
    footers = stand_in.bytes_served
    order = make_order(source)
    batches = list(load(source, hub=hub, order=order, max_rows=order.num_rows))
    assert sum(int(batch.valid.sum()) for batch in batches) == sum(SIZES)
    stored = sum(group.stop - group.start for group in source.row_groups)
    assert stand_in.bytes_served - footers <= 1.001 * stored
    traffic = [batch.counts.traffic for batch in batches]
    assert sum(t.bytes for t in traffic) == stand_in.bytes_served - footers
    assert sum(t.used for t in traffic) == sum(t.bytes for t in traffic)
    # Neighbours come in one request.
    assert sum(t.requests for t in traffic) < len(SIZES)
    assert sum(t.retries for t in traffic) == 0 and all(t.wait_s >= 0 for t in traffic)


@pytest.mark.parametrize("connections", [1, 4])
def test_a_large_request_comes_in_parts(
    stand_in: StandInHub, load: Any, monkeypatch: pytest.MonkeyPatch, connections: int
) -> None:
    hub = reader()
    source = open_split(hub)
    order = make_order(source)
    expected = list(load(source, hub=hub, order=order, max_rows=order.num_rows))
    monkeypatch.setattr("radcap.data.shelf._REQUEST_BYTES", 2_000)
    stand_in.fault = one_in(9, kinds=("half",))
    options = {"hub": reader(), "order": order, "connections": connections}
    found = list(load(source, **options, max_rows=order.num_rows))
    for one, other in zip(found, expected, strict=True):
        assert one.rows == other.rows and one.captions == other.captions
        assert bool((one.images == other.images).all())
    asked, before = (sum(b.counts.traffic.requests for b in some) for some in (found, expected))
    assert asked > 5 * before
    fetched, stored = (sum(b.counts.traffic.bytes for b in some) for some in (found, expected))
    assert stored <= fetched
    assert sum(b.counts.traffic.used for b in found) == stored


@pytest.mark.parametrize("kind", [*FAULTS, "408"])
def test_each_transient_fault_is_tried_again_and_counted(
    stand_in: StandInHub, load: Any, kind: str
) -> None:
    stand_in.fault = one_in(3, kinds=(kind,))
    hub = reader(timeout_s=0.5) if kind == "stall" else reader()
    source = open_split(hub)
    order = make_order(source)
    batches = list(islice(load(source, hub=hub, order=order), order.batches_per_epoch))
    found = sorted(c for batch in batches for c in batch.captions if c)
    assert found == sorted(f"row number {n}" for n in range(sum(SIZES)))
    assert stand_in.failed[kind] >= 2
    retries = sum(batch.counts.traffic.retries for batch in batches)
    assert hub.traffic.retries + retries >= stand_in.failed[kind] - 2  # one is read ahead


@pytest.mark.parametrize(
    ("status", "said"), [(401, "HF_TOKEN"), (403, "HF_TOKEN"), (404, "has gone"), (410, "has gone")]
)
def test_a_final_fault_in_mid_run_ends_it_at_once(
    stand_in: StandInHub, load: Any, status: int, said: str
) -> None:
    hub = reader()
    source = open_split(hub)
    loader = load(source, hub=hub)
    next(iter(loader))
    stand_in.fault = lambda number, method, path: status
    before = stand_in.number
    with pytest.raises(DataError, match=said) as caught:
        list(islice(loader, 20))
    assert stand_in.number == before + 1
    assert "\n" not in str(caught.value)


def test_patience_ends_and_is_no_end_of_the_data(stand_in: StandInHub, load: Any) -> None:
    hub = reader(patience_s=1.0)
    loader = load(open_split(hub), hub=hub)
    next(iter(loader))
    stand_in.fault = lambda number, method, path: "503"
    with pytest.raises(DataError, match="has not answered for 1 s"):
        list(islice(loader, 20))


def test_a_server_without_ranges_is_refused(stand_in: StandInHub, monkeypatch: Any) -> None:
    monkeypatch.setattr("hub.stand_in.re.fullmatch", lambda *_: None)
    with pytest.raises(DataError, match=r"data\.local_copy"):
        open_split(reader())


@pytest.mark.parametrize("decoded", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_cache_makes_the_second_run_need_no_files(
    stand_in: StandInHub, load: Any, tmp_path: Path, decoded: bool, workers: int
) -> None:
    hub = reader()
    source = open_split(hub)
    order = make_order(source)

    def epoch() -> list[Any]:
        cache = Cache.open(tmp_path / "cache", limit_bytes=10**9, decoded=decoded)
        loader = load(source, hub=hub, order=order, workers=workers, cache=cache)
        return list(islice(loader, order.batches_per_epoch))

    plain = list(islice(load(source, hub=hub, order=order), order.batches_per_epoch))
    first = epoch()
    served = stand_in.bytes_served
    second = epoch()
    assert stand_in.bytes_served == served
    for batches in (first, second):
        for one, other in zip(batches, plain, strict=True):
            assert one.rows == other.rows and one.captions == other.captions
            assert one.labels == other.labels
            assert bool((one.images == other.images).all())


def test_a_cache_keeps_to_its_size_and_trusts_no_part_of_a_file(
    stand_in: StandInHub, load: Any, tmp_path: Path
) -> None:
    hub = reader()
    source = open_split(hub)
    order = make_order(source)
    limit = sum(group.num_bytes for group in source.row_groups) // 2
    cache = Cache.open(tmp_path / "cache", limit_bytes=limit, decoded=False)
    expected = captions(load(source, hub=hub, order=order, cache=cache), 9)
    files = list((tmp_path / "cache").rglob("*.rows"))
    assert 0 < sum(file.stat().st_size for file in files) <= 1.1 * limit
    assert 0 < len(files) < len(SIZES)

    # Torn, and left behind by a process that was killed.
    files[0].write_bytes(files[0].read_bytes()[:-7])
    left, fresh = (files[0].with_name(f"x.rows.{name}.part") for name in ("old", "new"))
    for part in (left, fresh):
        part.write_bytes(b"half")
    os.utime(left, (0, 0))
    (tmp_path / "cache" / "mine").mkdir()
    (tmp_path / "cache" / "mine" / "a.part").write_bytes(b"somebody else's")
    again = Cache.open(tmp_path / "cache", limit_bytes=limit, decoded=False)
    assert not left.exists() and fresh.exists()
    assert captions(load(source, hub=hub, order=order, cache=again), 9) == expected


def test_a_cache_of_another_revision_is_another(
    stand_in: StandInHub, load: Any, tmp_path: Path, numbered: Any
) -> None:
    hub = reader()
    cache = Cache.open(tmp_path / "cache", limit_bytes=10**9, decoded=False)
    first = open_split(hub)
    captions(load(first, hub=hub, cache=cache), 9)
    stand_in.publish(stand_in.folder)
    second = open_split(hub)
    assert second.revision != first.revision
    served = stand_in.bytes_served
    captions(load(second, hub=hub, cache=cache), 9)
    assert stand_in.bytes_served > served


def test_a_full_disk_ends_the_cache_not_the_run(
    stand_in: StandInHub, load: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    hub = reader()
    source = open_split(hub)
    expected = captions(load(source, hub=hub), 9)
    cache = Cache.open(tmp_path / "cache", limit_bytes=10**9, decoded=False)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert captions(load(source, hub=hub, cache=cache), 9) == expected
    assert not list((tmp_path / "cache").rglob("*.part*"))


def test_a_local_copy_needs_no_network_afterwards(
    stand_in: StandInHub, load: Any, tmp_path: Path
) -> None:
    hub = reader()
    copy = tmp_path / "copy"
    asked = {"config": "alignment", "splits": ("train", "val"), "revision": None}
    stand_in.fault = one_in(4, kinds=("503", "reset"))
    commit = copy_to_folder(hub, copy, **asked)
    assert commit == stand_in.commit
    stand_in.fault = lambda number, method, path: 500
    before = stand_in.number
    assert copy_to_folder(hub, copy, **asked) == commit
    assert stand_in.number == before
    source = open_copy(copy, hub_id=HUB_ID, split="train", config="alignment", commit=commit)
    assert captions(load(source), 9)

    # A run may move from the Hub to the copy: the position means the same.
    stand_in.fault = lambda number, method, path: None
    remote = open_split(hub)
    order = make_order(remote)
    position = list(islice(load(remote, hub=hub, order=order), 3))[-1].position
    moved = load(source, order=make_order(source), position=position)
    assert captions(moved, 3) == captions(load(remote, hub=hub, order=order, position=position), 3)

    # A file that is missing or of another size makes it no copy.
    (copy / "alignment" / "val-00000-of-00001.parquet").unlink()
    assert copy_to_folder(hub, copy, **asked) == commit
    assert stand_in.number > before
    with pytest.raises(DataError, match="holds raidium"):
        copy_to_folder(Hub("other/set"), copy, **asked)


def test_large_row_groups_lie_in_files(stand_in: StandInHub, load: Any, monkeypatch: Any) -> None:
    from radcap.data import shelf
    from radcap.data.rowfile import RowFile

    hub = reader()
    source = open_split(hub)
    expected = captions(load(source, hub=hub), 9)
    monkeypatch.setattr(shelf, "SPOOLED_BYTES", 20_000)
    loader = load(source, hub=hub)
    found = captions(loader, 3)
    held = [
        row
        for stretches in loader._makers[0]._reader._held.values()
        for stretch in stretches
        for row in stretch.rows
        if row is not None
    ]
    assert found + captions(loader, 6) == expected
    assert any(isinstance(row, RowFile.Row) for row in held)
    folder = loader._spool.folder
    # Unnamed, or removed as soon as read; one may just be read ahead.
    wait_until(lambda: not list(folder.iterdir()), "no file is left")
    loader.close()
    assert not folder.exists()


def test_the_token_goes_to_the_hub_and_to_no_other_host(
    stand_in: StandInHub, load: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub = reader()
    assert captions(load(open_split(hub), hub=hub), 9)
    assert stand_in.token == "Bearer hf_secret"
    assert stand_in.requests["GET bytes"] > 0 and stand_in.leaked == []


class Clock:
    """In the place of `time`: only what a test says takes any."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_patience_counts_from_the_last_byte(
    stand_in: StandInHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fetch may take much longer than patience lasts, as long as something comes."""
    hub = reader(patience_s=0.5)
    source = open_split(hub)
    clock = Clock()
    monkeypatch.setattr("radcap.data.hub.download.time", clock)
    answers = itertools.count()

    def fault(number: int, method: str, path: str) -> str | None:
        return "half" if "/cdn/" in path and next(answers) % 2 == 0 else None

    stand_in.fault = fault
    pieces = 0

    def slow(at: int, data: bytes) -> None:
        nonlocal pieces
        pieces += 1
        clock.now += 0.2

    group = source.row_groups[2]
    for _ in range(3):
        hub.fetch(group.file, group.start, group.stop, slow)
    assert clock.now > 0.5 and pieces > 3 and hub.traffic.retries >= 3


def test_a_full_disk_is_no_fault_of_the_hub(
    stand_in: StandInHub, load: Any, monkeypatch: Any
) -> None:
    hub = reader()
    source = open_split(hub)

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    before = stand_in.number
    with pytest.raises(DataError, match="set TMPDIR"):
        next(iter(load(source, hub=hub)))
    assert stand_in.number <= before + 2 and hub.traffic.retries == 0


def test_an_answer_of_other_bytes_is_no_answer(stand_in: StandInHub) -> None:
    hub = reader()
    source = open_split(hub)
    other = plain(206, b"x" * 100, {"Content-Range": "bytes 0-99/1000000"})
    stand_in.fault = lambda number, method, path: other
    group = source.row_groups[1]
    written: list[bytes] = []
    with pytest.raises(DataError, match="bytes from 0 on instead of"):
        hub.fetch(group.file, group.start, group.stop, lambda at, data: written.append(data))
    assert not written


def test_a_damaged_row_of_the_cache_is_named_and_the_file_removed(
    stand_in: StandInHub, load: Any, tmp_path: Path
) -> None:
    hub = reader()
    source = open_split(hub)
    cache = Cache.open(tmp_path / "cache", limit_bytes=10**9, decoded=False)
    expected = captions(load(source, hub=hub, cache=cache), 9)
    file = max((tmp_path / "cache").rglob("*.rows"), key=lambda file: file.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match="is damaged, and removed"):
        captions(load(source, hub=hub, cache=cache), 9)
    assert captions(load(source, hub=hub, cache=cache), 9) == expected


def test_a_cache_keeps_to_its_folder_whatever_the_names(
    stand_in: StandInHub, tmp_path: Path
) -> None:
    source = open_split(reader())
    cache = Cache.open(tmp_path / "cache", limit_bytes=10**9, decoded=False)
    group = source.row_groups[0]
    for revision in ("../../x", "/etc", "", "..", "a/b"):
        with pytest.raises(DataError, match=r"data\.cache: the data's revision"):
            cache.path(replace(source, revision=revision), group, 1)
    for file in ("/a\n/b.parquet", f"/{'x' * 250}/{'y' * 240}.parquet", "/a/\udcff.parquet"):
        path = cache.path(source, replace(group, file=file), 1)
        assert path.parent.parent == tmp_path / "cache"
        assert path.name.isprintable() and len(os.fsencode(path.name)) < 200


@pytest.mark.parametrize(
    "head",
    [b"no JSON", b"[]", b"{}", b"[" * 10**5, b'{"labels": 5}', b'{"labels": [1, 2, 3, 4, 5]}'],
)
def test_a_row_of_the_cache_that_is_none_is_damaged(tmp_path: Path, head: bytes) -> None:
    """With a right checksum: another program wrote it."""
    body = struct.pack("<I", len(head)) + head
    record = zlib.crc32(body).to_bytes(4, "little") + body
    magic = b"radcaprows2\n"
    offsets = struct.pack("<2q", len(magic), len(magic) + len(record))
    file = tmp_path / "x.rows"
    file.write_bytes(magic + record + offsets + struct.pack("<I12s", 1, magic))
    rows = open_rows(file)
    assert rows is not None
    with pytest.raises(DataError, match="is damaged, and removed"):
        rows.load(0)
    # Places that go backwards, or past the end of the file.
    for middle in (-5, 10**15):
        offsets = struct.pack("<3q", len(magic), middle, len(magic) + len(record))
        file.write_bytes(magic + record + offsets + struct.pack("<I12s", 2, magic))
        assert open_rows(file) is None


def test_a_cache_of_colour_pictures_keeps_to_its_size_too(
    stand_in: StandInHub, load: Any, tmp_path: Path
) -> None:
    hub = reader()
    source = open_split(hub)
    limit = 2_000_000  # 13 pictures; the test's pictures have three different colours
    cache = Cache.open(tmp_path / "cache", limit_bytes=limit, decoded=True)
    assert len(captions(load(source, hub=hub, cache=cache), 9)) == sum(SIZES)
    written = sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*.rows"))
    assert 0 < written <= limit + 7 * 3 * 224 * 224  # the last group was not known to be larger


def test_a_copy_of_a_new_revision_is_never_the_old_one_under_its_name(
    stand_in: StandInHub, load: Any, tmp_path: Path, numbered: Any
) -> None:
    hub = reader()
    copy = tmp_path / "copy"
    asked: dict[str, Any] = {"config": "alignment", "splits": ("train", "val")}
    old = copy_to_folder(hub, copy, revision=None, **asked)
    other = tmp_path / "other"
    (other / "alignment").mkdir(parents=True)
    for file in (stand_in.folder / "alignment").iterdir():
        (other / "alignment" / file.name).write_bytes(file.read_bytes())
    swapped = sorted((other / "alignment").glob("train-*"))[:2]
    first, second = (file.read_bytes() for file in swapped)
    swapped[0].write_bytes(second), swapped[1].write_bytes(first)
    new = stand_in.publish(other)
    stand_in.fault = lambda number, method, path: "503" if "/cdn/" in path else None
    with pytest.raises(DataError):
        copy_to_folder(reader(patience_s=0.2), copy, revision=new, **asked)
    stand_in.fault = lambda number, method, path: None
    assert copy_to_folder(hub, copy, revision=new, **asked) == new != old
    assert (copy / "alignment" / swapped[0].name).read_bytes() == second
    assert not list(copy.rglob("*.part"))


def test_a_start_that_fails_leaves_no_folder_for_temporary_files(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path\n"
        "from radcap.data.shelf import Spool\n"
        f"folder = Spool(Path({str(tmp_path)!r})).folder\n"
        "(folder / 'rows').touch()\n"
        "raise SystemExit('wrong number of devices')\n"
    )
    assert run_python(program).returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_a_spool_sweeps_what_nobody_holds(tmp_path: Path) -> None:
    held = Spool(tmp_path)
    left = tmp_path / f"radcap-spool-{os.getuid()}-left"
    left.mkdir()
    (left / "x.parquet").write_bytes(b"x")
    other = Spool(tmp_path)
    assert held.folder.exists() and not left.exists()
    held.close()
    assert not held.folder.exists()
    other.close()


def test_between_passes_nothing_is_read(stand_in: StandInHub, load: Any) -> None:
    hub = reader()
    source = open_split(hub)
    order = make_order(source)
    opened = stand_in.bytes_served
    settings = {"max_rows": 20, "workers": 2, "ahead_bytes": 10**9, "is_parked": True}
    loader = load(source, hub=hub, order=order, **settings)

    def served() -> int:
        return stand_in.bytes_served - opened

    wait_until(lambda: all(is_asleep(child.pid) for child in loader._pool._processes), "at rest")
    assert served() == 0
    first = [batch.captions for batch in loader]
    once = served()
    assert once > 0
    next(iter(loader))  # left early
    assert [batch.captions for batch in loader] == first
    assert served() <= 3 * once
    assert sum(map(len, first)) == 20


def test_footers_are_asked_for_once(stand_in: StandInHub, tmp_path: Path) -> None:
    def start() -> tuple[int, int]:
        """Requests for the ends of files, and for the listing, of one start."""
        before = stand_in.requests.copy()
        found = open_source(
            split="train", path=None, config="alignment", hub=reader(), footers=tmp_path / "kept"
        )
        assert [g.num_rows for g in found.row_groups] == list(SIZES)
        asked = stand_in.requests - before
        return asked["GET bytes"], asked["GET listing"]

    files = len(list(stand_in.folder.rglob("train-*.parquet")))
    assert start() == (files, 1)
    assert start() == (0, 1)
    kept = [file for file in (tmp_path / "kept").rglob("*") if file.is_file()]
    assert len(kept) == files
    for damaged in (b"", kept[0].read_bytes()[:-1], b"x" + kept[0].read_bytes()[1:]):
        kept[0].write_bytes(damaged)
        assert start() == (1, 1)
    kept[0].unlink()
    os.mkfifo(kept[0])  # somebody else's idea: not waited for
    assert start() == (1, 1)
    for _ in range(6):
        stand_in.publish(stand_in.folder)
        assert start() == (files, 1)
    assert start() == (0, 1)
    commits = [folder for folder in (tmp_path / "kept").glob("*/*") if folder.is_dir()]
    assert len(commits) == 4 and stand_in.commit in {folder.name for folder in commits}


def test_footers_that_cannot_be_kept_are_read_all_the_same(
    stand_in: StandInHub, tmp_path: Path
) -> None:
    (tmp_path / "kept").write_text("no folder")
    for _ in range(2):
        found = open_source(
            split="train", path=None, config="alignment", hub=reader(), footers=tmp_path / "kept"
        )
        assert found.num_rows == sum(SIZES)


def test_what_is_read_ahead_and_not_used_is_counted_apart(stand_in: StandInHub, load: Any) -> None:
    hub = reader()
    source = open_split(hub)
    loader = load(source, hub=hub, ahead_bytes=10**9, connections=2)
    opened = stand_in.bytes_served
    batches = iter(loader)
    next(batches)
    wait_until(lambda: stand_in.bytes_served - opened > 200_000, "much is read ahead")
    traffic = next(batches).counts.traffic
    assert 0 <= traffic.used < traffic.bytes


def test_too_many_requests_are_answered_with_fewer_connections(
    stand_in: StandInHub, load: Any
) -> None:
    hub = reader()
    source = open_split(hub)
    stand_in.fault = one_in(3, kinds=("429",))
    loader = load(source, hub=hub, ahead_bytes=10**9, connections=4)
    assert sum(map(bool, captions(loader, 9))) > 0
    assert loader._makers[0]._reader._shelf.hub.connections.allowed() < 4
