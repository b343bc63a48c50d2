from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import run_python
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from waiting import PATIENCE_S, is_alive, wait_until

from radcap.data import loader as loader_module
from radcap.data.collate import Batch
from radcap.data.faults import DataError
from radcap.data.image.decode import decode_image
from radcap.data.loader import Loader
from radcap.data.open import open_source
from radcap.data.order import Order
from radcap.data.source import Source

SIZES = (5, 3, 6, 4, 2, 7, 1, 5)
Opener = Callable[..., Loader]


def open_folder(folder: Path) -> Source:
    return open_source(split="train", path=str(folder), config="alignment")


def make_order(source: Source, *, batch_size: int = 4, lanes: int = 3, **options: Any) -> Order:
    groups = source.row_groups
    settings = {"seed": 3, "window_bytes": 3 * 3 * 6000} | options
    return Order(
        [group.num_rows for group in groups],
        [group.num_bytes for group in groups],
        batch_size=batch_size,
        lanes=lanes,
        **settings,
    )


@pytest.fixture
def source(numbered: Any) -> Source:
    return open_folder(numbered(*SIZES))


@pytest.fixture
def load(tokenizer: Any) -> Iterator[Opener]:
    """load(source, order=..., **options of Loader): closed at the test's end."""
    opened = []

    def load(source: Source, order: Order | None = None, **options: Any) -> Loader:
        settings = {"workers": 0, "max_length": 8, "max_skipped_fraction": 1.0} | options
        loader = Loader(source, order or make_order(source), tokenizer, **settings)
        opened.append(loader)
        return loader

    yield load
    for loader in opened:
        loader.close()


def same(one: Batch, other: Batch) -> bool:
    return (
        torch.equal(one.images, other.images)
        and torch.equal(one.tokens, other.tokens)
        and torch.equal(one.valid, other.valid)
        and (one.rows, one.captions, one.labels) == (other.rows, other.captions, other.labels)
        and (one.epoch, one.position, one.counts) == (other.epoch, other.position, other.counts)
    )


def rows(batches: list[Batch]) -> list[list[str]]:
    return [batch.rows for batch in batches]


def test_a_batch_holds_what_the_rows_say(source: Source, load: Opener, tokenizer: Any) -> None:
    order = make_order(source)
    batch = next(iter(load(source, order)))
    assert batch.images.shape == (4, 3, 224, 224) and batch.images.dtype == torch.uint8
    assert batch.tokens.shape == (4, 9) and batch.tokens.dtype == torch.int32
    assert batch.valid.tolist() == [True] * 4 and batch.epoch == 0
    slots = order.slots(0, 0)
    for i in range(4):
        group, row = int(slots.group[i]), int(slots.row[i])
        raw = list(source.read(group))[row]
        number = sum(SIZES[:group]) + row
        assert batch.rows[i] == source.row_id(group, row)
        assert batch.captions[i] == f"row number {number}" == raw["conversations"][1]["value"]
        assert (batch.images[i].numpy() == decode_image(raw["image"]["bytes"])).all()
        assert tokenizer.decode(batch.tokens[i], skip_special_tokens=True) == batch.captions[i]
        assert batch.labels[i].pathology == "fracture"


@pytest.mark.parametrize("shuffle", [True, False])
def test_any_number_of_workers_gives_the_same_batches(
    source: Source, load: Opener, shuffle: bool
) -> None:
    order = make_order(source, shuffle=shuffle)
    expected = list(islice(load(source, order), 2 * order.batches_per_epoch + 3))
    for workers in (1, 2, 3):
        loader = load(source, order, workers=workers)
        assert loader.effective_workers == workers
        found = list(islice(loader, len(expected)))
        assert all(same(a, b) for a, b in zip(found, expected, strict=True))
    assert expected[-1].epoch == 2


@pytest.mark.parametrize("workers", [0, 1, 2, 4, 8])
def test_what_is_read_ahead_changes_no_batch(source: Source, load: Opener, workers: int) -> None:
    order = make_order(source, lanes=8)
    expected = list(islice(load(source, order, ahead_bytes=1), 15))
    for ahead_bytes in (1, 10**9):
        for start in (0, 1, 5, 8, 11):  # an epoch has 9
            position = expected[start - 1].position if start else None
            loader = load(
                source, order, workers=workers, position=position, ahead_bytes=ahead_bytes
            )
            assert loader.effective_workers == workers
            found = list(islice(loader, 4))
            loader.close()
            assert all(
                same(a, b) for a, b in zip(found, expected[start : start + 4], strict=True)
            ), (ahead_bytes, start)


