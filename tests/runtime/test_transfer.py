"""Batches ahead of their use: in order, errors in their place, no thread left."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from radcap.runtime.transfer import Transfer


def threads() -> list[str]:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        names = [t.name for t in threading.enumerate() if t.name.startswith("radcap-transfer")]
        if not names:
            break
        time.sleep(0.01)
    return names


def test_every_batch_comes_once_in_order() -> None:
    transfer = Transfer(range(20), lambda batch: batch * 10, prefetch=3)
    assert list(transfer) == [(i, i * 10) for i in range(20)]
    assert threads() == []


@pytest.mark.parametrize("prefetch", [1, 4])
def test_no_more_is_read_than_asked_for(prefetch: int) -> None:
    read = []

    def loader() -> Iterator[int]:
        for i in range(100):
            read.append(i)
            yield i

    batches = iter(Transfer(loader(), lambda batch: batch, prefetch=prefetch))
    for _ in range(5):
        next(batches)
    batches.close()
    assert threads() == []
    assert 5 <= len(read) <= 5 + prefetch


@pytest.mark.parametrize("place", ["loader", "upload"])
def test_an_error_is_raised_unchanged_after_the_batches_before_it(place: str) -> None:
    fault = LookupError("row 17")

    def fail(batch: int) -> int:
        if batch == 3:
            raise fault
        return batch

    def loader() -> Iterator[int]:
        for i in range(10):
            yield fail(i) if place == "loader" else i

    got = []
    with pytest.raises(LookupError) as caught:
        for _, batch in Transfer(loader(), fail if place == "upload" else int, prefetch=2):
            got.append(batch)
    assert caught.value is fault
    assert got == [0, 1, 2]
    assert threads() == []


def test_closing_waits_for_no_batch_that_has_not_begun() -> None:
    def loader() -> Iterator[int]:
        while True:
            time.sleep(0.2)
            yield 0

    batches = iter(Transfer(loader(), int, prefetch=50))
    next(batches)
    began = time.monotonic()
    batches.close()
    assert time.monotonic() - began < 2
    assert threads() == []
