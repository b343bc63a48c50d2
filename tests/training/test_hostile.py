"""A run folder that somebody else has prepared: no code of theirs, nothing written outside."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml
from command_line import metrics, train

from radcap.compose import compose, from_yaml, to_yaml
from radcap.errors import ConfigError, RadcapError
from radcap.training.checkpoint import (
    Checkpoint,
    list_checkpoints,
    load_checkpoint,
    prune,
    save_checkpoint,
)
from radcap.training.durable import DurableFile
from radcap.training.folder import RunFolder
from radcap.training.log import RunLog
from radcap.training.mirror import Mirror


def moment(step: int) -> Checkpoint:
    progress = {"position": {"epoch": 0, "batch": step}, "threads": 2, "seconds": {"train": 1.5}}
    return Checkpoint(step, {"w": torch.ones(2)}, {"state": {}}, {}, progress)


def sign(checkpoint: Path) -> None:
    """Let the manifest agree with whatever the files hold."""
    manifest = {}
    for file in sorted(checkpoint.iterdir()):
        if file.name != "manifest.json":
            content = file.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            manifest[file.name] = {"bytes": len(content), "sha256": digest}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "forged",
    [
        {"step": "5"},
        {"step": 7},
        {"step": -5},
        {"position": [1]},
        {"position": {"epoch": 0, "batch": "many"}},
        {"threads": 10**9},
        {"threads": 0},
        {"seconds": {"train": "long"}},
        {"counts": {"images": None}},
        {"counts": {"skipped": [3]}},
        {"best": {"step": None}},
        {"best": {"step": 5, "val_loss": "low"}},
        {"best": {"step": 5}},
        {"seconds": {"skipped": "x"}},
        {"owed": 1},
        {"schedule_steps": 1.5},
        {"schedule_steps": 0},
        {"processes": True},
    ],
)
def test_progress_that_no_run_has_written_is_refused(
    tmp_path: Path, forged: dict[str, Any]
) -> None:
    path = save_checkpoint(tmp_path, moment(5))
    progress = json.loads((path / "progress.json").read_text()) | forged
    (path / "progress.json").write_text(json.dumps(progress))
    sign(path)
    (name,) = forged
    with pytest.raises(ValueError, match=rf"step-5 is not a checkpoint of radcap: .*{name}"):
        load_checkpoint(path)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "random.pt"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04.", b"\xff" * 100, b"{}" * 50])
def test_other_files_under_a_true_manifest_are_refused(
    tmp_path: Path, name: str, content: bytes
) -> None:
    path = save_checkpoint(tmp_path, moment(5))
    (path / name).write_bytes(content)
    sign(path)
    with pytest.raises(ValueError, match="step-5 is not a checkpoint of radcap"):
        load_checkpoint(path)


def test_no_link_leads_a_write_out_of_the_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(to_yaml(compose([f"run.dir={run}"])))
    for name in (".config.yaml.partial", ".versions.json.partial"):
        (run / name).symlink_to(outside / "precious")
    folder = RunFolder(compose([f"run.dir={run}"]))
    folder.accept()
    folder.close()
    for name in ("metrics.jsonl", "val_metrics.jsonl", "data_health.jsonl"):
        (run / name).symlink_to(outside / "new")
        with pytest.raises(RadcapError, match=f"{name} cannot be written"):
            RunLog(run, resume_step=0, tensorboard=False)
        (run / name).unlink()
    (run / ".lock").unlink()
    (run / ".lock").symlink_to(outside / "precious")
    with pytest.raises(RadcapError, match="cannot be used"):
        RunFolder(compose([f"run.dir={run}"]))
    (run / ".lock").unlink()
    for name in ("checkpoints", "profile"):
        (run / name).symlink_to(outside)
        folder = RunFolder(compose([f"run.dir={run}"]))
        with pytest.raises(ConfigError, match=f"{name} is a link"):
            folder.accept()
        folder.close()
        (run / name).unlink()
    with pytest.raises(RadcapError, match="cannot be written"):
        (run / "more").symlink_to(outside / "precious")
        DurableFile(run / "more")
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"precious": "mine"}


def test_a_linked_checkpoint_is_unlinked_not_emptied(tmp_path: Path) -> None:
    outside = save_checkpoint(tmp_path / "outside", moment(3))
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "step-3").symlink_to(outside)
    (folder / ".step-9.partial").symlink_to(outside)
    save_checkpoint(folder, moment(9))
    prune(folder, keep=1, best_step=None)
    assert [path.name for path in folder.iterdir()] == ["step-9"]
    assert load_checkpoint(list_checkpoints(tmp_path / "outside")[0]).step == 3


def test_a_saved_configuration_reads_nothing_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    text = to_yaml(compose([]))
    for hostile in ("${oc.env:HF_TOKEN}", "!!python/object/apply:os.system [true]"):
        with pytest.raises((ConfigError, yaml.YAMLError)) as caught:
            from_yaml(text.replace("name: default", f"name: {hostile}", 1))
        assert "hf_secret" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "ftp://me:secret@host/runs",
        "simplecache::ftp://me:secret@host/runs",
        "gs://bucket/runs?token=secret",
        "ftp://[host/runs",
    ],
)
def test_no_password_in_an_address(address: str) -> None:
    with pytest.raises(ConfigError, match=r"run\.mirror") as caught:
        compose([f"run.mirror='{address}'"])
    assert "secret" not in str(caught.value)


def test_a_mirror_replaces_no_hidden_file(tmp_path: Path) -> None:
    there = tmp_path / "there"
    save_checkpoint(there / "checkpoints", moment(4))
    (there / ".lock").write_text("forged")
    (there / "metrics.jsonl").write_text("{}\n")
    here = tmp_path / "here"
    Mirror(f"file://{there}").restore(here)
    assert sorted(path.name for path in here.iterdir()) == ["checkpoints", "metrics.jsonl"]


def forge_shape(checkpoint: Path) -> None:
    weights = safetensors.torch.load_file(checkpoint / "model.safetensors")
    weights["fc_out.bias"] = weights["fc_out.bias"][:7].clone()
    safetensors.torch.save_file(weights, checkpoint / "model.safetensors")


def forge_optimizer(checkpoint: Path) -> None:
    state = torch.load(checkpoint / "optimizer.pt")
    for entry in state["state"].values():
        entry["exp_avg"] = torch.zeros(1, 2, 3)
    torch.save(state, checkpoint / "optimizer.pt")


def forge_random(checkpoint: Path) -> None:
    torch.save({"cpu": torch.zeros(3)}, checkpoint / "random.pt")


def test_a_checkpoint_of_another_model_is_told_in_one_line(tmp_path: Path, cache: Path) -> None:
    words = ("+experiment=smoke", "runtime=cpu", "trainer.max_steps=4", "trainer.eval_every=null")
    words = (*words, "trainer.caption_rows=0", "trainer.samples=0")
    assert train(tmp_path, cache, *words, "debug.limit=2").returncode == 0
    run = tmp_path / "runs" / "smoke"
    (checkpoint,) = list_checkpoints(run / "checkpoints")
    kept = {file.name: file.read_bytes() for file in checkpoint.iterdir()}
    forgeries: list[tuple[Callable[[Path], None], str]] = [
        (forge_shape, "fc_out.bias [7] instead of"),
        (forge_optimizer, "step-2 does not fit this run"),
        (forge_random, "step-2 does not fit this run"),
    ]
    for forge, said in forgeries:
        forge(checkpoint)
        sign(checkpoint)
        done = train(tmp_path, cache, *words)
        assert done.returncode == 1 and said in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
        for name, content in kept.items():
            (checkpoint / name).write_bytes(content)
    assert len(metrics(run)) == 2  # nothing was trained from a forgery
    assert train(tmp_path, cache, *words).returncode == 0
