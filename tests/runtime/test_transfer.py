"""Batches ahead of their use: in order, errors in their place, no thread left."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from waiting import wait_until

from radcap.runtime.transfer import Transfer


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("radcap-transfer")]


def ended() -> bool:
    """Wait for the thread to end; it may be about to when `close` returns."""
    return wait_until(lambda: not threads(), "the end of the thread")


def test_every_batch_comes_once_in_order() -> None:
    transfer = Transfer(range(20), lambda batch: batch * 10, prefetch=3)
    assert list(transfer) == [(i, i * 10) for i in range(20)]
    assert ended()


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
    assert ended()
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
    assert ended()


def test_closing_waits_for_no_batch_that_has_not_begun() -> None:
    begun = 0

    def loader() -> Iterator[int]:
        nonlocal begun
        while True:
            begun += 1
            time.sleep(0.01)
            yield 0

    batches = iter(Transfer(loader(), int, prefetch=5_000))
    next(batches)
    batches.close()
    assert ended()
    assert begun < 2_500
