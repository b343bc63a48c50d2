"""What is read when: each row group once, before the first of its rows, in the order of need."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from radcap.data.footer import RowGroup
from radcap.data.order import Order
from radcap.data.plan import Plan, Stretch
from radcap.data.share import Share


@st.composite
def shares(draw: st.DrawFn) -> tuple[Share, list[RowGroup]]:
    """A host's share of an order of small row groups in two files."""
    rows = draw(st.lists(st.integers(0, 12), min_size=1, max_size=25))
    rows[draw(st.integers(0, len(rows) - 1))] = 5
    groups = [
        RowGroup(f"file-{i * 2 // len(rows)}", i, count, 1_000_000 * count, 0, 1)
        for i, count in enumerate(rows)
    ]
    num_hosts = draw(st.sampled_from([1, 1, 2, 3]))
    shuffle = draw(st.booleans())
    order = Order(
        rows,
        [group.num_bytes for group in groups],
        seed=draw(st.integers(0, 5)),
        batch_size=num_hosts * draw(st.integers(1, 9)),
        lanes=draw(st.integers(1, 6)),
        window_bytes=draw(st.integers(1_000_000, 60_000_000)),
        shuffle=shuffle,
    )
    max_rows = draw(st.none() | st.integers(1, order.num_rows))
    host = draw(st.integers(0, num_hosts - 1))
    return Share(order, max_rows, host, num_hosts), groups


@settings(max_examples=400)
@given(shares(), st.integers(1, 3), st.integers(0, 40), st.data())
def test_rows_in_turn_meet_stretches_in_turn(
    made: tuple[Share, list[RowGroup]], workers: int, number: int, data: st.DataObject
) -> None:
    share, groups = made
    if share.max_rows is not None:
        number %= share.batches_per_pass
    dealt = share.deal(workers)
    mine = dealt == data.draw(st.integers(0, workers - 1))
    stretches = Plan(groups, share, mine).stretches(number)
    met: list[Stretch] = []
    taken: Counter[Stretch] = Counter()
    batches = share.batches_per_pass - number if share.max_rows is not None else 30
    last = None
    for batch in range(number, number + batches):
        slots = share.slots(batch, mine)
        columns = np.stack((slots.stream, slots.offset, slots.group, slots.row), axis=1)
        for stream, offset, group, row in columns[slots.stream >= 0].tolist():
            held = [s for s in met if s.holds(slots.epoch, stream, offset)]
            if not held:
                met.append(next(stretches))
                held = met[-1:]
                assert held[0].holds(slots.epoch, stream, offset)
            (stretch,) = held
            taken[stretch] += 1
            # The row is where the stretch says.
            place = offset - stretch.start
            for candidate in stretch.groups:
                skipped = stretch.first if candidate == stretch.groups[0] else 0
                if place < groups[candidate].num_rows - skipped:
                    assert (candidate, place + skipped) == (group, row)
                    break
                place -= groups[candidate].num_rows - skipped
            last = slots.epoch
    for stretch, rows in taken.items():
        assert rows <= stretch.wanted
        if share.max_rows is not None or stretch.epoch != last:
            assert rows == stretch.wanted
    if share.max_rows is not None:
        assert next(stretches, None) is None  # nothing beyond the pass
    read = Counter((s.epoch, group) for s in met for group in s.groups)
    assert all(times == 1 for times in read.values())
    dues = [stretch.due for stretch in met]
    assert dues == sorted(dues)


def test_neighbours_are_read_together_up_to_a_size_and_alone_at_first() -> None:
    groups = [RowGroup("file", i, 10, 10_000_000, 0, 1) for i in range(12)]
    order = Order(
        [10] * 12, [10_000_000] * 12, seed=0, batch_size=4, lanes=1, window_bytes=60_000_000
    )
    share = Share(order)
    found = list(islice(Plan(groups, share, np.ones(1, bool)).stretches(0), 30))
    lengths = [len(stretch.groups) for stretch in found]
    assert max(lengths) == 3  # of 32 MB
    for stretch in found:
        assert stretch.num_bytes == 10_000_000 * len(stretch.groups)
        assert list(stretch.groups) == list(range(stretch.groups[0], stretch.groups[-1] + 1))
