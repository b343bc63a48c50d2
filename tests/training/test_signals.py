"""A signal asks for a stop; the next one is an order, unless it is an echo of the first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from radcap.training.signals import StopRequest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
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
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == status, done.stderr
    assert ("ending at once without saving" in done.stderr) == (status == 75)
