"""Checkpoints written beside training."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from waiting import PATIENCE_S

from radcap.errors import RadcapError
from radcap.training.run import saver as saver_module
from radcap.training.run.checkpoint import Checkpoint, list_checkpoints, load_checkpoint
from radcap.training.run.mirror import Mirror
from radcap.training.run.saver import Saver


def moment(step: int) -> Checkpoint:
    return Checkpoint(step, {"w": torch.full((3,), float(step))}, {"state": {}}, {}, {"a": step})


def steps(folder: Path) -> list[str]:
    return [path.name for path in list_checkpoints(folder / "checkpoints")]


def test_training_does_not_wait_for_the_write(tmp_path: Path, monkeypatch: Any) -> None:
    gate = threading.Event()
    real = saver_module.save_checkpoint

    def slow(*args: Any) -> Path:
        assert gate.wait(PATIENCE_S)
        return real(*args)

    monkeypatch.setattr(saver_module, "save_checkpoint", slow)
    saver = Saver(tmp_path, keep=2, saved_step=0)
    saver.submit(moment(5), None)
    assert saver.saved_step == 0 and steps(tmp_path) == []
    gate.set()
    saver.finish()
    assert saver.saved_step == 5
    assert load_checkpoint(tmp_path / "checkpoints" / "step-5").progress == {"a": 5}


def test_a_missed_checkpoint_is_told_and_the_next_one_taken(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    saver = Saver(tmp_path, keep=1, saved_step=0)
    saver.submit(moment(1), None)
    saver.finish()
    real = torch.save

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    saver.submit(moment(2), None)
    saver.wait()
    assert saver.saved_step == 1 and steps(tmp_path) == ["step-1"]
    assert "No space left on device" in capsys.readouterr().out
    with pytest.raises(RadcapError, match="step-1 is whole"):
        saver.finish()  # a run may not end like this

    monkeypatch.setattr(torch, "save", real)
    saver.submit(moment(3), None)
    saver.finish()
    assert saver.saved_step == 3 and steps(tmp_path) == ["step-3"]


def test_a_run_folder_that_has_gone_is_not_made_anew(tmp_path: Path) -> None:
    saver = Saver(tmp_path / "run", keep=1, saved_step=0)
    saver.submit(moment(1), None)
    with pytest.raises(RadcapError, match="cannot save"):
        saver.finish()
    assert list(tmp_path.iterdir()) == []


def test_what_took_the_place_of_a_run_folder_gets_no_checkpoint_and_empties_no_mirror(
    tmp_path: Path,
) -> None:
    there: list[bool] = []

    def check() -> None:
        if there:
            raise RadcapError("it was replaced")

    (tmp_path / "run").mkdir()
    mirror = Mirror(str(tmp_path / "mirror"))
    saver = Saver(tmp_path / "run", keep=1, saved_step=0, mirror=mirror, check=check)
    saver.submit(moment(1), None)
    saver.finish()
    saver.push()
    kept = sorted((tmp_path / "mirror").rglob("*"))
    assert kept
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").mkdir()
    there.append(False)
    saver.submit(moment(2), None)
    with pytest.raises(RadcapError, match="it was replaced"):
        saver.finish()
    saver.push()
    saver.close()
    assert list((tmp_path / "run").iterdir()) == []
    assert sorted((tmp_path / "mirror").rglob("*")) == kept


def test_a_fault_of_our_own_is_not_swallowed(tmp_path: Path, monkeypatch: Any) -> None:
    def broken(*_: Any) -> Path:
        raise IndexError("ours")

    monkeypatch.setattr(saver_module, "save_checkpoint", broken)
    saver = Saver(tmp_path, keep=1, saved_step=0)
    saver.submit(moment(1), None)
    with pytest.raises(IndexError, match="ours"):
        saver.finish()


def test_a_mirror_follows_and_its_fault_is_no_fault_of_the_run(tmp_path: Path, capsys: Any) -> None:
    there = tmp_path / "there"
    mirror = Mirror(f"file://{there}")
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text("{}\n")
    saver = Saver(run, keep=1, saved_step=0, mirror=mirror)
    for step in (1, 2):
        saver.submit(moment(step), None)
    saver.finish()
    saver.push()
    assert [path.name for path in (there / "checkpoints").iterdir()] == ["step-2"]
    assert (there / "metrics.jsonl").read_text() == "{}\n"

    def gone(_: Path) -> None:
        raise RadcapError("run.mirror: the bucket has gone")

    mirror.push = gone  # type: ignore[method-assign]
    saver.submit(moment(3), None)
    saver.finish()
    saver.push()
    assert "the bucket has gone" in capsys.readouterr().out and saver.saved_step == 3


def test_the_best_one_stays_until_its_better_successor_is_there(
    tmp_path: Path, monkeypatch: Any
) -> None:
    saver = Saver(tmp_path, keep=1, saved_step=0)
    for step in (10, 20):
        saver.submit(moment(step), 10)
    saver.finish()
    real = torch.save

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    saver.submit(moment(30), 30)
    saver.wait()
    assert steps(tmp_path) == ["step-10", "step-20"]
    monkeypatch.setattr(torch, "save", real)
    saver.submit(moment(40), 30)  # what was best then was never written
    saver.finish()
    assert steps(tmp_path) == ["step-10", "step-40"]


def test_a_slow_upload_holds_up_no_checkpoint(tmp_path: Path) -> None:
    gate, pushed = threading.Event(), []
    mirror = Mirror(f"file://{tmp_path / 'there'}")

    def push(folder: Path) -> None:
        pushed.append(steps(folder))
        assert gate.wait(PATIENCE_S)

    mirror.push = push  # type: ignore[method-assign]
    saver = Saver(tmp_path, keep=1, saved_step=0, mirror=mirror)
    for step in (1, 2, 3):
        saver.submit(moment(step), None)
    saver.wait()
    assert saver.saved_step == 3
    # What the upload may be reading is not deleted meanwhile.
    assert pushed == [["step-1"]] and steps(tmp_path) == ["step-1", "step-2", "step-3"]
    gate.set()
    saver.push()
    saver.submit(moment(4), None)
    saver.close()
    assert pushed[1][-1] == "step-3" and steps(tmp_path) == ["step-4"]


def test_a_mount_that_has_gone_ends_nothing(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    saver = Saver(tmp_path, keep=1, saved_step=0)
    saver.submit(moment(1), None)
    saver.finish()

    def stale(*_: Any, **__: Any) -> None:
        raise OSError(116, "Stale file handle")

    with monkeypatch.context() as broken:
        for name in ("mkdir", "glob", "exists", "is_dir"):
            broken.setattr(Path, name, stale)
        saver.submit(moment(2), None)
        saver.wait()
    assert "Stale file handle" in capsys.readouterr().out and saver.saved_step == 1
    saver.submit(moment(3), None)
    saver.finish()
    assert steps(tmp_path) == ["step-3"]
