"""The host: cores, memory, limits, clock."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from radcap.config.schema import Config
from radcap.diagnosis.check import FAIL, OK, WARN, Check, gigabytes
from radcap.diagnosis.memory import needed_bytes
from radcap.host.cgroups import cpu_quota, memory_left
from radcap.host.cores import num_cores
from radcap.training.feeding import chosen_workers

_ROOT = Path("/")

_LEAST_OPEN_FILES = 1024
_NCCL_SHM_BYTES = 1e9
_DAY_S = 86_400.0


def cores(config: Config, root: Path = _ROOT) -> Iterator[Check]:
    """CPU cores against loader processes."""
    count, workers = num_cores(root), chosen_workers(config, config.data.lanes)
    there, quota = len(os.sched_getaffinity(0)), cpu_quota(root)
    limited = f" (the time of {quota:.3g} of the {there} here is allowed)" if count < there else ""
    found = f"{count}{limited} for the trainer and {workers} loader process"
    found += "es" if workers != 1 else ""
    if workers > count:
        yield Check("cores", WARN, found, f"data.workers={max(1, count - 1)}")
    else:
        yield Check("cores", OK, found)


def memory(config: Config, root: Path = _ROOT) -> Iterator[Check]:
    """Memory against what the run takes at most."""
    left, need = _memory_left(root), needed_bytes(config)
    found = f"{gigabytes(left)} to spare, at most {gigabytes(need)} needed"
    if left < need:
        fix = "lower data.batch_size, data.workers, data.window_gb or data.read_ahead_mb"
        yield Check("memory", WARN, found, fix)
    else:
        yield Check("memory", OK, found)


def shared_memory(config: Config, root: Path = _ROOT) -> Iterator[Check]:
    """/dev/shm: radcap's loader does without, NCCL between GPUs and several drawers do not."""
    folder, name = root / "dev/shm", "shared memory"
    why_not = "no /dev/shm"
    if folder.is_dir():
        disk = os.statvfs(folder)
        is_read_only = bool(disk.f_flag & os.ST_RDONLY) or not os.access(folder, os.W_OK)
        why_not = "/dev/shm is read-only" if is_read_only else ""
    if why_not:
        fix = "docker run --shm-size=1g, or mount a tmpfs there"
        if config.runtime.name == "cuda":
            yield Check(name, WARN, f"{why_not}; NCCL between several GPUs needs it", fix)
        elif config.data.name == "phantom" and config.data.path is None:
            found = f"{why_not}; the phantom data set is drawn by one process, radcap needs no more"
            yield Check(name, WARN, found, fix)
        else:
            yield Check(name, OK, f"{why_not}; radcap does not use it")
        return
    size = disk.f_blocks * disk.f_frsize
    found = f"{gigabytes(size)} in /dev/shm"
    if config.runtime.name == "cuda" and size < _NCCL_SHM_BYTES:
        fix = "for several GPUs start the container with --shm-size=4g (--ipc=host)"
        yield Check("shared memory", WARN, found, fix)
    else:
        yield Check("shared memory", OK, f"{found}; radcap's loader does not use it")


def open_files(config: Config) -> Iterator[Check]:
    """How many files a process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = "no limit" if soft == resource.RLIM_INFINITY else f"{soft:,} a process"
    if soft != resource.RLIM_INFINITY and soft < _LEAST_OPEN_FILES:
        allowed = hard == resource.RLIM_INFINITY or hard >= _LEAST_OPEN_FILES
        fix = f"ulimit -n {_LEAST_OPEN_FILES}" + ("" if allowed else ", as root")
        yield Check("open files", WARN, found, fix)
    else:
        yield Check("open files", OK, found)


def clock(config: Config) -> Iterator[Check]:
    """The time of day: certificates fail, and curves lie, where it is far off."""
    now = time.time()
    # Nothing here was installed in the future.
    written = Path(__file__).stat().st_mtime
    found = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    if now < written - _DAY_S:
        fix = "set the clock (sudo timedatectl set-ntp true), or no certificate will be valid"
        yield Check("clock", FAIL, f"{found}, before radcap was installed here", fix)
    else:
        yield Check("clock", OK, found)


def _memory_left(root: Path) -> float:
    """Bytes that may still be taken: of the machine, or of the container where that is less."""
    lines = (root / "proc/meminfo").read_text(encoding="utf-8").splitlines()
    fields = {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}
    left = float(fields["MemAvailable"][0]) * 1024
    allowed = memory_left(root)
    return left if allowed is None else min(left, allowed)
