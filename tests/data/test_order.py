from __future__ import annotations

import tracemalloc
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radcap.data.order import Order, shuffled

REAL_ROWS = 750_009


def orders(**fixed: Any) -> st.SearchStrategy[Order]:
    sizes = st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any)

    def make(sizes: list[int], seed: int, batch: int, lanes: int, window: int, shuffle: bool):
        return Order(
            sizes,
            [10 * size for size in sizes],
            seed=seed,
            batch_size=fixed.get("batch_size", batch),
            lanes=lanes,
            window_bytes=window,
            shuffle=fixed.get("shuffle", shuffle),
        )

    return st.builds(
        make,
        sizes,
        st.integers(0, 5),
        st.integers(1, 9),
        st.integers(1, 8),
        st.integers(1, 1000),
        st.booleans(),
    )


def rows_of(order: Order, epoch: int) -> list[tuple[int, int]]:
    found = []
    for batch in range(order.batches_per_epoch):
        slots = order.slots(epoch, batch)
        found += [(int(g), int(r)) for g, r in zip(slots.group, slots.row, strict=True) if g >= 0]
    return found


def all_rows(order: Order) -> list[tuple[int, int]]:
    return [(g, r) for g, size in enumerate(order.group_rows.tolist()) for r in range(size)]


@given(orders(), st.integers(0, 3))
def test_every_row_exactly_once_in_an_epoch(order: Order, epoch: int) -> None:
    assert Counter(rows_of(order, epoch)) == Counter(all_rows(order))


@given(orders())
def test_only_the_last_batch_is_padded_and_at_its_end(order: Order) -> None:
    for batch in range(order.batches_per_epoch):
        slots = order.slots(0, batch)
        real = slots.group >= 0
        expected = min(order.batch_size, order.num_rows - batch * order.batch_size)
        assert real.tolist() == [True] * expected + [False] * (order.batch_size - expected)
        for column in (slots.row, slots.stream, slots.offset):
            assert ((column >= 0) == real).all()


@given(orders(shuffle=False))
def test_stored_order_without_shuffle(order: Order) -> None:
    assert rows_of(order, 0) == rows_of(order, 1) == all_rows(order)


@given(orders())
def test_a_reader_that_follows_streams_and_windows_meets_the_same_rows(order: Order) -> None:
    """Oracle: read each stream in sequence, hold only the window asked for."""
    for batch in range(order.batches_per_epoch):
        slots = order.slots(2, batch)
        for g, r, stream, offset in zip(
            slots.group.tolist(), slots.row.tolist(), slots.stream.tolist(), slots.offset.tolist(),
            strict=True,
        ):  # fmt: skip
            if stream < 0:
                continue
            start, stop = order.window(stream, offset)
            assert start <= offset < stop
            sequence = [
                (group, row)
                for group, first in order.segments(2, stream, start)
                for row in range(first, int(order.group_rows[group]))
            ]
            assert sequence[offset - start] == (g, r)


@given(orders(shuffle=True))
def test_windows_tile_each_lane_and_are_used_one_after_the_other(order: Order) -> None:
    latest: dict[int, int] = {}
    for batch in range(order.batches_per_epoch):
        slots = order.slots(0, batch)
        for stream, offset in zip(slots.stream.tolist(), slots.offset.tolist(), strict=True):
            if stream >= 0:
                start, stop = order.window(stream, offset)
                assert latest.get(stream, 0) <= start
                assert stop - start <= max(order.window_rows, 1)
                latest[stream] = start


@given(orders(shuffle=True))
def test_lanes_are_contiguous_parts_and_take_turns(order: Order) -> None:
    lanes: dict[int, list[int]] = {}
    sequence = []
    for batch in range(order.batches_per_epoch):
        slots = order.slots(0, batch)
        for lane, group in zip(slots.stream.tolist(), slots.group.tolist(), strict=True):
            if lane >= 0:
                lanes.setdefault(lane, []).append(group)
                sequence.append(lane)
    assert sorted(lanes) == list(range(order.lanes))
    spans = [(min(lanes[lane]), max(lanes[lane])) for lane in range(order.lanes)]
    assert all(one[1] < next_one[0] for one, next_one in pairwise(spans))
    # Fixed rotation; a lane without rows left drops out.
    left = {lane: len(groups) for lane, groups in lanes.items()}
    expected = []
    while any(left.values()):
        for lane in range(order.lanes):
            if left[lane]:
                left[lane] -= 1
                expected.append(lane)
    assert sequence == expected


