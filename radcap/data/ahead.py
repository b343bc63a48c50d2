"""What is needed next, loaded by threads while the present is in use."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")  # what is to be loaded
R = TypeVar("R")  # what comes of it


class Dropped(Exception):
    """The load is no longer needed."""


class Cancel:
    """Says whether a load is still needed; safe to use from several threads."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __call__(self) -> None:
        """End the load at its next `check` or `sleep`."""
        self._event.set()

    def check(self) -> None:
        """Raise `Dropped` if the load is no longer needed."""
        self.sleep(0)

    def sleep(self, seconds: float) -> None:
        """Sleep, or raise `Dropped` as soon as the load is no longer needed."""
        if self._event.wait(seconds):
            raise Dropped


@dataclass
class _Slot(Generic[T, R]):
    job: T
    size: int
    result: R | None = None
    error: Exception | None = None
    done: bool = False


class ReadAhead(Generic[T, R]):
    """Iterates over (job, its result) in the jobs' own order, some of them loaded ahead of time.

    A fault is raised where its job's turn comes, and ends the iteration; no job is begun after it
    was met. Threads begin with the first request: make one before a fork, use it after. They are
    daemons: what they wait for does not keep a process alive.

    Args:
        jobs: in the order of need; may have no end.
        size: bytes that a job takes.
        load: does a job; calls `Cancel.check` now and then.
        most_bytes: bound of what is loaded or being loaded and not taken yet; one job is always
            allowed.
        num_threads: how many jobs may be under way at a time.

    Attributes:
        waited_s: seconds that the consumer has waited so far.
    """

    def __init__(
        self,
        jobs: Iterator[T],
        size: Callable[[T], int],
        load: Callable[[T, Cancel], R],
        *,
        most_bytes: int,
        num_threads: int,
    ) -> None:
        self._jobs, self._size, self._load = jobs, size, load
        self._most_bytes, self._num_threads = most_bytes, num_threads
        self._following = next(jobs, None)
        self._slots: deque[_Slot[T, R]] = deque()
        self._bytes = 0
        self._threads = 0
        self._changed = threading.Condition()
        self._cancel = Cancel()
        self._closed = False
        self.waited_s = 0.0

    def __iter__(self) -> Iterator[tuple[T, R]]:
        return self

    def __next__(self) -> tuple[T, R]:
        with self._changed:
            self._start_threads()
            began = time.monotonic()
            while True:
                if self._closed or (self._following is None and not self._slots):
                    raise StopIteration
                if self._slots and self._slots[0].done:
                    break
                self._changed.wait()
            self.waited_s += time.monotonic() - began
            slot = self._slots.popleft()
            self._bytes -= slot.size
            self._changed.notify_all()
        if slot.error is not None:
            self.close()
            raise slot.error
        return slot.job, slot.result  # type: ignore[return-value]

    def close(self) -> None:
        """Drop what is loaded and what is under way. Safe to call twice.

        A thread that waits for the network ends when it next hears of it; nothing that it brings
        is used.
        """
        with self._changed:
            self._closed = True
            self._cancel()
            self._slots.clear()
            self._following = None
            self._changed.notify_all()

    def _start_threads(self) -> None:
        while self._threads < self._num_threads and not self._closed:
            self._threads += 1
            name = f"radcap-ahead-{self._threads}"
            threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        while (slot := self._begin()) is not None:
            if slot.done:
                return
            try:
                slot.result = self._load(slot.job, self._cancel)
            except Dropped:
                return
            except Exception as error:  # noqa: BLE001 raised where the result was to be used
                slot.error = error
            with self._changed:
                slot.done = True
                if slot.error is not None:
                    self._following = None
                self._changed.notify_all()

    def _begin(self) -> _Slot[T, R] | None:
        """Take the next job when there is room for it; None at the end."""
        with self._changed:
            while not self._closed and self._following is not None:
                size = self._size(self._following)
                room = not self._slots or self._bytes + size <= self._most_bytes
                if room:
                    slot: _Slot[T, R] = _Slot(self._following, size)
                    self._slots.append(slot)
                    self._bytes += size
                    try:
                        self._following = next(self._jobs, None)
                    except Exception as error:  # noqa: BLE001 raised like that of a load
                        slot.error, slot.done, self._following = error, True, None
                    self._changed.notify_all()
                    return slot
                self._changed.wait()
            return None


def side_by_side(jobs: Sequence[T], do: Callable[[T], object], *, num_threads: int) -> None:
    """Do jobs in several threads, this one among them, and return when all are done.

    Raises:
        Exception: the first that a job raised, when those under way have ended; no other is begun.
    """
    left, errors, lock = deque(jobs), list[BaseException](), threading.Lock()

    def work() -> None:
        while True:
            with lock:
                if not left or errors:
                    return
                job = left.popleft()
            try:
                do(job)
            except BaseException as error:  # noqa: BLE001 raised by the thread that waits
                with lock:
                    errors.append(error)

    others = [
        threading.Thread(target=work, name=f"radcap-side-{number}", daemon=True)
        for number in range(1, min(num_threads, len(jobs)))
    ]
    for thread in others:
        thread.start()
    work()
    for thread in others:
        thread.join()
    if errors:
        raise errors[0]
