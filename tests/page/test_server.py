"""Ports, the folder of uploads, and what is left in it."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from radcap.errors import ConfigError, RadcapError
from radcap.page.server import address_of, delete_older, listen, private_uploads


def test_a_port_that_is_taken_and_hosts_that_are_not_here_are_told_in_a_line() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert address_of(taken) == f"http://127.0.0.1:{port}"
        with pytest.raises(RadcapError, match=f"port {port} of 127.0.0.1: .*--port 0"):
            listen("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
    for host in ("192.0.2.1", "no such host"):
        with pytest.raises(ConfigError, match=f"--host {host}") as caught:
            listen(host, 0)
        assert len(str(caught.value).splitlines()) == 1
    with listen("0.0.0.0", 0) as everywhere:
        assert address_of(everywhere).startswith("http://localhost:")


def test_uploads_lie_in_a_folder_of_the_owners_that_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "")
    with pytest.raises(KeyboardInterrupt), private_uploads() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
        (folder / "hash").mkdir()
        (folder / "hash" / "smith.dcm").write_text("patient")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_what_is_left_is_swept_when_it_is_old(tmp_path: Path) -> None:
    for name, age in (("old", 100), ("new", 10)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "smith.dcm").write_text("patient")
        (tmp_path / f"half-{name}").write_text("pat")
        for entry in (tmp_path / name, tmp_path / f"half-{name}"):
            os.utime(entry, (1000 - age, 1000 - age))
    delete_older(tmp_path, 950)
    assert {entry.name for entry in tmp_path.iterdir()} == {"new", "half-new"}