def test_order_is_new_each_epoch_and_the_same_for_the_same_seed() -> None:
    def order(seed: int) -> Order:
        return Order([10] * 20, [100] * 20, seed=seed, batch_size=8, lanes=4, window_bytes=400)

    assert rows_of(order(0), 0) == rows_of(order(0), 0)
    assert rows_of(order(0), 0) != rows_of(order(0), 1)
    assert rows_of(order(0), 0) != rows_of(order(1), 0)


def test_the_order_is_frozen() -> None:
    """Golden: a new version of numpy or of this file must not change a run under way."""
    assert shuffled(8, 1, 2, 3).tolist() == [1, 3, 7, 5, 2, 0, 4, 6]
    order = Order([3, 5, 2, 4], [30, 50, 20, 40], seed=7, batch_size=4, lanes=2, window_bytes=60)
    slots = order.slots(1, 1)
    assert slots.group.tolist() == [1, 2, 1, 3]
    assert slots.row.tolist() == [2, 0, 1, 2]
    assert order.fingerprint == "9d4b05c165e951a3"


@given(orders(batch_size=8), st.sampled_from([1, 2, 4]))
def test_with_lanes_divisible_by_hosts_a_host_reads_its_own_lanes_only(
    order: Order, hosts: int
) -> None:
    if not order.shuffle or order.lanes % hosts:
        return
    least = int(order.lane_rows.min()) * order.lanes  # until then no lane has dropped out
    for batch in range(least // 8):
        stream = order.slots(0, batch).stream
        for host in range(hosts):
            assert (stream[host::hosts] % hosts == host).all()


@pytest.mark.parametrize("groups", [7_501, 290])
def test_the_real_size_is_cheap_and_direct(groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = 0

    def counting(count: int, *key: int) -> np.ndarray:
        nonlocal drawn
        drawn += count
        return shuffled(count, *key)

    monkeypatch.setattr("radcap.data.order.shuffled", counting)
    counts = [REAL_ROWS // groups + (i < REAL_ROWS % groups) for i in range(groups)]
    tracemalloc.start()
    order = Order(
        counts, [46_100 * n for n in counts], seed=0, batch_size=336, lanes=64,
        window_bytes=500_000_000,
    )  # fmt: skip
    slots = order.slots(*divmod(200_000, order.batches_per_epoch))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert order.batches_per_epoch == 2233
    assert (slots.group >= 0).all()
    assert np.bincount(slots.stream, minlength=64).min() >= 5
    # A window of each lane, and its runs: not the epochs before, nor the rest of this one.
    assert drawn < 0.05 * REAL_ROWS and peak < 3_000_000


@pytest.mark.parametrize(
    "changes",
    [{"seed": -1}, {"batch_size": 0}, {"lanes": 0}, {"window_bytes": 0}, {"group_rows": [0]}],
)
def test_impossible_orders_are_refused(changes: dict[str, Any]) -> None:
    good = {
        "group_rows": [3], "group_bytes": [3], "seed": 0, "batch_size": 1, "lanes": 1,
        "window_bytes": 1,
    }  # fmt: skip
    with pytest.raises(ValueError):
        Order(**(good | changes))


def test_there_is_no_batch_after_the_last() -> None:
    order = Order([5], [5], seed=0, batch_size=2, lanes=1, window_bytes=9)
    with pytest.raises(ValueError, match="no batch 3"):
        order.slots(0, 3)


@settings(max_examples=30)
@given(st.integers(0, 300), st.lists(st.integers(0, 2**32), min_size=1, max_size=4))
def test_shuffled_is_a_permutation(count: int, key: list[int]) -> None:
    assert sorted(shuffled(count, *key).tolist()) == list(range(count))


@given(orders(), st.data())
def test_some_streams_are_told_of_as_among_all(order: Order, data: st.DataObject) -> None:
    count = order.lanes if order.shuffle else len(order.group_rows)
    wanted = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    batch = data.draw(st.integers(0, order.batches_per_epoch - 1))
    whole, some = order.slots(1, batch), order.slots(1, batch, wanted)
    told = (whole.stream >= 0) & wanted[whole.stream]
    for column in ("group", "row", "stream", "offset"):
        expected = np.where(told, getattr(whole, column), -1)
        assert getattr(some, column).tolist() == expected.tolist()
