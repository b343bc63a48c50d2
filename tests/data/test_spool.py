"""Temporary files in a folder that is everybody's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bounds import bounded

from radcap.data.rowfile import open_rows
from radcap.data.shelf import Spool


def test_what_others_put_there_is_neither_waited_for_nor_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = f"radcap-spool-{os.getuid()}-"
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    home = tmp_path / "tmp"
    home.mkdir()
    os.mkfifo(home / f"{start}pipe")
    (home / f"{start}file").write_text("x")
    (home / f"{start}link").symlink_to(outside)
    (home / f"{start}left").mkdir()
    with bounded(100):
        Spool(home).close()
    assert {path.name.removeprefix(start) for path in home.iterdir()} == {"pipe", "file", "link"}
    assert (outside / "precious").read_text() == "mine"


def test_a_folder_of_another_user_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = os.getuid()
    theirs = tmp_path / f"radcap-spool-{ours + 1}-theirs"
    theirs.mkdir()
    monkeypatch.setattr(os, "getuid", lambda: ours + 1)
    Spool(tmp_path).close()
    assert theirs.is_dir()


def test_a_pipe_for_a_kept_row_file_is_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train-0.rows")
    with bounded(100):
        assert open_rows(tmp_path / "train-0.rows") is None
