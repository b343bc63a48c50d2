"""Whether a TPU can be used here: looked for without opening it or loading torch_xla."""

from __future__ import annotations

import http.client
import importlib.util
import os
import urllib.request
from pathlib import Path

from radcap.errors import ConfigError, RadcapError

INSTALL = "pip install 'radcap[tpu]'"

# PCI ids: Google, and its TPU v2/v3, v4, v5e, v5p, v6e, 7x (the list of torch_xla 2.9). Google's
# network card has the same vendor.
_VENDOR = "0x1ae0"
_CHIPS = {"0x0027", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076"}
_METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/attributes"
_METADATA_TIMEOUT_S = 2.0

_PJRT_NAMES = {"tpu": "TPU", "xla_cpu": "CPU"}


def tpu_is_usable(root: Path = Path("/")) -> bool:
    """Whether chip, driver file, libtpu and torch_xla are all here."""
    return has_torch_xla() and has_libtpu() and num_chips(root) > 0 and has_device_file(root)


def num_chips(root: Path = Path("/")) -> int:
    """TPU chips on this machine's PCI bus."""
    count = 0
    for vendor in root.glob("sys/bus/pci/devices/*/vendor"):
        if vendor.read_text(encoding="utf-8").strip() == _VENDOR:
            count += vendor.with_name("device").read_text(encoding="utf-8").strip() in _CHIPS
    return count


def tpu_hosts(metadata: str = _METADATA) -> tuple[int, int]:
    """This host's number and how many hosts share the TPU slice: (0, 1) for one host.

    Taken from the environment where it says so (TPU_WORKER_HOSTNAMES and TPU_WORKER_ID, as in
    Google's containers), else from the machine's metadata, as on a TPU VM.

    Args:
        metadata: address of the attributes of Google's metadata server.

    Raises:
        RadcapError: there are several hosts, and nothing says which of them this is.
    """
    names = os.environ.get("TPU_WORKER_HOSTNAMES")
    if names is None:
        names = _attribute(metadata, "worker-network-endpoints")
    hosts = len(names.split(",")) if names else 1
    if hosts == 1:
        return 0, 1
    number = os.environ.get("CLOUD_TPU_TASK_ID", os.environ.get("TPU_WORKER_ID"))
    if number is None:
        number = _attribute(metadata, "agent-worker-number")
    if number is None or not number.isdecimal():
        raise RadcapError(
            f"runtime=tpu: the slice has {hosts} hosts, and nothing says which of them this is; "
            f"set TPU_WORKER_ID to 0 ... {hosts - 1}"
        )
    return int(number), hosts


def _attribute(metadata: str, name: str) -> str | None:
    """An attribute of this machine; None where there is no such server or attribute."""
    request = urllib.request.Request(f"{metadata}/{name}", headers={"Metadata-Flavor": "Google"})
    # Whatever proxy there is for the world outside, the server belongs to the machine.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=_METADATA_TIMEOUT_S) as answer:
            return answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):  # no such name, no answer, no such attribute
        return None


def prepare_environment(name: str, devices: int | None, root: Path = Path("/")) -> None:
    """Check what can be checked beforehand and set what torch_xla reads when it is imported.

    Args:
        name: tpu or xla_cpu.
        devices: how many; None for all, or as CPU_NUM_DEVICES says.
        root: of the file system looked at.

    Raises:
        RadcapError: torch_xla, libtpu or the chip is missing.
        ConfigError: the environment contradicts the configuration.
    """
    if not has_torch_xla():
        raise RadcapError(f"runtime={name} needs torch_xla, which is not installed: {INSTALL}")
    wanted = _PJRT_NAMES[name]
    found = os.environ.setdefault("PJRT_DEVICE", wanted)
    if found != wanted:
        raise ConfigError(
            f"runtime={name} needs PJRT_DEVICE={wanted}, but the environment says "
            f"PJRT_DEVICE={found}; unset it"
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's notes are not for radcap's users
    if name == "tpu":
        _check_tpu(root)
    else:
        _set_virtual_devices(devices)


def _check_tpu(root: Path) -> None:
    if not has_libtpu():
        raise RadcapError(f"runtime=tpu needs libtpu, which is not installed: {INSTALL}")
    if not num_chips(root):
        raise RadcapError(
            "runtime=tpu: this machine has no TPU chip; use runtime=auto, or runtime=xla_cpu for "
            "the same program on virtual CPU devices"
        )
    if not has_device_file(root):
        raise RadcapError(
            "runtime=tpu: the chip has no /dev/accel* or /dev/vfio file; in a container, start it "
            "with --privileged"
        )


def _set_virtual_devices(devices: int | None) -> None:
    count = os.environ.get("CPU_NUM_DEVICES")
    if devices is None:
        devices = 1 if count is None else _positive(count)
    elif count is not None and _positive(count) != devices:
        raise ConfigError(
            f"runtime.devices={devices}, but the environment says CPU_NUM_DEVICES={count}; unset it"
        )
    os.environ["CPU_NUM_DEVICES"] = str(devices)


def _positive(count: str) -> int:
    if not count.isdecimal() or int(count) < 1:
        raise ConfigError(f"CPU_NUM_DEVICES={count} is not a number of devices; unset it")
    return int(count)


def has_torch_xla() -> bool:
    """Whether torch_xla is installed; it is not loaded."""
    return importlib.util.find_spec("torch_xla") is not None


def has_libtpu() -> bool:
    """Whether the TPU's compiler and driver is installed, or named by TPU_LIBRARY_PATH."""
    return "TPU_LIBRARY_PATH" in os.environ or importlib.util.find_spec("libtpu") is not None


def has_device_file(root: Path = Path("/")) -> bool:
    """Whether the kernel shows a chip to this machine or container."""
    return bool(device_files(root))


def device_files(root: Path = Path("/")) -> list[Path]:
    """The files by which the chips of this machine or container are opened."""
    return sorted([*root.glob("dev/accel*"), *root.glob("dev/vfio/[0-9]*")])
