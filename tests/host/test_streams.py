"""Streams without a reader: waited for, until a signal requests the end."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import ROOT, run_python

from radcap.host import streams
from radcap.host.streams import PatientFile

PIPE_BYTES = 4096


def full_pipe() -> tuple[int, int]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    fill(writer)
    return reader, writer


def stopped_terminal() -> tuple[int, int]:
    terminal, end = os.openpty()
    fill(end)
    termios.tcflow(end, termios.TCOOFF)  # Ctrl-S
    return terminal, end


def fill(writer: int) -> None:
    """Write until nothing more is taken."""
    way = os.open(f"/proc/self/fd/{writer}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        while True:
            os.write(way, b"-" * 64)
    except BlockingIOError:
        os.close(way)


@pytest.mark.parametrize("make", [full_pipe, stopped_terminal])
def test_what_nobody_reads_is_given_up_once_the_end_is_asked_for(
    make: Callable[[], tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def end_is_asked() -> bool:
        looks.append(1)
        return len(looks) > 3

    monkeypatch.setattr(streams, "end_is_asked", end_is_asked)
    monkeypatch.setattr(streams, "_LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(streams, "_PATIENCE_S", 0.03)
    reader, writer = make()
    file = PatientFile(writer)
    assert file.write(b"told") == 4  # to nobody
    assert len(looks) > 3  # it waited before
    assert file.write(b"x" * 10_000) == PIPE_BYTES
    assert os.path.samestat(os.fstat(writer), Path(os.devnull).stat())
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("reopened", [True, False])
def test_a_reader_that_is_slow_gets_all_of_it(
    reopened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not reopened:
        monkeypatch.setattr(streams, "_reopened", lambda descriptor: None)
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    sent = b"".join(b"%d\n" % number for number in range(20_000))

    def write() -> None:
        file, rest = PatientFile(writer), sent
        while rest:
            rest = rest[file.write(rest) :]
        file.discard()
        os.close(writer)

    thread = threading.Thread(target=write)
    thread.start()
    got = b""
    while piece := os.read(reader, 1000):
        got += piece
    thread.join()
    os.close(reader)
    assert got == sent


# Speaks without end; what it does at its end is in its folder.
TALK = """
import sys, threading
from pathlib import Path
from radcap.host import streams
from radcap.host.console import report, run_command, say
from radcap.errors import EXIT_STOPPED
from radcap.training.signals import StopRequest
streams._PATIENCE_S = 0.2

def main(words):
    stop = StopRequest(grace_s=120)
    speak = {"stdout": say, "stderr": report}[words[0]]
    def talk():
        while not stop.requested:
            speak("nobody reads this")
    with stop.listening():
        others = [threading.Thread(target=talk) for _ in range(int(words[1]))]
        for other in others:
            other.start()
        talk()
        for other in others:
            other.join()
        say("saved")
        Path("saved").touch()
    report("stopped")
    return EXIT_STOPPED

sys.exit(run_command(main, "usage"))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("stream", "threads"), [("stdout", 0), ("stderr", 0), ("stdout", 2)])
def test_a_program_that_waits_for_its_reader_hears_a_signal(
    tmp_path: Path, stream: str, threads: int, number: signal.Signals
) -> None:
    """Also where another thread holds the stream's lock while it waits."""
    with started(tmp_path, TALK, stream, str(threads)) as (process, reader):
        process.send_signal(number)
        assert process.wait(timeout=120) == 75
        assert (tmp_path / "saved").exists()
        assert b"Traceback" not in os.read(reader, PIPE_BYTES)


def test_ctrl_c_where_nobody_reads_ends_a_command_that_has_nothing_to_save(tmp_path: Path) -> None:
    program = """
import sys
from radcap.host import streams
from radcap.host.console import report, run_command, say
streams._PATIENCE_S = 0.2

def main(words):
    while True:
        say("nobody reads this")
        report("nor this")

sys.exit(run_command(main, "usage"))
"""
    with started(tmp_path, program, stderr=True) as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 128 + signal.SIGINT


# A sweep whose own output is not read, of a job that speaks without end and saves when told to.
SWEEP = """
import sys
from pathlib import Path
from radcap.host import streams
from radcap.host.console import run_command
from radcap.sweep.process import Runner
streams._PATIENCE_S = 0.2
JOB = '''
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
while True:
    print("nobody reads this", flush=True)
'''

def main(words):
    runner = Runner()
    with runner.listening():
        status, _ = runner.run([sys.executable, "-c", JOB], Path("log"))
    Path("saved").write_text(str(status))
    return status if runner.stopping else 1

sys.exit(run_command(main, "usage"))
"""


def test_a_sweep_that_waits_for_its_reader_lets_its_job_stop(tmp_path: Path) -> None:
    with started(tmp_path, SWEEP) as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 75
        assert (tmp_path / "saved").read_text() == "75"


@contextmanager
def started(
    cwd: Path, program: str, *words: str, stderr: bool = False
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A program that speaks without end into a pipe that is full by now, and the pipe's end.

    Args:
        stderr: whether its errors go there too; its first word may say that they alone do.
    """
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    out = subprocess.DEVNULL if words[:1] == ("stderr",) else writer
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=out,
        stderr=writer if stderr or out != writer else subprocess.DEVNULL,
    )
    os.close(writer)
    try:
        deadline, seen = time.monotonic() + 120, [0]
        while len(seen) < 5 or len(set(seen[-5:])) > 1 or not seen[-1]:
            assert process.poll() is None and time.monotonic() < deadline
            size = fcntl.ioctl(reader, termios.FIONREAD, bytes(4))
            seen.append(int.from_bytes(size, sys.byteorder))
            time.sleep(0.1)
        yield process, reader
    finally:
        process.kill()
        process.wait()
        os.close(reader)


def test_workers_hear_of_the_end_and_another_command_does_not() -> None:
    program = (
        "import os\n"
        "from radcap.host.handlers import ask_for_end, begin, end_is_asked\n"
        "def forked(work):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        os._exit(work())\n"
        "    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "other = lambda: (begin(), ask_for_end(), end_is_asked())[2]\n"
        "assert forked(other) == 1 and not end_is_asked()\n"
        "assert forked(lambda: (ask_for_end(), 0)[1]) == 0 and end_is_asked()\n"
        "assert forked(lambda: (begin(), end_is_asked())[1]) == 0\n"
    )
    done = run_python(program)
    assert done.returncode == 0, done.stderr
