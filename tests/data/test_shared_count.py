"""A count over processes, without /dev/shm."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from radcap.data.open import open_source
from radcap.data.phantom.dataset import ensure_phantom, is_drawn
from radcap.data.shared_count import SharedCount
from radcap.data.shelf import Cache


@pytest.fixture
def no_semaphores(monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/shm is read-only: the system makes no semaphore."""
    import _multiprocessing

    def refuse(*_: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(_multiprocessing, "SemLock", refuse)


def test_what_several_processes_take_is_taken_once() -> None:
    count = SharedCount(1000)
    children = []
    for _ in range(4):
        if (child := os.fork()) == 0:
            taken = sum(count.take(1) for _ in range(400))
            os._exit(min(taken, 400) // 2 if taken <= 400 else 255)
        children.append(child)
    taken = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert count.value == 0 and not count.take(1)
    assert 996 <= 2 * sum(taken) <= 1000  # halves, rounded down
    count.give(5)
    assert count.take(5) and count.value == 0
    count.give(-3)
    assert count.value == -3


def test_a_cache_needs_no_shared_memory_of_the_system(tmp_path: Path, no_semaphores: None) -> None:
    cache = Cache.open(tmp_path / "cache", limit_bytes=10, decoded=False)
    assert [cache.reserve(6), cache.reserve(6)] == [True, False]
    cache.give_back(2)
    assert cache.reserve(6)


def test_streams_are_read_without_it(numbered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("unable to open shared memory object")

    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", refuse)
    monkeypatch.setattr(torch.UntypedStorage, "_share_filename_cpu_", refuse)
    source = open_source(split="train", path=str(numbered(2, 3)), config="alignment")
    assert [len(list(source.read(group))) for group in (1, 0)] == [3, 2]


def test_pictures_are_drawn_without_it_too(tmp_path: Path, no_semaphores: None) -> None:
    folder = ensure_phantom(tmp_path, train_rows=4, val_rows=2)
    assert is_drawn(folder)
