from __future__ import annotations

import numpy as np
import pytest

from radcap.data.order import Order
from radcap.data.share import Share


def make_share(group_rows: list[int], *, lanes: int, hosts: int = 1, host: int = 0) -> Share:
    order = Order(
        group_rows,
        [1000 * rows for rows in group_rows],
        seed=0,
        batch_size=32,
        lanes=lanes,
        window_bytes=10_000,
    )
    return Share(order, host=host, num_hosts=hosts)


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize(("hosts", "host"), [(1, 0), (2, 0), (2, 1)])
def test_workers_have_as_much_to_do_up_to_the_end_of_an_epoch(
    workers: int, hosts: int, host: int
) -> None:
    # Every fourth lane is twice as long: dealt by number, one worker of two would have them all.
    share = make_share([100] * 80, lanes=64, hosts=hosts, host=host)
    dealt = share.deal(workers)
    assert set(dealt) == set(range(workers))
    # With several hosts the lanes of the end of an epoch are shared by another rule.
    batches = share.batches_per_pass if hosts == 1 else 100 * 64 // 32
    for batch in range(batches):
        stream = share.slots(batch).stream
        stream = stream[stream >= 0]
        rows = np.bincount(dealt[stream], minlength=workers)
        assert rows.max() - rows.min() <= 0.35 * len(stream) + 1, (batch, rows)
    if hosts == 1:
        whole = np.bincount(dealt, share.order.lane_rows, minlength=workers)
        assert whole.max() - whole.min() <= 200


def test_in_stored_order_row_groups_are_dealt_in_turn() -> None:
    order = Order([5] * 3, [1] * 3, seed=0, batch_size=4, lanes=1, window_bytes=9, shuffle=False)
    assert Share(order).deal(2).tolist() == [0, 1, 0]
