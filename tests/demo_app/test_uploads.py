"""The folder of uploads, and what is left in it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from waiting import wait_until

from radcap.demo_app import uploads
from radcap.demo_app.uploads import delete_abandoned, delete_older, private_uploads


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


def test_a_folder_that_vanishes_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "_SWEEP_EVERY_S", 0.01)
    ended = threading.Event()
    folder = tmp_path / "uploads"
    sweeper = threading.Thread(target=uploads._sweep, args=(folder, ended))
    sweeper.start()
    try:
        for _ in range(2):
            wait_until(folder.is_dir, "the folder", every_s=0.01)
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            folder.rmdir()
    finally:
        ended.set()
        sweeper.join()


def test_folders_of_commands_that_were_killed_go_and_no_others(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    (tmp_path / "mine").mkdir()
    names = {
        "left": f"radcap-demo-{dead.pid}-aaaa",
        "touched": f"radcap-demo-{dead.pid}-bbbb",
        "runs": f"radcap-demo-{os.getppid()}-cccc",
        "namesake": f"radcap-demo-{os.getpid()}-dddd",
        "other": "radcap-demo-x",
    }
    for what, name in names.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "smith.dcm").write_text("patient")
        os.utime(tmp_path / name, (100, 200 if what == "touched" else 100))
    (tmp_path / f"radcap-demo-{dead.pid}-link").symlink_to(tmp_path / "mine")
    delete_abandoned(tmp_path, 150)
    left = {names["touched"], names["runs"], names["other"], f"radcap-demo-{dead.pid}-link"}
    assert {entry.name for entry in tmp_path.iterdir()} == {*left, "mine"}
