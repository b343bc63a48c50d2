"""Chips, their lock and their users, on made-up file systems."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from radcap.config.compose import compose
from radcap.diagnosis import devices
from radcap.diagnosis.check import Check


def only(checks: Iterator[Check]) -> Check:
    (check,) = checks
    return check


@pytest.fixture
def tpu_vm(tmp_path: Path) -> Path:
    """A host with four v3 chips."""
    for number in range(4):
        slot = tmp_path / f"sys/bus/pci/devices/0000:00:0{number}.0"
        slot.mkdir(parents=True)
        (slot / "vendor").write_text("0x1ae0\n")
        (slot / "device").write_text("0x0027\n")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/accel0").touch()
    (tmp_path / "tmp").mkdir()
    return tmp_path


def test_a_machine_without_a_chip_is_fine_unless_one_is_asked_for(tmp_path: Path) -> None:
    assert only(devices.tpu(compose([]), tmp_path)).status == "ok"
    asked = only(devices.tpu(compose(["runtime=tpu"]), tmp_path))
    assert asked.status == "fail" and "runtime=xla_cpu" in asked.fix


def test_a_chip_is_ready(tpu_vm: Path) -> None:
    chip, use = devices.tpu(compose([]), tpu_vm)
    assert chip.status == "ok" and "4 chips" in chip.found
    assert use.status == "ok"


def test_a_chip_without_its_driver_file_fails(tpu_vm: Path) -> None:
    (tpu_vm / "dev/accel0").unlink()
    check = only(devices.tpu(compose([]), tpu_vm))
    assert check.status == "fail" and "--privileged" in check.fix


def test_a_chip_that_this_user_may_not_open_fails(
    tpu_vm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may do all
    check = only(devices.tpu(compose([]), tpu_vm))
    assert check.status == "fail" and "no permission for" in check.found


def test_a_chip_without_torch_xla_fails_though_the_runtime_is_auto(
    tpu_vm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "has_torch_xla", lambda: False)
    check = only(devices.tpu(compose([]), tpu_vm))
    assert check.status == "fail" and "radcap[tpu]" in check.fix


@pytest.mark.parametrize("name", ["cpu", "xla_cpu", "cuda"])
def test_a_chip_that_the_run_leaves_alone_fails_nothing(
    tpu_vm: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tpu_vm / "dev/accel0").unlink()
    monkeypatch.setattr(devices, "has_torch_xla", lambda: False)
    check = only(devices.tpu(compose([f"runtime={name}"]), tpu_vm))
    assert check.status == "ok" and "leaves alone" in check.found


def test_a_lock_that_is_held_is_told_and_one_left_behind_is_not(tpu_vm: Path) -> None:
    file = tpu_vm / "tmp/libtpu_lockfile"
    file.touch()
    assert list(devices.tpu(compose([]), tpu_vm))[1].status == "ok"
    with file.open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        held = list(devices.tpu(compose([]), tpu_vm))[1]
    assert held.status == "fail" and "lsof" in held.fix


def test_the_process_that_holds_a_chip_is_named(tpu_vm: Path) -> None:
    for pid, target in (("4242", "/dev/accel0"), ("17", "/dev/vfio/0"), ("18", "/dev/null")):
        (tpu_vm / f"proc/{pid}/fd").mkdir(parents=True)
        (tpu_vm / f"proc/{pid}/fd/3").symlink_to(target)
    (tpu_vm / f"proc/{os.getpid()}/fd").mkdir(parents=True)
    (tpu_vm / f"proc/{os.getpid()}/fd/3").symlink_to("/dev/accel0")
    used = list(devices.tpu(compose([]), tpu_vm))[1]
    assert used.status == "fail" and used.fix == "kill 17 4242"


def test_gpus_that_torch_cannot_use_are_told(tmp_path: Path) -> None:
    assert only(devices.cuda(compose([]), tmp_path)).status == "ok"
    assert only(devices.cuda(compose(["runtime=cuda"]), tmp_path)).status == "fail"
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU that torch can use")
    assert only(devices.cuda(compose([]), tmp_path)).status == "warn"
    assert only(devices.cuda(compose(["runtime=cuda"]), tmp_path)).status == "fail"


def test_an_environment_for_another_device_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PJRT_DEVICE", "TPU")
    check = only(devices.runtime(compose(["runtime=xla_cpu"])))
    assert check.status == "fail" and check.fix == "unset PJRT_DEVICE"
    assert only(devices.runtime(compose(["runtime=cpu"]))).status == "ok"


def test_the_full_model_on_a_cpu_is_a_warning() -> None:
    assert only(devices.runtime(compose(["runtime=cpu", "model=card"]))).status == "warn"
