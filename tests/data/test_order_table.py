"""Which rows make a batch: whatever the workers, the hosts and the places where a run broke off."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from radcap.data.loader import Loader
from radcap.data.open import open_source
from radcap.data.order import Order
from radcap.data.source import Source

BATCH, LANES = 8, 4
SIZES = (9, 7, 10, 6, 8, 8, 5, 11, 9, 7, 10, 4)
WORKERS, HOSTS = (0, 1, 2, 4), (1, 2, 4)


@pytest.fixture
def split(numbered: Any) -> tuple[Source, Order]:
    folder: Path = numbered(*SIZES)
    source = open_source(split="train", path=str(folder), config="alignment")
    groups = source.row_groups
    order = Order(
        [g.num_rows for g in groups],
        [g.num_bytes for g in groups],
        seed=5,
        batch_size=BATCH,
        lanes=LANES,
        window_bytes=LANES * 8 * 5700,
    )
    assert 4 < order.window_rows < 12  # several windows a lane
    return source, order


def run(
    split: tuple[Source, Order], tokenizer: Any, workers: int, hosts: int, stops: tuple[int, ...]
) -> list[list[str]]:
    """Row ids of two epochs' batches, [PAD] as '', the run broken off after each of `stops`."""
    source, order = split
    total = 2 * order.batches_per_epoch
    batches: list[list[str]] = [[""] * BATCH for _ in range(total)]
    for host in range(hosts):
        position, done = None, 0
        for stop in (*stops, total):
            loader = Loader(
                source,
                order,
                tokenizer,
                workers=workers,
                max_length=8,
                position=position,
                host=host,
                num_hosts=hosts,
                max_skipped_fraction=1.0,
            )
            for batch in islice(loader, stop - done):
                batches[done][host::hosts] = batch.rows
                position, done = batch.position, done + 1
            loader.close()
    return batches


def places(order: Order) -> Iterator[tuple[str, tuple[int, ...]]]:
    per_epoch = order.batches_per_epoch
    # A round gives a row of each lane, and a batch has BATCH / LANES rounds.
    ends = {order.window(lane, 0)[1] // (BATCH // LANES) for lane in range(LANES)}
    window_end = max(end for end in ends if end)
    yield "unbroken", ()
    yield "mid-window", (1,)
    yield "window's end", (window_end,)
    yield "epoch's end", (per_epoch,)
    yield "twice", (window_end + 1, per_epoch + 2)


@pytest.mark.slow
def test_the_rows_of_a_batch_depend_on_neither_workers_nor_hosts_nor_breaks(
    split: tuple[Source, Order], tokenizer: Any
) -> None:
    source, order = split
    expected = run(split, tokenizer, 0, 1, ())
    every_row = sorted(source.row_id(g, r) for g, n in enumerate(SIZES) for r in range(n))
    for epoch in range(2):
        part = expected[epoch * order.batches_per_epoch :][: order.batches_per_epoch]
        assert sorted(row for batch in part for row in batch if row) == every_row
    assert expected[: order.batches_per_epoch] != expected[order.batches_per_epoch :]

    print(f"\n{'broken off':14s} {'hosts':>5s}  " + "  ".join(f"{w} workers" for w in WORKERS))
    for name, stops in places(order):
        for hosts in HOSTS:
            words = []
            for workers in WORKERS:
                found = run(split, tokenizer, workers, hosts, stops)
                assert [sorted(b) for b in found] == [sorted(b) for b in expected]
                assert found == expected, (name, hosts, workers)
                words.append("same".rjust(9))
            print(f"{name:14s} {hosts:5d}  " + "  ".join(words))
