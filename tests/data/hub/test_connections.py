"""A Hub that has too many requests gets fewer connections, and more again later."""

from __future__ import annotations

import threading
import time

import pytest
from waiting import PATIENCE_S

from radcap.data.hub import connections
from radcap.data.hub.connections import Connections


class Clock:
    """In the place of `time`."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(connections, "time", clock)
    return clock


def test_refusals_halve_them_and_time_brings_them_back(clock: Clock) -> None:
    open_ = Connections(8)
    assert open_.allowed() == 8
    for _ in range(8):  # those that were open are refused together
        open_.fewer()
    assert open_.allowed() == 4
    clock.now += 6
    open_.fewer()
    clock.now += 6
    open_.fewer()
    clock.now += 6
    open_.fewer()
    assert open_.allowed() == 1
    allowed = []
    for _ in range(9):
        clock.now += 30
        allowed.append(open_.allowed())
    assert allowed == [2, 3, 4, 5, 6, 7, 8, 8, 8]


def test_no_more_are_open_than_are_allowed() -> None:
    limit, open_, peaks, lock = Connections(3), 0, list[int](), threading.Lock()

    def use() -> None:
        nonlocal open_
        with limit.one():
            with lock:
                open_ += 1
                peaks.append(open_)
            time.sleep(0.01)
            with lock:
                open_ -= 1

    def use_many() -> None:
        threads = [threading.Thread(target=use) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    use_many()
    assert max(peaks) == 3 and len(peaks) == 20
    limit.fewer()
    peaks.clear()
    use_many()
    assert max(peaks) == 1 and len(peaks) == 20


def test_there_is_one_at_least() -> None:
    assert Connections(0).allowed() == 1
