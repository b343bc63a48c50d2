"""Processes decide alike. Threads stand for processes here; the real ones are in test_runtimes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from waiting import PATIENCE_S

from radcap.config.compose import compose
from radcap.errors import RadcapError
from radcap.runtime.launch import Launch
from radcap.training.processes import check_same_start, decide, finish_together


class Peer:
    """One of two that gather what both say: the part of a runtime that decisions need."""

    num_processes = 2

    def __init__(self, process_index: int, words: list[Any], barrier: threading.Barrier) -> None:
        self.process_index = process_index
        self._words = words
        self._barrier = barrier

    def gather(self, value: Any) -> list[Any]:
        self._barrier.wait(timeout=PATIENCE_S)
        self._words[self.process_index] = value
        self._barrier.wait(timeout=PATIENCE_S)
        return list(self._words)


@pytest.fixture
def peers() -> list[Any]:
    shared: tuple[list[Any], threading.Barrier] = ([None, None], threading.Barrier(2))
    return [Peer(0, *shared), Peer(1, *shared)]


def test_what_one_wants_all_do(peers: list[Any]) -> None:
    stops, saves = {0: 7, 1: 99}, {0: 99, 1: 2}  # from and at which step

    def decisions(peer: Any) -> list[tuple[bool, bool]]:
        index = peer.process_index
        return [
            decide(peer, stop=step >= stops[index], save=step == saves[index])
            for step in range(1, 9)
        ]

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(decisions, peers)
    assert first == second
    assert [step for step, (_, save) in enumerate(first, 1) if save] == [2]
    assert [step for step, (stop, _) in enumerate(first, 1) if stop] == [7, 8]


def test_all_fail_with_the_one_that_cannot_save(peers: list[Any]) -> None:
    def finish(peer: Any) -> str:
        failed = RadcapError("disk full") if peer.process_index == 0 else None
        try:
            finish_together(peer, failed)
        except RadcapError as error:
            return str(error)
        return "saved"

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(finish, peers)) == ["disk full"] * 2
        peers[0].process_index, peers[1].process_index = 1, 0
        assert list(threads.map(finish, peers)) == ["disk full"] * 2


def verdicts(peers: list[Any], **different: tuple[Any, Any]) -> set[str]:
    """What each of two processes says that start alike but for one thing."""

    def start(peer: Any) -> str:
        index = peer.process_index
        words = {name: values[index] for name, values in different.items()}
        try:
            check_same_start(
                peer,
                words.get("launch", Launch(index, 2)),
                compose(words.get("overrides", [])),
                step=words.get("step", 5),
                revision="abc",
                folder=Path("runs/x"),
                weights=words.get("weights"),
            )
        except RadcapError as error:
            return str(error)
        return "same"

    with ThreadPoolExecutor(2) as threads:
        return set(threads.map(start, peers))


def test_processes_that_start_alike_go_on(peers: list[Any]) -> None:
    assert verdicts(peers) == {"same"}
    # A TPU numbers its hosts as it likes.
    assert verdicts(peers, launch=(Launch(1, 2), Launch(0, 2))) == {"same"}


def test_processes_that_would_go_on_from_different_places_are_stopped(peers: list[Any]) -> None:
    (told,) = verdicts(peers, step=(5, 0))
    assert "step 5 of data abc, step 0 of data abc" in told
    assert "runs/x on a disk that all of them see" in told


def test_processes_with_different_settings_are_stopped(peers: list[Any]) -> None:
    (told,) = verdicts(peers, overrides=([], ["trainer.eval_every=7"]))
    assert told == "the processes were given different settings; give all the same command"


def test_processes_with_different_weights_are_stopped(peers: list[Any]) -> None:
    (told,) = verdicts(peers, weights=("a", "b"))
    assert told == "the processes loaded different weights; they need the same files, on every host"


def test_processes_that_would_read_the_same_share_are_stopped(peers: list[Any]) -> None:
    (told,) = verdicts(peers, launch=(Launch(0, 1), Launch(0, 1)))
    assert "take themselves for 0 of 1" in told
