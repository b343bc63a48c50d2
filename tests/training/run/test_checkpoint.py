"""Checkpoints: whole or named as damaged, and readable by plain torch."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import IO

import pytest
import torch
from files.test_atomic import refuse_renames

from radcap.errors import RadcapError
from radcap.training.run.checkpoint import (
    Checkpoint,
    list_checkpoints,
    load_checkpoint,
    load_latest,
    prune,
    save_checkpoint,
)


def moment(step: int) -> Checkpoint:
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return Checkpoint(
        step=step,
        model=layer.state_dict(),
        optimizer=optimizer.state_dict(),
        random={"cpu": torch.get_rng_state()},
        progress={"position": {"epoch": 0, "batch": step}, "best": None},
    )


def test_round_trip_is_exact(tmp_path: Path) -> None:
    saved = moment(7)
    read = load_checkpoint(save_checkpoint(tmp_path, saved))
    assert read.step == 7
    assert read.progress == saved.progress
    for name, tensor in saved.model.items():
        assert torch.equal(read.model[name], tensor)
    assert torch.equal(read.random["cpu"], saved.random["cpu"])
    before, after = saved.optimizer["state"], read.optimizer["state"]
    assert all(torch.equal(after[k]["exp_avg"], before[k]["exp_avg"]) for k in before)


def test_plain_torch_opens_every_file(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, moment(1))
    for file in path.glob("*.pt"):
        torch.load(file)  # weights_only is the default
    names = {"model.safetensors", "optimizer.pt", "random.pt", "progress.json", "manifest.json"}
    assert {file.name for file in path.iterdir()} == names


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.pt", "random.pt", "progress.json", "manifest.json"]
)
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_damaged_file_is_named_and_the_one_before_is_used(
    tmp_path: Path, name: str, damage: str
) -> None:
    save_checkpoint(tmp_path, moment(1))
    file = save_checkpoint(tmp_path, moment(2)) / name
    content = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    elif damage == "truncate":
        file.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)
    warnings: list[str] = []
    restored = load_latest(tmp_path, warnings.append)
    assert restored is not None
    assert restored.step == 1
    assert len(warnings) == 1
    assert "step-2" in warnings[0]


def test_a_damaged_one_no_longer_counts_among_the_newest(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, moment(5))
    (save_checkpoint(tmp_path, moment(9)) / "random.pt").unlink()
    assert load_latest(tmp_path, lambda text: None) is not None
    save_checkpoint(tmp_path, moment(6))
    prune(tmp_path, keep=1, best_step=None)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-6"]
    assert (tmp_path / "damaged-step-9").is_dir()


def test_with_none_whole_the_run_does_not_begin_again_in_silence(tmp_path: Path) -> None:
    (save_checkpoint(tmp_path, moment(9)) / "random.pt").unlink()
    with pytest.raises(RadcapError, match=r"run\.fresh=true"):
        load_latest(tmp_path, lambda text: None)
    assert [path.name for path in tmp_path.iterdir()] == ["step-9"]


def test_what_is_not_a_checkpoint_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "step-2.bak").mkdir()
    (tmp_path / "step-notes.txt").write_text("mine")
    for step in (3, 4):
        save_checkpoint(tmp_path, moment(step))
    prune(tmp_path, keep=1, best_step=None)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step-2.bak", "step-4", "step-notes.txt"]


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    assert load_latest(tmp_path / "none", pytest.fail) is None


def test_a_write_that_fails_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, moment(1))

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RadcapError, match=r"step-2: .*No space left"):
        save_checkpoint(tmp_path, moment(2))
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


def test_the_first_save_of_all_may_fail_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object, file: IO[bytes]) -> None:
        try:
            raise OSError(28, "No space left on device")
        finally:  # as torch does
            raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 1 vs 2")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RadcapError, match="step-2: No space left on device; there is no"):
        save_checkpoint(tmp_path, moment(2))
    assert list(tmp_path.iterdir()) == []


def test_prune_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8, 10):
        save_checkpoint(tmp_path, moment(step))
    (tmp_path / ".step-12.partial").mkdir()
    prune(tmp_path, keep=2, best_step=4)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-4", "step-8", "step-10"]
    assert not list(tmp_path.glob(".*"))


def test_a_kill_in_the_middle_of_a_deletion_leaves_no_half_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, moment(step))

    def killed(path: Path) -> None:
        (path / "optimizer.pt").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            prune(tmp_path, keep=1, best_step=None)
    assert [load_checkpoint(path).step for path in list_checkpoints(tmp_path)] == [2]
    prune(tmp_path, keep=1, best_step=None)
    assert [path.name for path in tmp_path.iterdir()] == ["step-2"]


def test_one_that_cannot_be_deleted_does_not_keep_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, moment(step))
    real = shutil.rmtree

    def busy(path: Path) -> None:
        if "step-1" in path.name:
            raise OSError(16, "Device or resource busy")
        real(path)

    monkeypatch.setattr(shutil, "rmtree", busy)
    with pytest.raises(OSError, match="busy"):
        prune(tmp_path, keep=1, best_step=None)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-3"]


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    """A checkpoint whose file would run code on load is refused, though its manifest agrees."""
    path = save_checkpoint(tmp_path, moment(1))

    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.write_text, (tmp_path / "owned", "x"))

    (path / "optimizer.pt").write_bytes(pickle.dumps(Hostile(), protocol=2))
    manifest = json.loads((path / "manifest.json").read_text())
    content = (path / "optimizer.pt").read_bytes()
    manifest["optimizer.pt"] = {
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="not a checkpoint"):
        load_checkpoint(path)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("files", [False, True])
def test_where_folders_cannot_be_renamed_checkpoints_are_whole_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: bool
) -> None:
    refuse_renames(monkeypatch, files=files)
    for step in (1, 2, 3):
        path = save_checkpoint(tmp_path, moment(step))
    again = save_checkpoint(tmp_path, moment(3))
    assert again == path and load_checkpoint(path).step == 3
    (path / "optimizer.pt").write_bytes(b"damaged")
    said: list[str] = []
    found = load_latest(tmp_path, said.append)
    assert found is not None and found.step == 2
    assert len(said) == 1 and "step-3 is damaged" in said[0]
    assert (tmp_path / "damaged-step-3").is_dir()
    prune(tmp_path, keep=1, best_step=None)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged-step-3", "step-2"]


@pytest.mark.parametrize("at", range(1, 6))
def test_a_kill_between_two_files_loses_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Where folders cannot be renamed: what was written is put together by the next start."""
    refuse_renames(monkeypatch)
    save_checkpoint(tmp_path, moment(1))
    rename, left = os.rename, at

    class Killed(BaseException):
        pass

    def killed(source: str, target: str) -> None:
        nonlocal left
        if Path(source).is_file():
            left -= 1
            if left == 0:
                raise Killed
        rename(source, target)

    with monkeypatch.context() as dying:
        dying.setattr(os, "rename", killed)
        with pytest.raises(Killed):
            save_checkpoint(tmp_path, moment(2))
    said: list[str] = []
    looked = load_latest(tmp_path, said.append, is_ours=False)
    assert looked is not None and looked.step == 1  # whoever looks in between changes nothing
    found = load_latest(tmp_path, said.append)
    assert found is not None and found.step == 2
    prune(tmp_path, keep=2, best_step=None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-1", "step-2"]
