"""Locks where the file system has none: a file that says who made it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from waiting import PATIENCE_S, wait_until

from radcap.errors import RadcapError
from radcap.files import locks
from radcap.files.locks import (
    InUse,
    check_held,
    folder_holder,
    has_flock,
    holder,
    lock,
    lock_file,
    lock_folder,
    lock_with_forks,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=[errno.ENOLCK, errno.EOPNOTSUPP])
def no_flock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system knows no flock here, as on NFS without its lock service."""
    refuse_flock(monkeypatch, request.param)


def refuse_flock(monkeypatch: pytest.MonkeyPatch, number: int = errno.ENOLCK) -> None:
    def flock(file: Any, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


def opened(file: Path) -> int:
    return os.open(file, os.O_RDWR | os.O_CREAT)


def test_one_at_a_time_and_none_is_left(tmp_path: Path, no_flock: None) -> None:
    file, mark = tmp_path / "file", tmp_path / "mark"
    held = lock(opened(file), mark)
    with pytest.raises(InUse, match=rf"^process {os.getpid()} of .+ delete {mark}"):
        lock(opened(file), mark)
    descriptor = opened(file)
    assert f"process {os.getpid()} of" in str(holder(descriptor, mark))
    os.close(descriptor)
    held.close()
    held.close()
    assert not mark.exists()
    with lock(opened(file), mark):
        assert mark.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_the_folder_of_a_run_is_kept_and_given_back(tmp_path: Path, no_flock: None) -> None:
    held = lock_folder(tmp_path, "choose another run.name")
    with pytest.raises(RadcapError, match=r"in use by process \d+ .*; wait for it, or choose"):
        lock_folder(tmp_path, "choose another run.name")
    assert folder_holder(tmp_path) is not None
    check_held(tmp_path, held)
    (tmp_path / ".lock.held").unlink()  # by a person who took the process for gone
    other = lock_folder(tmp_path, "")
    with pytest.raises(RadcapError, match="was deleted, moved or replaced"):
        check_held(tmp_path, held)
    held.close()
    assert (tmp_path / ".lock.held").exists()  # the other one's
    other.close()
    assert folder_holder(tmp_path) is None


# A process that holds a lock of this kind until it is killed.
HOLD = """
import errno, fcntl, os, sys, time
def flock(file, operation):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
fcntl.flock = flock
from pathlib import Path
from radcap.files.locks import lock_folder
held = lock_folder(Path(sys.argv[1]), "")
print("held", flush=True)
time.sleep(600)
"""


def test_a_killed_process_leaves_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=variables) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        refuse_flock(monkeypatch)
        with pytest.raises(RadcapError, match=f"in use by process {other.pid} of "):
            lock_folder(tmp_path, "")
        other.kill()
        other.wait()
    assert folder_holder(tmp_path) is None
    held = lock_folder(tmp_path, "")
    check_held(tmp_path, held)
    held.close()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize("change", [{"kernel": "another"}, {"numbers": "pid:[1]"}, {"kernel": ""}])
def test_of_a_process_elsewhere_nothing_is_supposed(
    tmp_path: Path, no_flock: None, change: dict[str, str]
) -> None:
    mark = tmp_path / "mark"
    owner = replace(locks._Owner.this(), process=2**22 + 1, host="vm-7", **change)
    mark.write_text(json.dumps(asdict(owner)))
    with pytest.raises(InUse, match=r"^process 4194305 of vm-7 since .* delete "):
        lock(opened(tmp_path / "file"), mark)
    mark.unlink()  # as it says
    lock(opened(tmp_path / "file"), mark).close()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"process": "x"}', "\x1b[2J", "9" * 9999])
def test_a_mark_that_says_nothing_holds_all_the_same(
    tmp_path: Path, no_flock: None, text: str
) -> None:
    mark = tmp_path / "mark"
    mark.write_text(text)
    with pytest.raises((InUse, OSError)) as caught:
        lock(opened(tmp_path / "file"), mark)
    assert "\x1b" not in str(caught.value)
    assert mark.exists()


def test_a_number_that_was_given_out_again_is_another_process(
    tmp_path: Path, no_flock: None
) -> None:
    mark = tmp_path / "mark"
    mark.write_text(json.dumps(asdict(replace(locks._Owner.this(), started="1"))))
    lock(opened(tmp_path / "file"), mark).close()


def test_several_that_find_the_mark_of_one_gone_do_not_all_have_it(
    tmp_path: Path, no_flock: None
) -> None:
    file, mark = tmp_path / "file", tmp_path / "mark"
    for _ in range(20):
        mark.write_text(json.dumps(asdict(replace(locks._Owner.this(), started="1"))))
        held, start = [], threading.Barrier(4)

        def take(held: list[locks.Lock] = held, start: threading.Barrier = start) -> None:
            start.wait()
            with suppress(InUse):
                held.append(lock(opened(file), mark))

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(one.is_held() for one in held) == 1
        for one in held:
            one.close()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_whoever_waits_says_so_and_then_has_it(tmp_path: Path, no_flock: None) -> None:
    file, mark, said = tmp_path / "file", tmp_path / "mark", []
    first = lock(opened(file), mark)
    waited: list[locks.Lock] = []

    def wait() -> None:
        waited.append(lock(opened(file), mark, on_wait=said.append))

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: bool(said), "a word")
    first.close()
    thread.join(PATIENCE_S)
    assert waited[0].is_held() and len(said) == 1 and said[0].startswith("waiting for process ")
    waited[0].close()


def test_a_fork_holds_nothing(tmp_path: Path, no_flock: None) -> None:
    held = lock(opened(tmp_path / "file"), tmp_path / "mark")
    if (child := os.fork()) == 0:
        held.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert held.is_held()
    held.close()


def test_other_faults_are_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_flock(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        lock(opened(tmp_path / "file"), tmp_path / "mark")
    assert has_flock(tmp_path)
    refuse_flock(monkeypatch)
    assert not has_flock(tmp_path)


def test_a_temporary_folder_is_locked_while_a_fork_lives(tmp_path: Path) -> None:
    first = lock_with_forks(tmp_path)
    assert first is not None
    ended, end = os.pipe()
    if (child := os.fork()) == 0:
        os.close(end)
        os.read(ended, 1)
        os._exit(0)
    os.close(first)
    try:
        assert lock_with_forks(tmp_path) is None
    finally:
        os.close(end)
        os.waitpid(child, 0)
    again = lock_with_forks(tmp_path)
    assert again is not None
    os.close(again)
    os.close(ended)
    assert lock_with_forks(tmp_path / "missing") is None


def test_a_pipe_or_a_link_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("pipe", "link"):
        with pytest.raises(OSError):
            lock_file(tmp_path / name)
    assert not (tmp_path / "elsewhere").exists()
