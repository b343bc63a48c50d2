"""Processes decide alike. Threads stand for processes here; the real ones are in test_runtimes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from radcap.errors import RadcapError
from radcap.runtime.launch import Launch
from radcap.training.processes import Decisions, check_same_start


class Peer:
    """One of two that gather what both say: the part of a runtime that decisions need."""

    num_processes = 2

    def __init__(self, process_index: int, words: list[Any], barrier: threading.Barrier) -> None:
        self.process_index = process_index
        self._words = words
        self._barrier = barrier

    def gather(self, value: Any) -> list[Any]:
        self._barrier.wait(timeout=10)
        self._words[self.process_index] = value
        self._barrier.wait(timeout=10)
        return list(self._words)


@pytest.fixture
def peers() -> list[Any]:
    shared: tuple[list[Any], threading.Barrier] = ([None, None], threading.Barrier(2))
    return [Peer(0, *shared), Peer(1, *shared)]


def test_a_stop_or_a_save_of_one_is_taken_by_all_at_the_next_read(peers: list[Any]) -> None:
    stops, saves = {0: 7, 1: 99}, {0: 99, 1: 2}  # from and at which step

    def decisions(peer: Any) -> list[tuple[bool, bool]]:
        decided = Decisions(peer)
        index = peer.process_index
        return [
            decided.take(stop=step >= stops[index], save=step == saves[index], read=step % 4 == 0)
            for step in range(1, 9)
        ]

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(decisions, peers)
    assert first == second
    assert [step for step, (_, save) in enumerate(first, 1) if save] == [4]
    assert [step for step, (stop, _) in enumerate(first, 1) if stop] == [8]


def test_one_process_decides_at_once() -> None:
    class Alone:
        num_processes = 1

    decided = Decisions(Alone())  # type: ignore[arg-type]
    assert decided.take(stop=True, save=False, read=False) == (True, False)
    assert decided.take(stop=False, save=True, read=False) == (False, True)


def test_processes_that_would_go_on_from_different_places_are_stopped(peers: list[Any]) -> None:
    def start(peer: Any, steps: tuple[int, int]) -> str:
        try:
            check_same_start(
                peer,
                Launch(peer.process_index, 2),
                step=steps[peer.process_index],
                revision="abc",
                folder=Path("runs/x"),
            )
        except RadcapError as error:
            return str(error)
        return "same"

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(start, peers, [(5, 5)] * 2)) == ["same", "same"]
        for told in threads.map(start, peers, [(5, 0)] * 2):
            assert "step 5 of data abc, step 0 of data abc" in told
            assert "runs/x on a disk that all of them see" in told


def test_a_process_that_its_device_counts_otherwise_is_stopped(peers: list[Any]) -> None:
    with pytest.raises(RadcapError, match="process 1 of 4 is number 0 of 2 by its device"):
        check_same_start(peers[0], Launch(1, 4), step=0, revision="abc", folder=Path("runs/x"))
