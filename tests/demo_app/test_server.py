"""Ports, and what ends the page."""

from __future__ import annotations

import signal
import socket

import pytest
from waiting import PATIENCE_S

from radcap.demo_app.server import address_of, ended_by_signals, listen
from radcap.errors import ConfigError, RadcapError


def test_a_port_that_is_taken_and_hosts_that_are_not_here_are_told_in_a_line() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert address_of(taken) == f"http://127.0.0.1:{port}"
        with pytest.raises(RadcapError, match=f"port {port} of 127.0.0.1: .*--port 0"):
            listen("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S):
            pass
    for host in ("192.0.2.1", "no such host"):
        with pytest.raises(ConfigError, match=f"--host {host}") as caught:
            listen(host, 0)
        assert len(str(caught.value).splitlines()) == 1
    with listen("0.0.0.0", 0) as everywhere:
        assert address_of(everywhere).startswith("http://localhost:")


@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_a_block_as_ctrl_c_does(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), ended_by_signals():
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_a_command_that_is_to_outlive_its_terminal_does() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_by_signals():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