FORKED = """
import os, signal, sys, threading, time
from radcap.data import shelf
from radcap.data.one_reader import reading
shelf.Shelf(None, hub=None, spool=None, cache=None, max_pixels=1)
import filelock
reads = threading.Event()
def read():
    with reading:
        reads.set()
        time.sleep(0.5)
        with filelock.FileLock(sys.argv[1]):  # as datasets does
            pass
threading.Thread(target=read).start()
reads.wait()
signal.alarm(60)
child = os.fork()
if child == 0:
    os._exit(0)
print(os.waitpid(child, 0)[1])
"""


def test_a_fork_waits_for_a_reader_that_takes_a_packages_lock(tmp_path: Path) -> None:
    done = run_python(FORKED, str(tmp_path / "lock"))
    assert done.stdout.split() == ["0"], (done.returncode, done.stderr)


def test_of_large_row_groups_a_whole_window_is_read_ahead(
    source: Source, load: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lie in files; a worker that waits for a window's groups lets all the others wait."""

    def ahead(loader: Loader) -> list[int]:
        """Rows of each stretch that is read ahead, of one worker."""
        next(iter(loader))
        slots = loader._makers[0]._reader._ahead._slots
        return [slot.job.stop - slot.job.start for slot in list(slots)]

    for name in ("_TOGETHER_BYTES", "_TOGETHER_AT_FIRST_BYTES"):
        monkeypatch.setattr(f"radcap.data.plan.{name}", 1)
    order = make_order(
        source,
        lanes=2,
        window_bytes=2 * 15 * max(g.num_bytes / g.num_rows for g in source.row_groups),
    )
    assert order.window_rows > max(SIZES)
    assert len(ahead(load(source, order, ahead_bytes=1))) <= 1
    monkeypatch.setattr("radcap.data.shelf.SPOOLED_BYTES", 1)
    loader = load(source, order, ahead_bytes=1)
    wait_until(lambda: sum(ahead(loader)) >= order.window_rows, "a window is read ahead")


def test_each_epoch_has_every_row_once_and_a_padded_last_batch(
    source: Source, load: Opener
) -> None:
    order = make_order(source)
    batches = list(islice(load(source, order), 2 * order.batches_per_epoch))
    every = {source.row_id(g, r) for g, size in enumerate(SIZES) for r in range(size)}
    for epoch in (0, 1):
        of_epoch = [batch for batch in batches if batch.epoch == epoch]
        seen = [row for batch in of_epoch for row in batch.rows if row]
        assert len(seen) == len(every) and set(seen) == every
        last = of_epoch[-1]
        assert last.valid.tolist() == [True] * (33 % 4) + [False] * 3
        assert last.tokens[~last.valid].eq(0).all()
        assert last.counts.rows == 1 and last.counts.skipped == {}
        assert last.rows[1:] == [""] * 3
        assert all(batch.images.shape == (4, 3, 224, 224) for batch in of_epoch)
    assert rows(batches[: len(batches) // 2]) != rows(batches[len(batches) // 2 :])


@settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(stops=st.lists(st.integers(1, 12), min_size=1, max_size=3))
def test_stop_and_resume_equals_unbroken(source: Source, load: Opener, stops: list[int]) -> None:
    expected = list(islice(load(source), sum(stops) + 3))
    found: list[Batch] = []
    position = None
    for count in [*stops, 3]:
        loader = load(source, position=position)
        found += islice(loader, count)
        loader.close()  # or it would read ahead for ever
        position = found[-1].position
    assert all(same(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("before", [8, 9, 10])
def test_resume_around_an_epochs_end_with_other_workers(
    source: Source, load: Opener, before: int
) -> None:
    expected = list(islice(load(source), 13))
    first = list(islice(load(source, workers=2, prefetch=4), before))
    rest = load(source, workers=1, position=first[-1].position)
    found = [*first, *islice(rest, 13 - before)]
    assert all(same(a, b) for a, b in zip(found, expected, strict=True))


def test_a_second_iteration_goes_on(source: Source, load: Opener) -> None:
    loader = load(source)
    found = [*islice(loader, 2), *islice(loader, 2)]
    assert rows(found) == rows(list(islice(load(source), 4)))


def test_resuming_reads_only_the_row_groups_then_open(
    numbered: Any, load: Opener, monkeypatch: Any
) -> None:
    source = open_folder(numbered(*[4] * 12))
    order = make_order(source, lanes=2, window_bytes=2 * 4 * 6000)
    loader = load(source, order)
    position = list(islice(loader, 5))[-1].position
    loader.close()
    opened = []
    read = Source.read

    def spy(self: Source, group: int, *args: Any, **options: Any) -> Iterator[dict[str, Any]]:
        opened.append(group)
        return read(self, group, *args, **options)

    monkeypatch.setattr(Source, "read", spy)
    next(iter(load(source, order, position=position, ahead_bytes=1)))
    assert len(opened) <= 2 * 3


def test_a_position_of_another_order_is_refused(source: Source, load: Opener) -> None:
    position = next(iter(load(source))).position
    for changed in (make_order(source, seed=4), make_order(source, batch_size=2)):
        with pytest.raises(DataError, match="cannot be resumed: its order"):
            load(source, changed, position=position)
    with pytest.raises(DataError, match="cannot be resumed: its revision"):
        load(source, position=position | {"revision": "other"})


@pytest.mark.parametrize("lanes", [4, 3])
@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_share_each_global_batch(
    source: Source, load: Opener, hosts: int, lanes: int
) -> None:
    order = make_order(source, lanes=lanes)
    whole = list(islice(load(source, order), 12))
    shares = [
        list(islice(load(source, order, host=host, num_hosts=hosts, workers=host % 2), 12))
        for host in range(hosts)
    ]
    for number, batch in enumerate(whole):
        for host in range(hosts):
            assert shares[host][number].rows == batch.rows[host::hosts]
            assert shares[host][number].position == batch.position


def test_a_batch_must_divide_by_the_hosts(source: Source, load: Opener) -> None:
    with pytest.raises(DataError, match="3 hosts"):
        load(source, num_hosts=3)


def test_workers_are_lowered_and_it_is_said(source: Source, load: Opener, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING):
        loader = load(source, workers=9)
    assert loader.effective_workers == 3
    assert "data.workers=9 lowered to 3" in caplog.text


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shuffle", [True, False])
def test_passes_over_a_part(source: Source, load: Opener, workers: int, shuffle: bool) -> None:
    order = make_order(source, shuffle=shuffle)
    loader = load(source, order, max_rows=10, workers=workers)
    first, second = list(loader), list(loader)
    next(iter(loader))  # a pass left early
    third = list(loader)
    assert rows(first) == rows(second) == rows(third) and len(first) == 3
    assert all(same(a, b) for a, b in zip(first, third, strict=True))
    assert first[-1].valid.tolist() == [True, True, False, False]
    assert [r for batch in first for r in batch.rows if r] == [
        r for batch in islice(load(source, order), 3) for r in batch.rows
    ][:10]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_first_pass_may_begin_late(source: Source, load: Opener, workers: int) -> None:
    order = make_order(source, shuffle=False)
    whole = list(load(source, order, max_rows=10))
    late = load(source, order, max_rows=10, first_batch=1, workers=workers)
    rest, again = list(late), list(late)
    assert len(rest) == 2 and len(again) == 3
    assert all(same(a, b) for a, b in zip(rest, whole[1:], strict=True))
    assert all(same(a, b) for a, b in zip(again, whole, strict=True))


BAD = {
    "no image": {"image": None},
    "no caption": {"conversations": [{"from": "human", "value": "?"}]},
    "empty": {"image": {"bytes": b"", "path": None}},
    "undecodable": {"image": {"bytes": b"<html>", "path": None}},
}


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_rows_are_masked_counted_and_lose_nothing_else(
    write: Any, row: Any, load: Opener, workers: int, caplog: Any
) -> None:
    table = [row(n) for n in range(12)]
    for place, changes in zip((1, 4, 5, 8), BAD.values(), strict=True):
        table[place] = row(place, **changes)
    table[10]["image"]["bytes"] = table[10]["image"]["bytes"][:2000]
    bad = dict(zip((1, 4, 5, 8), BAD, strict=True)) | {10: "truncated"}
    source = open_folder(write([[table[:6]], [table[6:]]]))
    order = make_order(source, shuffle=False)
    with caplog.at_level(logging.WARNING):
        batches = list(load(source, order, workers=workers, max_rows=12))
    place = 0
    for batch in batches:
        for i in range(4):
            assert bool(batch.valid[i]) == (place not in bad)
            assert batch.captions[i] == ("" if place in bad else f"row number {place}")
            assert batch.rows[i] == source.row_id(place // 6, place % 6)
            if place in bad:
                assert batch.tokens[i].eq(0).all()
                assert batch.counts.skipped[bad[place]] == (1, batch.rows[i])
                good = batch.images[batch.valid]
                assert any(torch.equal(batch.images[i], image) for image in good)
            place += 1
        assert batch.counts.rows == 4
    assert sum(len(batch.counts.skipped) for batch in batches) == len(bad)
    for where, reason in bad.items():
        row_id = source.row_id(where // 6, where % 6)
        assert f"row {row_id} skipped: {reason}" in caplog.text


def test_a_batch_without_any_good_row(write: Any, row: Any, load: Opener) -> None:
    source = open_folder(write([[[row(n, image=None) for n in range(4)]]]))
    batch = next(iter(load(source)))
    assert not batch.valid.any() and batch.images.eq(0).all() and batch.tokens.eq(0).all()
    assert batch.counts.skipped == {"no image": (4, batch.rows[0])}


def test_too_many_skipped_rows_end_the_run(write: Any, row: Any, load: Opener) -> None:
    table = [row(n, image=None) if n % 4 == 0 else row(n) for n in range(16)]
    source = open_folder(write([[table]]))
    with pytest.raises(DataError, match=r"4 of 16 rows .*no image: 4.*max_skipped_fraction=0.2"):
        list(islice(load(source, max_skipped_fraction=0.2), 100))
    assert len(list(islice(load(source, max_skipped_fraction=0.25), 20))) == 20


def test_enough_bad_rows_end_the_run_before_the_epoch_does(
    write: Any, row: Any, load: Opener, monkeypatch: Any
) -> None:
    monkeypatch.setattr(loader_module, "_ROWS_TO_JUDGE", 8)
    source = open_folder(write([[[row(n, image=None) for n in range(100)]]]))
    seen = []
    with pytest.raises(DataError, match="8 of 8 rows"):
        for batch in load(source, max_skipped_fraction=0.5):
            seen.append(batch)
    assert len(seen) == 1


def test_modes_and_sizes_in_one_batch(write: Any, row: Any, load: Opener) -> None:
    import io

    from PIL import Image

    table = []
    for number, mode in enumerate(("1", "L", "LA", "P", "RGB", "RGBA", "I;16")):
        buffer = io.BytesIO()
        Image.new(mode, (30 + number, 50)).save(buffer, "PNG")
        table.append(row(number, image={"bytes": buffer.getvalue(), "path": None}))
    source = open_folder(write([[table]]))
    batch = next(iter(load(source, make_order(source, batch_size=7))))
    assert batch.valid.all() and batch.images.shape == (7, 3, 224, 224)


def test_truncated_captions_are_counted(write: Any, row: Any, load: Opener) -> None:
    turns = [{"from": "human", "value": "?"}, {"from": "template", "value": "word " * 500}]
    source = open_folder(write([[[row(0, conversations=turns), row(1)]]]))
    batch = next(iter(load(source)))
    assert batch.counts.truncated == 1
    ends = [row[row != 0][-1] for row in batch.tokens[batch.valid]]
    assert ends == [102, 102]


def child_processes(loader: Loader) -> list[Any]:
    assert loader._pool is not None
    return list(loader._pool._processes)


def test_a_fault_in_a_worker_arrives_as_its_own_message(numbered: Any, load: Opener) -> None:
    folder = numbered(*SIZES)
    source = open_folder(folder)
    for file in (folder / "alignment").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="cannot read row group"):
        next(iter(load(source, workers=2)))


def test_a_killed_worker_is_noticed(source: Source, load: Opener) -> None:
    loader = load(source, workers=2, prefetch=1)
    batches = iter(loader)
    next(batches)
    process = child_processes(loader)[1]
    os.kill(process.pid, signal.SIGKILL)
    seen = []
    with pytest.raises(DataError, match=r"data worker 1 .*killed by SIGKILL.*out of memory"):
        seen.extend(islice(batches, 5))
    assert len(seen) <= 1  # what was ready before


def test_a_bug_in_a_worker_is_no_silent_end(
    source: Source, load: Opener, monkeypatch: Any, capfd: Any
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug of our own")

    monkeypatch.setattr("radcap.data.shelf.parse_row", broken)
    with pytest.raises(DataError, match=r"data worker 0 .*ended with status 1"):
        next(iter(load(source, workers=1)))
    assert "a bug of our own" in capfd.readouterr().err


def pending(pid: int) -> bool:
    """Whether a signal to a process has not reached it yet."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return int(status.partition("ShdPnd:")[2].split()[0], 16) != 0


def test_workers_live_through_signals(source: Source, load: Opener) -> None:
    loader = load(source, workers=2)
    batches = iter(loader)
    next(batches)
    processes = child_processes(loader)
    for process in processes:
        os.kill(process.pid, signal.SIGTERM)
        os.kill(process.pid, signal.SIGINT)
    wait_until(lambda: not any(pending(p.pid) for p in processes), "the arrival of the signals")
    assert rows(list(islice(batches, 3))) == rows(list(islice(load(source), 1, 4)))
    assert all(process.is_alive() for process in processes)


def test_close_ends_workers_whatever_they_are_at(
    source: Source, load: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = multiprocessing.get_context("fork").Semaphore(0)

    def endless(*_: object, **__: object) -> None:
        begun.release()
        while True:
            signal.pause()

    monkeypatch.setattr("radcap.data.shelf.parse_row", endless)
    loader = load(source, workers=2)
    processes = child_processes(loader)
    for _ in processes:
        assert begun.acquire(timeout=PATIENCE_S)
    loader.close()
    loader.close()
    assert not any(is_alive(process.pid) for process in processes)


PROGRAM = """
import sys
from multiprocessing import Value
from radcap.data import parts
from radcap.data.collate import load_tokenizer
from radcap.data.loader import Loader
from radcap.data.order import Order
from radcap.data.open import open_source
source = open_source(split="train", path=sys.argv[1], config="alignment")
decoded, decode = Value("q", 0), parts.decode_image
def counting(*words, **options):
    with decoded.get_lock():
        decoded.value += 1
    return decode(*words, **options)
parts.decode_image = counting
order = Order([g.num_rows for g in source.row_groups], [g.num_bytes for g in source.row_groups],
              seed=0, batch_size=4, lanes=2, window_bytes=10_000_000)
loader = Loader(source, order, load_tokenizer(), workers=int(sys.argv[2]), max_length=8)
"""


def run(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    return run_python(PROGRAM + program, *words)


@pytest.mark.parametrize(
    ("workers", "end"), [("0", "pass"), ("0", "loader.close()"), ("2", "pass")]
)
def test_leaving_early_ends_with_status_0(numbered: Any, workers: str, end: str) -> None:
    """And what was not asked for was not decoded."""
    folder = str(numbered(300, 300))
    program = f"it = iter(loader); next(it); next(it); print(decoded.value)\n{end}"
    done = run(program, folder, workers)
    assert (done.returncode, done.stderr) == (0, "")
    decoded, ahead = int(done.stdout), 4 if int(workers) else 0  # batches, beyond the two
    assert 2 * 4 <= decoded <= (2 + ahead) * 4


def test_workers_end_when_the_parent_is_killed(numbered: Any) -> None:
    folder = str(numbered(*SIZES))
    program = (
        "next(iter(loader)); import os, signal\n"
        "print(*[p.pid for p in loader._pool._processes], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = run(program, folder, "2")
    pids = [int(word) for word in done.stdout.split()]
    assert done.returncode == -signal.SIGKILL and len(pids) == 2
    wait_until(lambda: not any(is_alive(pid) for pid in pids), "the end of the workers")


def test_memory_of_a_window_is_bounded(numbered: Any, load: Opener) -> None:
    """Encoded rows held: at most the window, and the rest of the row group read last."""
    source = open_folder(numbered(*[20] * 6))
    order = make_order(source, lanes=2, window_bytes=2 * 10 * 6000)
    loader = load(source, order, ahead_bytes=1)
    most = 0
    for _ in islice(loader, 30):
        held = [s for some in loader._makers[0]._reader._held.values() for s in some]
        most = max(most, sum(row is not None for stretch in held for row in stretch.rows))
    assert 0 < most <= 2 * (order.window_rows + 20)
    assert order.window_rows < 20


def test_batches_are_not_overwritten_by_later_ones(source: Source, load: Opener) -> None:
    loader = iter(load(source, workers=2, prefetch=2))
    first = next(loader)
    kept = first.images.clone()
    list(islice(loader, 8))
    assert torch.equal(first.images, kept)
    assert np.shares_memory(first.images.numpy(), kept.numpy()) is False


def test_batches_that_are_held_keep_their_pictures(source: Source, load: Opener) -> None:
    for workers in (0, 2):
        batches = iter(load(source, workers=workers))
        held = [next(batches) for _ in range(2)]
        copies = [batch.images.clone() for batch in held]
        for _ in range(12):  # in memory of batches that nobody holds
            next(batches)
        assert all(
            torch.equal(batch.images, copy) for batch, copy in zip(held, copies, strict=True)
        )
