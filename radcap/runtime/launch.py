"""Which of several processes this one is: known before torch is loaded or a device opened.

The loaders' processes are forked before that, and they need to know which rows are theirs.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass

from radcap.config.schema import RuntimeConfig
from radcap.errors import ConfigError
from radcap.runtime.tpu import prepare_environment, tpu_hosts, tpu_is_usable


@dataclass(frozen=True, order=True)
class Launch:
    """One of `num_processes` that train together. The first one speaks and writes for all."""

    process_index: int = 0
    num_processes: int = 1

    @property
    def is_first(self) -> bool:
        return self.process_index == 0


def find_launch(runtime: RuntimeConfig) -> Launch:
    """Look for torchrun, which starts a process for each CPU or GPU, and for a TPU's other hosts.

    What an XLA device needs is checked here too, so that a lack is told within a second.

    Raises:
        RadcapError: torch_xla, libtpu or the TPU is missing.
        ConfigError: the environment contradicts the configuration, or torchrun started several
            processes for devices that one process drives.
    """
    rank, launched = _torchrun()
    if runtime.compile and runtime.name != "auto":
        check_compiler(runtime.name)
    if runtime.name in ("cpu", "cuda"):
        check_devices(runtime.name, runtime.devices)
    if runtime.name in ("tpu", "xla_cpu"):
        prepare_environment(runtime.name, runtime.devices)
    on_tpu = runtime.name == "tpu" or (runtime.name == "auto" and tpu_is_usable())
    if launched > 1:
        if on_tpu or runtime.name == "xla_cpu":
            raise ConfigError(
                f"runtime={runtime.name}: one process drives all devices of a host, and torchrun "
                f"started {launched}; start radcap without it"
            )
        return Launch(rank, launched)
    return Launch(*tpu_hosts()) if on_tpu else Launch()


def num_launched() -> int:
    """Processes that torchrun started, 1 without it."""
    return _torchrun()[1]


def num_launched_here() -> int:
    """Of these, the ones on this machine."""
    return _number("LOCAL_WORLD_SIZE") if num_launched() > 1 else 1


def _torchrun() -> tuple[int, int]:
    """This process's number and their count, from the environment that torchrun gives."""
    if "WORLD_SIZE" not in os.environ:
        return 0, 1
    count = _number("WORLD_SIZE")
    return (_number("RANK"), count) if count > 1 else (0, 1)


def _number(name: str) -> int:
    value = os.environ.get(name, "")
    if not value.isdecimal():
        raise ConfigError(
            f"the environment says {name}={value}, which torchrun would not; unset WORLD_SIZE, or "
            "start radcap by torchrun"
        )
    return int(value)


def check_devices(name: str, devices: int | None) -> None:
    """Refuse another number of devices than processes, each of which has one.

    Raises:
        ConfigError: naming the option.
    """
    if devices not in (None, num_launched()):
        raise ConfigError(
            f"runtime.devices={devices}: runtime={name} trains on one device a process; start "
            f"{devices} processes with torchrun --nproc-per-node={devices}"
        )


def check_compiler(name: str) -> None:
    """Refuse `runtime.compile` for a device that has no use for it, or where it cannot work.

    Raises:
        ConfigError: naming what to set or to install.
    """
    if name != "cuda":
        raise ConfigError(
            f"runtime={name} takes runtime.compile=false: an XLA device compiles every step "
            "anyway, and a CPU would compile for longer than it gains"
        )
    # The launchers of torch.compile's kernels are written in C; Triton takes one of these.
    known = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
    if not any(map(shutil.which, known)):
        raise ConfigError(
            "runtime.compile=true: there is no C compiler here; apt install gcc, or leave it false"
        )


def check_batch_size(
    batch_size: int, devices: int, accumulate: int = 1, *, option: str = "data.batch_size"
) -> None:
    """Refuse a global batch that the devices cannot share evenly.

    Args:
        batch_size: rows of a global batch.
        devices: how many share it.
        accumulate: micro-batches it is cut into.
        option: what the size was given as.

    Raises:
        ConfigError: naming the nearest sizes that fit.
    """
    unit = devices * accumulate
    if batch_size % unit == 0:
        return
    below = batch_size - batch_size % unit
    fits = f"{below} or {below + unit}" if below else str(unit)
    parts = f" times {accumulate} micro-batches" if accumulate > 1 else ""
    raise ConfigError(
        f"{option}={batch_size} does not divide by {devices} devices{parts}; {fits} does"
    )
