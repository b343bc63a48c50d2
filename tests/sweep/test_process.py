"""A job's process: what it says is shown and kept, signals reach it, nothing outlives the sweep."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import ROOT, run_python
from waiting import PATIENCE_S, is_alive, wait_until

from radcap.sweep.process import Runner

# Runs the program of its first argument as a job, with the log of its second.
SWEEP = """
import sys
from pathlib import Path
from radcap.sweep.process import Runner
runner = Runner()
with runner.listening():
    status, said = runner.run([sys.executable, "-uc", sys.argv[1]], Path(sys.argv[2]))
print("status", status, runner.stopping)
"""

# Counts the signals of a second, and says when it is ready.
LISTENER = """
import signal, time
count = 0
def handle(number, frame):
    global count
    count += 1
signal.signal(signal.SIGINT, handle)
signal.signal(signal.SIGTERM, handle)
print("ready")
while not count:
    time.sleep(0.01)
time.sleep(0.5)
print("signals", count)
raise SystemExit(75)
"""


# A run as it is told to stop: it says so, draws its bar, and has work left.
SAVER = """
import time
from pathlib import Path
from tqdm import tqdm
from radcap.host.console import on_terminal, say
from radcap.training.signals import StopRequest
stop = StopRequest()
with stop.listening():
    print("ready")
    bar = tqdm(total=2, disable=not on_terminal())
    while not stop.requested:
        time.sleep(0.01)
    bar.update()
    say("saved")
    bar.close()
    Path({told!r}).touch()
"""


def start_sweep(program: str, log: Path, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SWEEP, program, str(log)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        **{"stdout": subprocess.PIPE, **options},
    )


def test_what_a_job_says_is_shown_and_kept(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "job.log"
    program = (
        "import sys; print('one', flush=True); sys.stderr.write('radcap: two\\n'); sys.exit(7)"
    )
    assert Runner().run([sys.executable, "-c", program], log) == (7, "one\nradcap: two\n")
    assert capfd.readouterr().out == "one\nradcap: two\n"
    # Once more: behind what is there; the answer is this one's alone.
    assert Runner().run([sys.executable, "-c", "print('three', end='')"], log) == (0, "three\n")
    assert log.read_text() == "one\nradcap: two\nthree\n"
    program = "import os; os.kill(os.getpid(), 9)"
    assert Runner().run([sys.executable, "-c", program], log) == (-9, "")


def test_a_helper_that_outlives_its_job_is_not_waited_for(tmp_path: Path) -> None:
    program = f"import subprocess; print(subprocess.Popen(['sleep', '{PATIENCE_S}']).pid)"
    status, said = Runner().run([sys.executable, "-c", program], tmp_path / "log")
    helper = int(said)
    try:
        assert status == 0 and is_alive(helper)
    finally:
        os.kill(helper, signal.SIGKILL)


@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_reaches_the_job_once(tmp_path: Path, number: signal.Signals) -> None:
    # As Ctrl-C does: it goes to the whole group of the terminal.
    process = start_sweep(LISTENER, tmp_path / "log", start_new_session=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    os.killpg(process.pid, number)
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert out.splitlines() == ["signals 1", "status 75 True"]


@pytest.mark.skipif(sys.platform != "linux", reason="by Linux's prctl")
@pytest.mark.parametrize("on_terminal", [False, True])
def test_a_killed_sweep_takes_its_job_along(tmp_path: Path, on_terminal: bool) -> None:
    told = tmp_path / "told"
    master, slave = pty.openpty() if on_terminal else os.pipe()
    process = start_sweep(SAVER.format(told=str(told)), tmp_path / "log", stdout=slave)
    os.close(slave)
    said = b""
    while not said.endswith(b"\n"):  # which the job writes by itself
        said += os.read(master, 100)
    assert said.strip() == b"ready"
    process.kill()
    process.wait(PATIENCE_S)
    wait_until(told.exists, "the job's last line")
    os.close(master)


@pytest.mark.skipif(sys.platform != "linux", reason="by Linux's prctl")
def test_a_job_whose_sweep_is_gone_does_not_begin() -> None:
    program = (
        "from radcap.sweep.process import _stop_with_the_sweep\n"
        "_stop_with_the_sweep(0)\n"
        "print('begun')\n"
    )
    done = run_python(program)
    assert (done.returncode, done.stdout) == (143, "")


@pytest.mark.parametrize("on_terminal", [False, True])
def test_a_closed_terminal_or_pipe_ends_no_job(tmp_path: Path, on_terminal: bool) -> None:
    go_on = tmp_path / "go on"
    program = (
        "import sys, time\nfrom pathlib import Path\nprint('ready')\n"
        f"while not Path({str(go_on)!r}).exists(): time.sleep(0.01)\n"
        "for number in range(3): print(number); time.sleep(0.1)\n"
    )
    master, slave = pty.openpty() if on_terminal else os.pipe()
    process = start_sweep(program, tmp_path / "log", stdout=slave, stderr=subprocess.PIPE)
    os.close(slave)
    assert os.read(master, 100).strip() == b"ready"
    os.close(master)
    go_on.touch()
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, errors) == (0, "")
    assert (tmp_path / "log").read_text() == "ready\n0\n1\n2\n"


def test_a_terminal_is_handed_on_and_its_bars_are_not_kept(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "size = os.get_terminal_size(2)\n"
        "sys.stderr.write('\\r 10%|bar'); sys.stderr.write('\\r 20%|bar')\n"
        "sys.stderr.write('\\r        \\r'); print('told', sys.stderr.isatty(), size.columns)\n"
        "sys.stderr.write('\\r 30%|bar')\n"
    )
    master, slave = pty.openpty()
    import termios

    termios.tcsetwinsize(slave, (40, 77))
    log = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", SWEEP, program, str(log)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=slave,
        stderr=slave,
        check=False,
        timeout=PATIENCE_S,
    )
    os.close(slave)
    shown = os.read(master, 10_000).decode()
    os.close(master)
    assert done.returncode == 0
    assert " 10%|bar\r 20%|bar" in shown and "told True 77\r\n" in shown
    assert log.read_text().splitlines() == ["told True 77", " 30%|bar"]
