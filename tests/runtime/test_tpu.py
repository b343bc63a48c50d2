"""Whether a TPU is here is told in words and without opening it."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from watched import watch

from radcap.errors import ConfigError, RadcapError
from radcap.runtime.tpu import num_chips, prepare_environment, tpu_is_usable


def machine(root: Path, *, chips: int = 0, files: tuple[str, ...] = ()) -> Path:
    """A file system with Google's network card, some TPU v3 chips and device files."""
    cards = [("0x1ae0", "0x0042"), ("0x8086", "0x0027")] + [("0x1ae0", "0x0027")] * chips
    for i, (vendor, device) in enumerate(cards):
        folder = root / f"sys/bus/pci/devices/0000:00:{i:02}.0"
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(vendor + "\n")
        (folder / "device").write_text(device + "\n")
    for file in files:
        (root / "dev" / file).parent.mkdir(parents=True, exist_ok=True)
        (root / "dev" / file).touch()
    return root


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without the variables that are read and set; what a test leaves is taken back."""
    for name in ("PJRT_DEVICE", "CPU_NUM_DEVICES", "TF_CPP_MIN_LOG_LEVEL", "TPU_LIBRARY_PATH"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture
def installed(environment: pytest.MonkeyPatch) -> set[str]:
    """The packages that are there; a test takes some away."""
    found = {"torch_xla", "libtpu"}
    environment.setattr(importlib.util, "find_spec", lambda name: name if name in found else None)
    return found


@pytest.mark.parametrize("file", ["accel0", "vfio/0"])
def test_a_tpu_is_a_chip_with_a_file_and_both_libraries(
    tmp_path: Path, installed: set[str], file: str
) -> None:
    whole = machine(tmp_path / "whole", chips=4, files=(file,))
    assert num_chips(whole) == 4
    assert tpu_is_usable(whole)
    assert not tpu_is_usable(machine(tmp_path / "bare", files=(file,)))
    assert not tpu_is_usable(machine(tmp_path / "container", chips=4, files=("vfio/vfio",)))
    for package in ("torch_xla", "libtpu"):
        installed.remove(package)
        assert not tpu_is_usable(whole)
        installed.add(package)
    prepare_environment("tpu", None, whole)
    assert os.environ["PJRT_DEVICE"] == "TPU"


@pytest.mark.parametrize(
    ("missing", "chips", "says"),
    [
        ("torch_xla", 4, r"needs torch_xla.*pip install 'radcap\[tpu\]'"),
        ("libtpu", 4, r"needs libtpu.*pip install 'radcap\[tpu\]'"),
        (None, 0, "no TPU chip; use runtime=auto"),
        (None, 4, "no /dev/accel.*--privileged"),
    ],
)
def test_what_is_missing_is_named(
    tmp_path: Path, installed: set[str], missing: str | None, chips: int, says: str
) -> None:
    installed.discard(missing or "")
    with pytest.raises(RadcapError, match=says) as caught:
        prepare_environment("tpu", None, machine(tmp_path, chips=chips))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "devices", "says"),
    [
        ({"PJRT_DEVICE": "nonsense"}, None, "PJRT_DEVICE=nonsense; unset it"),
        ({"CPU_NUM_DEVICES": "4"}, 8, "runtime.devices=8.*CPU_NUM_DEVICES=4"),
        ({"CPU_NUM_DEVICES": "many"}, None, "CPU_NUM_DEVICES=many is not a number"),
        ({"CPU_NUM_DEVICES": "0"}, 2, "CPU_NUM_DEVICES=0 is not a number"),
    ],
)
def test_an_environment_that_contradicts_is_refused(
    installed: set[str],
    environment: pytest.MonkeyPatch,
    variables: dict[str, str],
    devices: int | None,
    says: str,
) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    with pytest.raises(ConfigError, match=says):
        prepare_environment("xla_cpu", devices)


@pytest.mark.parametrize(
    ("variable", "devices", "count"), [(None, None, "1"), (None, 8, "8"), ("4", None, "4")]
)
def test_virtual_devices_are_counted_before_torch_xla_is_loaded(
    installed: set[str],
    environment: pytest.MonkeyPatch,
    variable: str | None,
    devices: int | None,
    count: str,
) -> None:
    if variable:
        environment.setenv("CPU_NUM_DEVICES", variable)
    prepare_environment("xla_cpu", devices)
    assert (os.environ["PJRT_DEVICE"], os.environ["CPU_NUM_DEVICES"]) == ("CPU", count)


def test_no_tpu_is_told_before_torch_xla_is_loaded(tmp_path: Path) -> None:
    """On a machine without a chip, and nobody is asked for one."""
    if tpu_is_usable():
        pytest.skip("there is a TPU here")
    program = (
        "from radcap.config.schema import RuntimeConfig\n"
        "from radcap.errors import RadcapError\n"
        "from radcap.runtime.select import open_runtime\n"
        "try:\n"
        "    open_runtime(RuntimeConfig('tpu', None, 'fp32', None, 2, False))\n"
        "except RadcapError as error:\n"
        "    print(error)\n"
    )
    watched = watch(tmp_path, "-c", program)
    assert watched.done.stdout.startswith("runtime=tpu"), watched.done.stderr
    assert "torch_xla" not in watched.modules and not watched.connections
