"""A signal asks for a stop; the next one is an order, unless it is an echo of the first."""

from __future__ import annotations

import os
import signal

import pytest
from command_line import run_python

from radcap.training.signals import Stopped, StopRequest

# In the place of `time`, where signals are answered: only what a program says takes any.
OWN_CLOCK = """
from radcap.training import signals
class Clock:
    now, looks = 0.0, 0
    def monotonic(self):
        self.looks += 1
        return self.now
clock = signals.time = Clock()
"""


@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_first_signal_is_remembered_and_the_handlers_come_back(number: int) -> None:
    before = signal.getsignal(number)
    stop = StopRequest()
    with stop.listening():
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(("echo_s", "status"), [(0.0, 75), (60.0, 0)])
def test_the_second_one_ends_at_once_unless_it_is_an_echo(echo_s: float, status: int) -> None:
    program = (
        "import os, signal\n"
        "from radcap.training.signals import StopRequest\n"
        f"with StopRequest(echo_s={echo_s}).listening():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
    )
    done = run_python(program)
    assert done.returncode == status, done.stderr
    assert ("ending at once without saving" in done.stderr) == (status == 75)


def test_a_machine_that_goes_down_may_say_so_often() -> None:
    program = (
        f"{OWN_CLOCK}"
        "import os, signal\n"
        "from radcap.training.signals import StopRequest\n"
        "with StopRequest().listening():\n"
        "    for clock.now, number in ((0, 'TERM'), (0.1, 'TERM'), (4.9, 'HUP')):\n"
        "        signal.raise_signal(signal.Signals['SIG' + number])\n"
        "    print('saved', flush=True)\n"
        "    clock.now = 5.1\n"  # later it is an order
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    print('went on')\n"
    )
    done = run_python(program)
    assert done.returncode == 75 and done.stdout.splitlines()[-1] == "saved", done.stderr
    assert done.stdout.count("saving, then stopping") == 1
    assert "SIGTERM again, ending at once" in done.stderr


def test_the_end_of_a_terminal_is_ignored_where_it_was() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # by nohup
    try:
        stop = StopRequest()
        with stop.listening():
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_wait_is_broken_off_and_a_step_is_not() -> None:
    stop = StopRequest()
    with stop.listening():
        with pytest.raises(Stopped), stop.interrupting():
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("the wait went on")
        with pytest.raises(Stopped), stop.interrupting():
            raise AssertionError("begun though a stop was asked for")
        with stop.interrupting(allowed=False):
            pass
    stop = StopRequest()
    with stop.listening(), stop.interrupting(allowed=False):
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.requested


@pytest.mark.parametrize(("saved", "said"), [(0, "nothing is saved yet"), (7, "step 7 is saved")])
def test_what_cannot_be_broken_off_is_ended_when_the_grace_is_over(saved: int, said: str) -> None:
    # A call that never lets the interpreter run its handlers, as a compilation does.
    program = (
        "import ctypes, os, signal, threading, time\n"
        "from radcap.training.signals import StopRequest\n"
        f"stop = StopRequest(grace_s=0.5, safe_step=lambda: {saved})\n"
        "with stop.listening():\n"
        "    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "    libc = ctypes.CDLL(None)\n"
        "    while True: libc.sleep(10_000)\n"
    )
    done = run_python(program)
    assert done.returncode == 75, done.stderr
    assert said in done.stderr and "not stopped" in done.stderr


def test_the_grace_is_over_before_a_spot_vm_is() -> None:
    """Which has 30 seconds from the signal on; a run that can stop by itself has most of them."""
    program = (
        f"{OWN_CLOCK}"
        "import signal, time\n"
        "def wait(looks):\n"
        "    while clock.looks < looks: time.sleep(0.01)\n"
        "with signals.StopRequest().listening():\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    wait(3)\n"  # the handler's, and the watch's first ones
        "    clock.now = 20.0\n"
        "    wait(clock.looks + 3)\n"
        "    print('20 s', flush=True)\n"
        "    clock.now = 27.0\n"
        "    wait(clock.looks + 20)\n"
        "    print('still there')\n"
    )
    done = run_python(program)
    assert done.returncode == 75, done.stderr
    assert done.stdout.splitlines()[-1] == "20 s" and "not stopped" in done.stderr


def test_a_save_is_given_its_time() -> None:
    program = (
        "import os, signal, time\n"
        "from radcap.training.signals import StopRequest\n"
        "stop = StopRequest(grace_s=0.2)\n"
        "with stop.listening():\n"
        "    stop.saving = True\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(1)\n"
        "    print('saved')\n"
    )
    done = run_python(program)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "saved", done.stderr


def test_an_end_that_nobody_reads_of_comes_all_the_same() -> None:
    program = (
        "import os\n"
        "from radcap.training.signals import StopRequest\n"
        "reader, writer = os.pipe()\n"
        "os.close(reader)\n"
        "os.dup2(writer, 2)\n"
        "StopRequest()._end('over')\n"
    )
    assert run_python(program).returncode == 75
