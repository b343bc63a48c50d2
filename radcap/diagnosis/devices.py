"""The device that training would take, and who else has it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from radcap.config.schema import Config
from radcap.diagnosis.check import FAIL, OK, WARN, Check, gigabytes
from radcap.files.locks import holder, mark_of
from radcap.runtime.tpu import INSTALL, device_files, has_libtpu, has_torch_xla, num_chips

_ROOT = Path("/")

# libtpu takes this file's lock, and refuses where another user's process left the file behind.
_LOCKFILE = "tmp/libtpu_lockfile"


def tpu(config: Config, root: Path = _ROOT) -> Iterator[Check]:
    """Chips, driver, packages, and whether another process holds them."""
    chips, wanted = num_chips(root), config.runtime.name == "tpu"
    if not chips:
        fix = "runtime=auto, or runtime=xla_cpu for the TPU's program on a CPU" if wanted else ""
        yield Check("TPU", FAIL if wanted else OK, "no TPU chip on this machine", fix)
        return
    if config.runtime.name not in ("tpu", "auto"):
        yield Check("TPU", OK, f"{chips} chips, which runtime={config.runtime.name} leaves alone")
        return
    lacks = {
        "torch_xla": (has_torch_xla(), INSTALL),
        "libtpu": (has_libtpu(), INSTALL),
        "a device file": (bool(device_files(root)), "start the container with --privileged"),
    }
    found = f"{chips} chips"
    for name, (there, fix) in lacks.items():
        if not there:
            # runtime=auto would train on the CPU beside an idle TPU.
            yield Check("TPU", FAIL, f"{found}, but {name} is missing: it cannot be used", fix)
            return
    closed = [file for file in device_files(root) if not os.access(file, os.R_OK | os.W_OK)]
    if closed:
        fix = "sudo chmod a+rw /dev/accel* /dev/vfio/*, or run as root (docker run --user root)"
        yield Check("TPU", FAIL, f"{found}, but no permission for {closed[0]}", fix)
        return
    yield Check("TPU", OK, f"{found}, with torch_xla and libtpu")
    yield _lock(root)


def cuda(config: Config, root: Path = _ROOT) -> Iterator[Check]:
    """GPUs, as torch sees them."""
    wanted = config.runtime.name == "cuda"
    files = list(root.glob("dev/nvidia[0-9]*"))
    if not files:
        fix = "runtime=cpu, or runtime=auto" if wanted else ""
        yield Check("CUDA", FAIL if wanted else OK, "no NVIDIA GPU on this machine", fix)
        return
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda or "none"
        found = f"{len(files)} GPUs that torch cannot use (built for CUDA {built})"
        fix = "nvidia-smi shows the driver; update it, or give the container the GPUs (--gpus all)"
        yield Check("CUDA", FAIL if wanted else WARN, found, fix)
        return
    free, total = torch.cuda.mem_get_info()
    found = (
        f"{torch.cuda.device_count()} of {torch.cuda.get_device_name()}, the first with "
        f"{gigabytes(free)} of {gigabytes(total)} free"
    )
    yield Check("CUDA", OK, found)


def runtime(config: Config) -> Iterator[Check]:
    """Which device a run would take, and what the environment says to it."""
    name = config.runtime.name
    if name in ("tpu", "xla_cpu") and not has_torch_xla():
        yield Check("runtime", FAIL, f"runtime={name} needs torch_xla", INSTALL)
        return
    wanted = {"tpu": "TPU", "xla_cpu": "CPU"}.get(name)
    told = os.environ.get("PJRT_DEVICE")
    if wanted and told not in (None, wanted):
        found = f"runtime={name}, but the environment says PJRT_DEVICE={told}"
        yield Check("runtime", FAIL, found, "unset PJRT_DEVICE")
        return
    taken = name
    if name == "auto":
        from radcap.runtime.select import best_there_is

        taken = best_there_is()
    found = f"runtime={name} takes {taken}" if name == "auto" else f"runtime={name}"
    if taken == "cpu" and config.model.embed_dim >= 512:
        fix = "fine for a look (trainer.max_steps=3); a whole run wants a TPU or GPU"
        yield Check("runtime", WARN, f"{found}, for the full model", fix)
    else:
        yield Check("runtime", OK, found)


def _lock(root: Path) -> Check:
    """Whether the chips are free."""
    name, file = "TPU in use", root / _LOCKFILE
    users = _users_of_chips(root)
    if users:
        return Check(name, FAIL, f"by process {', '.join(users)}", f"kill {' '.join(users)}")
    if not file.exists():
        return Check(name, OK, "by nobody")
    try:
        with file.open("r+b") as lock:
            is_held = holder(lock.fileno(), mark_of(file)) is not None
    except PermissionError:
        owner = file.stat().st_uid
        return Check(name, FAIL, f"/{_LOCKFILE} was left by user {owner}", f"sudo rm /{_LOCKFILE}")
    if is_held:
        return Check(name, FAIL, f"/{_LOCKFILE} is held by a process", f"sudo lsof /{_LOCKFILE}")
    return Check(name, OK, f"by nobody; /{_LOCKFILE} is free")


def _users_of_chips(root: Path) -> list[str]:
    """Processes, but this one, that have a chip's device file open; those of others are unseen."""
    users = set()
    for entry in root.glob("proc/[0-9]*/fd/*"):
        try:
            target = os.readlink(entry)  # noqa: PTH115 a device that is no more is a name too
        except OSError:  # the process ended, or is another user's
            continue
        if target.startswith(("/dev/accel", "/dev/vfio/")):
            users.add(entry.parts[-3])
    users.discard(str(os.getpid()))
    return sorted(users, key=int)
