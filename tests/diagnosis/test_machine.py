"""Memory, limits, the clock, folders: each judged on a machine that lacks it."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from radcap.config.compose import compose
from radcap.diagnosis import dataset, machine, software, storage
from radcap.diagnosis.check import Check
from radcap.host.requirements import requirements
from radcap.training.run.folder import RunFolder


def only(checks: Iterator[Check]) -> Check:
    (check,) = checks
    return check


def host(
    root: Path, available_kb: int, limit: str | None = None, used: int = 0, cached: int = 0
) -> Path:
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:   {available_kb} kB\n")
    if limit is not None:
        (root / "sys/fs/cgroup").mkdir(parents=True)
        (root / "sys/fs/cgroup/memory.max").write_text(f"{limit}\n")
        (root / "sys/fs/cgroup/memory.current").write_text(f"{used}\n")
        (root / "sys/fs/cgroup/memory.stat").write_text(f"anon 7\ninactive_file {cached}\n")
    return root


@pytest.mark.parametrize(
    ("available_kb", "limit", "used", "status", "found"),
    [
        (64_000_000, None, 0, "ok", "65.5 GB"),
        (2_000_000, None, 0, "warn", "2.0 GB"),
        (64_000_000, "max", 0, "ok", "65.5 GB"),
        (64_000_000, "5000000000", 4_000_000_000, "warn", "1.0 GB"),
    ],
)
def test_memory_is_the_machines_or_the_containers(
    tmp_path: Path, available_kb: int, limit: str | None, used: int, status: str, found: str
) -> None:
    check = only(machine.memory(compose([]), host(tmp_path, available_kb, limit, used)))
    assert (check.status, check.found.split(" to spare")[0]) == (status, found)


def test_memory_of_a_container_that_holds_read_files_is_to_spare(tmp_path: Path) -> None:
    # 15 of 16 GB in use, 14 of them pages of files.
    root = host(tmp_path, 64_000_000, "16000000000", 15_000_000_000, 14_000_000_000)
    check = only(machine.memory(compose([]), root))
    assert check.status == "ok" and check.found.startswith("15.0 GB to spare")


def test_more_loaders_than_cores_is_a_warning() -> None:
    cores = len(os.sched_getaffinity(0))
    assert only(machine.cores(compose([f"data.workers={cores}"]))).status == "ok"
    assert only(machine.cores(compose([f"data.workers={cores + 1}"]))).status == "warn"


def test_few_open_files_is_a_warning_with_its_command() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        check = only(machine.open_files(compose([])))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert check.status == "warn" and check.fix.startswith("ulimit -n 1024")


def test_a_clock_before_the_installation_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(machine.clock(compose([]))).status == "ok"
    monkeypatch.setattr("time.time", lambda: 0.0)
    wrong = only(machine.clock(compose([])))
    assert wrong.status == "fail" and "1970-01-01" in wrong.found


def test_the_size_of_a_checkpoint_is_that_of_the_model(tmp_path: Path) -> None:
    config = compose(["model=card", f"run.dir={tmp_path / 'run'}"])
    check = only(storage.run_folder(config))
    # 49,566,298 parameters, float32 with two moments; two newest, the best, one being written.
    assert f"{(4 * 12 * 49_566_298 + 50e6) / 1e9:.1f} GB" in check.found
    assert not (tmp_path / "run").exists()


def test_a_folder_is_only_looked_at(tmp_path: Path) -> None:
    assert only(storage.run_folder(compose([f"run.dir={tmp_path}"]))).status == "ok"
    assert list(tmp_path.iterdir()) == []
    file = tmp_path / "file"
    file.touch()
    assert only(storage.run_folder(compose([f"run.dir={file}"]))).status == "fail"
    assert only(storage.run_folder(compose(["run.dir=/proc/1/run"]))).status == "fail"


def test_a_run_that_would_be_refused_fails(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    check = only(storage.run_folder(compose([f"run.dir={tmp_path}"])))
    assert check.status == "fail" and "holds no run" in check.found
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_unknown_mirror_fails(tmp_path: Path) -> None:
    assert list(storage.mirror(compose([]))) == []
    assert only(storage.mirror(compose(["run.mirror=nowhere://x"]))).status == "fail"
    assert only(storage.mirror(compose([f"run.mirror={tmp_path}"]))).status == "ok"
    assert list(tmp_path.iterdir()) == []  # the probe is gone again
    read_only = only(storage.mirror(compose(["run.mirror=/proc/1/mirror"])))
    assert read_only.status == "fail" and "cannot be written" in read_only.found


def test_a_run_that_is_there_is_looked_at_and_left_alone(tmp_path: Path) -> None:
    config = compose([f"run.dir={tmp_path / 'run'}"])
    folder = RunFolder(config)
    folder.accept()
    busy = only(storage.run_folder(config))
    assert busy.status == "fail" and f"process {os.getpid()}" in busy.found
    folder.close()
    (tmp_path / "run/.lock").write_text("4242")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    free = only(storage.run_folder(config))
    assert free.status == "ok" and "to be continued" in free.found
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert (tmp_path / "run/.lock").read_text() == "4242"


def test_encoder_weights_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert list(dataset.encoder_weights(compose([]))) == []
    wanted = compose(["model.encoder_weights=imagenet"])
    assert only(dataset.encoder_weights(wanted)).status == "warn"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/mobilenet_v3_small-047dcff4.pth").touch()
    assert only(dataset.encoder_weights(wanted)).status == "ok"
    missing = compose([f"model.encoder_weights={tmp_path / 'x.pt'}"])
    assert only(dataset.encoder_weights(missing)).status == "fail"


def test_pins_are_held_against_what_is_installed() -> None:
    from packaging.requirements import Requirement

    assert software.unmet(Requirement("torch==2.9.0")) is None
    assert software.unmet(Requirement("torch==1.0")) == "torch is 2.9.0, not ==1.0"
    assert software.unmet(Requirement("radcap-nothing>=1")) == "radcap-nothing is missing"
    needed, extras = requirements()
    assert "torch" in {entry.name for entry in needed}
    assert "tpu" in extras and "dev" not in extras
