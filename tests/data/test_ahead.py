"""What is read ahead comes in order, within its bound, and nothing of it is lost or kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import PATIENCE_S, wait_until

from radcap.data.ahead import Cancel, Dropped, ReadAhead, side_by_side


def ahead(
    jobs: Iterator[int],
    load: Callable[[int, Cancel], int] = lambda job, cancel: -job,
    *,
    size: int = 1,
    most: int = 3,
    threads: int = 2,
) -> ReadAhead[int, int]:
    return ReadAhead(jobs, lambda _: size, load, most_bytes=most, num_threads=threads)


@given(
    sizes=st.lists(st.integers(0, 9), max_size=30),
    most=st.integers(1, 20),
    threads=st.integers(1, 5),
)
def test_results_come_in_the_order_of_the_jobs_within_the_bound(
    sizes: list[int], most: int, threads: int
) -> None:
    lock = threading.Lock()
    held: set[int] = set()  # begun and not taken
    over: list[set[int]] = []
    active = peak = 0

    def load(job: int, cancel: Cancel) -> int:
        nonlocal active, peak
        with lock:
            held.add(job)
            active += 1
            peak = max(peak, active)
            if len(held) > 1 and sum(sizes[job] for job in held) > most:
                over.append(set(held))
        with lock:
            active -= 1
        return job * 10

    jobs = ReadAhead(
        iter(range(len(sizes))),
        lambda job: sizes[job],
        load,
        most_bytes=most,
        num_threads=threads,
    )
    found = []
    for job, result in jobs:
        with lock:
            held.discard(job)
        found.append((job, result))
    assert found == [(job, job * 10) for job in range(len(sizes))]
    assert peak <= threads
    # A job is given out before it is taken off here: at most that one is too many.
    assert all(sum(sizes[job] for job in some) - max(sizes) <= most for some in over)


def test_jobs_are_begun_before_they_are_asked_for_and_no_more_than_fit() -> None:
    begun: list[int] = []

    def load(job: int, cancel: Cancel) -> int:
        begun.append(job)
        return job

    jobs = ahead(count(), load, size=4, most=12)
    assert begun == []  # no thread before the first request
    assert next(jobs) == (0, 0)
    wait_until(lambda: sorted(begun) == [0, 1, 2, 3], "three ahead")
    assert next(jobs) == (1, 1)
    wait_until(lambda: sorted(begun) == [0, 1, 2, 3, 4], "one more")
    jobs.close()


def test_one_job_is_allowed_whatever_its_size() -> None:
    assert list(ahead(iter(range(5)), size=100, most=1)) == [(job, -job) for job in range(5)]


def test_loads_run_side_by_side() -> None:
    together = threading.Barrier(3)

    def load(job: int, cancel: Cancel) -> int:
        together.wait(timeout=PATIENCE_S)
        return job

    assert [job for job, _ in ahead(iter(range(6)), load, most=6, threads=3)] == list(range(6))


def test_a_fault_comes_where_its_job_was_due_and_ends_it() -> None:
    def load(job: int, cancel: Cancel) -> int:
        if job == 2:
            raise OSError("of job 2")
        return job

    jobs = ahead(count(), load)
    assert [next(jobs)[0], next(jobs)[0]] == [0, 1]
    with pytest.raises(OSError, match="of job 2"):
        next(jobs)
    assert list(jobs) == []


def test_no_job_is_begun_after_a_fault_was_met() -> None:
    begun: list[int] = []

    def load(job: int, cancel: Cancel) -> int:
        begun.append(job)
        if job == 1:
            raise OSError("of job 1")
        return job

    jobs = ahead(count(), load, most=1000, threads=1)
    assert next(jobs) == (0, 0)
    wait_until(lambda: 1 in begun, "the fault")
    with pytest.raises(OSError, match="of job 1"):
        list(jobs)
    assert begun == [0, 1]


def test_a_fault_of_the_jobs_themselves_is_no_end() -> None:
    def jobs() -> Iterator[int]:
        yield 0
        yield 1
        raise AssertionError("a fault of ours")

    found = ahead(jobs())
    with pytest.raises(AssertionError, match="of ours"):
        list(found)


def test_close_drops_what_is_under_way_and_ends_the_threads() -> None:
    release, begun, dropped = threading.Event(), [], []

    def load(job: int, cancel: Cancel) -> int:
        if job:
            begun.append(job)
            release.wait(timeout=PATIENCE_S)
            try:
                cancel.check()
            except Dropped:
                dropped.append(job)
                raise
        return job

    before = set(threading.enumerate())
    jobs = ahead(count(), load)
    next(jobs)
    wait_until(lambda: len(begun) == 2, "two under way")
    jobs.close()
    jobs.close()
    assert list(jobs) == []
    release.set()
    wait_until(lambda: set(threading.enumerate()) <= before, "no thread is left")
    assert sorted(dropped) == [1, 2]


@given(jobs=st.lists(st.integers(), max_size=20), threads=st.integers(1, 5))
def test_side_by_side_does_each_once(jobs: list[int], threads: int) -> None:
    done: list[int] = []
    side_by_side(jobs, done.append, num_threads=threads)
    assert sorted(done) == sorted(jobs)


def test_side_by_side_is_that() -> None:
    together = threading.Barrier(3)
    side_by_side(range(6), lambda _: together.wait(timeout=PATIENCE_S), num_threads=3)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_error_ends_the_jobs_that_have_not_begun(threads: int) -> None:
    done: list[int] = []

    def do(job: int) -> None:
        if job == 2:
            raise Dropped
        time.sleep(0.005)
        done.append(job)

    with pytest.raises(Dropped):
        side_by_side(range(1000), do, num_threads=threads)
    assert 2 not in done and len(done) < 500
