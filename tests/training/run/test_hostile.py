"""A run folder that somebody else has prepared: no code of theirs, nothing written outside."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml
from bounds import bounded
from command_line import metrics, train
from files.test_mappings import LAUGHS
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.summary.writer.record_writer import RecordWriter

import radcap.train
from radcap.config.compose import compose, from_yaml, to_yaml
from radcap.errors import ConfigError, RadcapError
from radcap.files.durable import DurableFile
from radcap.host.console import say
from radcap.training.log.curves import RunLog
from radcap.training.run.checkpoint import (
    Checkpoint,
    best_step,
    list_checkpoints,
    load_checkpoint,
    load_latest,
    prune,
    save_checkpoint,
)
from radcap.training.run.folder import RunFolder
from radcap.training.run.mirror import Mirror


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
        {"position": {"batch": 20}},
        {"position": {"epoch": -1, "batch": 0}},
        {"position": {"epoch": "0", "batch": 0}},
        {"position": {"epoch": 1.5, "batch": 0}},
        {"position": {"epoch": True, "batch": 0}},
        {"position": {"epoch": None, "batch": 0}},
        {"position": {"epoch": 10**20, "batch": 0}},
        {"position": {"epoch": 0, "batch": -1}},
        {"position": {"epoch": 0, "batch": 0, "order": 5}},
        {"position": {"epoch": 0, "batch": 0, "revision": "x" * 10_000}},
        {"threads": 10**9},
        {"threads": 0},
        {"seconds": {"train": "long"}},
        {"counts": {"images": None}},
        {"counts": {"skipped": [3]}},
        {"counts": {"images": -1}},
        {"counts": {"images": True}},
        {"seconds": {"train": 1e300}},
        {"best": {"step": None}},
        {"best": {"step": 5, "val_loss": "low"}},
        {"best": {"step": 5}},
        {"best": {"step": 5, "val_loss": True}},
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


CHECKPOINT_FILES = ["manifest.json", "model.safetensors", "optimizer.pt"]
CHECKPOINT_FILES += ["progress.json", "random.pt"]


@pytest.mark.parametrize("name", ["manifest.json", "progress.json"])
@pytest.mark.parametrize(
    "content",
    ["[" * 200_000, '{"a":' * 100_000, "[1]", "", "\xff", '{"step": 1' + "0" * 5_000 + "}"],
    ids=["deep", "deep objects", "list", "empty", "bytes", "digits"],
)
def test_damaged_notes_of_a_checkpoint_are_told_in_a_line(
    tmp_path: Path, name: str, content: str
) -> None:
    path = save_checkpoint(tmp_path, moment(5))
    (path / name).write_text(content, encoding="latin-1")
    if name != "manifest.json":
        sign(path)
    with bounded(200), pytest.raises(ValueError, match=r"step-5 is ") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    with bounded(200):
        assert best_step(path) is None


@pytest.mark.parametrize("name", CHECKPOINT_FILES)
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_in_a_checkpoint_is_not_waited_for(tmp_path: Path, name: str, kind: str) -> None:
    path = save_checkpoint(tmp_path, moment(5))
    (path / name).unlink()
    if kind == "pipe":
        os.mkfifo(path / name)
    else:
        (path / name).symlink_to("/dev/zero")
    with bounded(200):
        with pytest.raises(ValueError, match=f"damaged: .*{name}.*neither a file nor a folder"):
            load_checkpoint(path)
        best_step(path)
        told: list[str] = []
        with pytest.raises(RadcapError, match=r"no checkpoint in .* can be read"):
            load_latest(tmp_path, told.append)
    assert len(told) == 1


def test_moments_that_claim_more_than_they_hold_are_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, moment(5))
    claim = {"exp_avg": torch.zeros(1, dtype=torch.float64).expand(10**6, 10**6)}
    torch.save({"state": {0: claim}, "param_groups": []}, path / "optimizer.pt")
    sign(path)
    with bounded(200), pytest.raises(ValueError, match="more numbers than the file holds"):
        load_checkpoint(path)
    torch.save([1, 2], path / "optimizer.pt")
    sign(path)
    with pytest.raises(ValueError, match="holds no names and values"):
        load_checkpoint(path)


HOSTILE_RUNS: dict[str, tuple[str, str, str]] = {
    "laughs": ("config.yaml", LAUGHS, "refers to another"),
    "deep": ("config.yaml", "[" * 20_000, "too deep"),
    "environment": ("config.yaml", "seed: ${oc.env:HF_TOKEN}", "interpolations"),
    "environment in a name": ("config.yaml", "'${oc.env:HF_TOKEN}': 1", "interpolations"),
    "environment in a list": ("config.yaml", "optimizer: {betas: ['${oc.env:X}']}", "interpola"),
    "digits": ("config.yaml", "seed: 1" + "0" * 390, "too large"),
    "unknown": ("config.yaml", "".join(f"x{n}: 1\n" for n in range(9_000)), "x0: no such option"),
    "long name": ("config.yaml", "x" * 900 + ": 1", "no such option"),
    "wide": ("config.yaml", "model: {embed_dim: 1000000000, num_heads: 7}", "no value is set"),
    "no text": ("config.yaml", "\xff", "no UTF-8 text"),
    "list": ("config.yaml", "[1]", "does not hold a configuration"),
    "deep versions": ("versions.json", "[" * 200_000, "versions.json is damaged"),
    "odd revision": ("versions.json", '{"data_revision": "../../x"}', "versions.json is damaged"),
    "list of revisions": ("versions.json", '{"data_revision": [1]}', "versions.json is damaged"),
    "deep summary": ("summary.json", '{"a":' * 100_000, "summary.json is damaged"),
}


@pytest.mark.parametrize("case", HOSTILE_RUNS)
def test_a_hostile_run_folder_is_refused_in_a_line(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    name, content, said = HOSTILE_RUNS[case]
    config = compose([f"run.dir={tmp_path}"])
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    (tmp_path / name).write_text(content, encoding="latin-1")
    with bounded(200), pytest.raises(RadcapError, match=said) as caught:
        RunFolder.look(config)
    assert "hf_secret" not in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("embed_dim: 1000000000", r"model\.embed_dim=1000000000: must be at most 65536"),
        ("batch_size: 1000000000", r"data\.batch_size=1000000000: must be at most 1e\+06"),
        ("val_rows: 1000000000", r"data\.phantom\.val_rows=1000000000: must be at most 1e\+06"),
        ("window_gb: 1.0e+308", r"data\.window_gb=1e\+308: must be at most 1e\+06"),
        ("max_epochs: 1.0e+308", r"trainer\.max_epochs=1e\+308: must be at most"),
        ("max_pixels: 1000000000000", r"data\.max_pixels=.*: must be at most 5e\+08"),
        ("lr: .nan", r"optimizer\.lr=nan: must be finite"),
        ("seed: 99999999999999999999", r"seed=99999999999999999999: must be at most"),
        ("eval_every: '" + "9" * 300 + "'", "is longer than"),
        ("max_length: 1.5", r"data\.max_length: Value '1.5'.* could not be converted to Integer"),
        ("eps: [5]", r"optimizer\.eps: "),
    ],
)
def test_numbers_of_a_stored_configuration_keep_to_their_range(change: str, said: str) -> None:
    text = to_yaml(compose(["data.revision=x"]))
    name = change.partition(":")[0]
    changed = re.sub(rf"(?m)^( *){name}: .*$", lambda found: found[1] + change, text)
    with bounded(200), pytest.raises(ConfigError, match=said) as caught:
        from_yaml(changed)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "name", ["config.yaml", "versions.json", "summary.json", ".lock", "metrics.jsonl"]
)
def test_a_pipe_in_a_run_folder_is_not_waited_for(tmp_path: Path, name: str) -> None:
    config = compose([f"run.dir={tmp_path}"])
    for file in ("config.yaml", "versions.json"):
        (tmp_path / file).write_text(to_yaml(config) if "yaml" in file else "{}")
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with bounded(200), pytest.raises(RadcapError, match=r"no file|neither a file nor a folder"):
        if name == "metrics.jsonl":
            RunLog(tmp_path, resume_step=3, tensorboard=False)
        RunFolder(config).close()


def test_pipes_of_tensorboards_names_and_new_curves_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "events.out.tfevents.1.x")
    with bounded(200), pytest.raises(RadcapError, match="neither a file nor a folder"):
        RunLog(tmp_path, resume_step=3, tensorboard=True)
    os.mkfifo(tmp_path / "more.jsonl")
    with bounded(200), pytest.raises(RadcapError, match="cannot be written"):
        DurableFile(tmp_path / "more.jsonl")


@pytest.mark.parametrize("length", [3, 10**6, 2**40, 2**62])
def test_damaged_events_of_tensorboard_are_told_in_a_line(tmp_path: Path, length: int) -> None:
    record = io.BytesIO()
    writer = RecordWriter(record)
    writer.write(b"\xff\xff\xff")
    whole = record.getvalue()
    head = struct.pack("<Q", length)
    forged = head + struct.pack("<I", masked_crc32c(head)) + whole[12:]
    (tmp_path / "events.out.tfevents.1.x").write_bytes(forged)
    with bounded(300):
        try:
            RunLog(tmp_path, resume_step=3, tensorboard=False).close()
        except RadcapError as error:
            assert "tfevents.1.x is damaged" in str(error)


def test_curves_that_no_run_has_written_are_left_out(tmp_path: Path) -> None:
    good = json.dumps({"step": 1, "loss": 2.5}).encode()
    bad = [b"[" * 100_000, b'{"step": "1"}', b'{"step": 1' + b"0" * 50 + b"}", b"x" * 200_000]
    for name in ("metrics.jsonl", "val_metrics.jsonl"):
        (tmp_path / name).write_bytes(b"\n".join([*bad, good, b'{"step": 9}', b'{"st']))
    with bounded(200):
        RunLog(tmp_path, resume_step=3, tensorboard=False).close()
    for name in ("metrics.jsonl", "val_metrics.jsonl"):
        assert (tmp_path / name).read_bytes() == good + b"\n"


@pytest.mark.parametrize("loss", ['"x"', "null", "[1]", "1e999", "true"])
def test_a_finished_run_whose_loss_is_none_says_so(
    tmp_path: Path, loss: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"run.dir={tmp_path}", "runtime=cpu"]
    (tmp_path / "config.yaml").write_text(to_yaml(compose(words)))
    (tmp_path / "summary.json").write_text(f'{{"finished": true, "steps": 20, "val_loss": {loss}}}')
    assert radcap.train.main(words) == 0
    assert "is finished: 20 steps, validation loss unknown\n" in capsys.readouterr().out


def test_words_of_others_do_not_steer_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_checkpoint(tmp_path, moment(5))
    progress = {"step": 5, "owed": "\x1b]0;evil\x07\u202e\x9b31m"}
    (path / "progress.json").write_text(json.dumps(progress))
    sign(path)
    with pytest.raises(RadcapError):
        load_latest(tmp_path, say)
    told = capsys.readouterr().out
    assert "\\x1b]0;evil\\x07\\u202e\\x9b31m" in told
    assert told.isprintable() or set(told) - {"\n"} == {c for c in told if c.isprintable()}


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
    there.mkdir()
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
