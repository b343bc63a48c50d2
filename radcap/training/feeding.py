"""How many loader processes keep a device fed, and what each loader of a run may use."""

from __future__ import annotations

import math
from pathlib import Path

from radcap.config.schema import Config, RuntimeConfig
from radcap.host.cores import num_cores
from radcap.runtime.launch import num_launched_here
from radcap.runtime.tpu import tpu_is_usable

# Images a second that a device takes at most, rounded up: of all chips of a TPU host the card's
# model at the floor of the step compiled for v3-8 (`radcap.preflight +experiment=epoch1`), of a GPU
# as measured on an H200, of a CPU what two cores train, and more cores a little more each.
_MOST_IMAGES_PER_S = {"tpu": 30_000.0, "cuda": 10_000.0, "cpu": 500.0, "xla_cpu": 500.0}
# One process makes so many: `scripts/bench.py pipeline`, 424 us of processor time an image.
_IMAGES_PER_WORKER = 2_300.0
_NVIDIA_DRIVER = Path("/proc/driver/nvidia")


def chosen_workers(config: Config, lanes: int) -> int:
    """Loader processes of training: `data.workers`, or the default where that is null.

    Args:
        config: of the run.
        lanes: of this process.
    """
    if config.data.workers is not None:
        return config.data.workers
    return default_workers(config.runtime, lanes)


def default_workers(runtime: RuntimeConfig, lanes: int) -> int:
    """As many as the device can use, the machine has cores for and the data has lanes for.

    Known before a device is opened, since loaders are forked before that.

    Args:
        runtime: which device.
        lanes: of this process.
    """
    cores = num_cores() // num_launched_here()
    return useful_workers_on(probable_device(runtime), cores, lanes)


def probable_device(runtime: RuntimeConfig) -> str:
    """tpu, cuda, cpu or xla_cpu: what the run will train on, by what can be seen from outside."""
    if runtime.name != "auto":
        return runtime.name
    return "tpu" if tpu_is_usable() else "cuda" if _NVIDIA_DRIVER.exists() else "cpu"


def useful_workers_on(device: str, cores: int, lanes: int) -> int:
    """Likewise, of a machine that need not be this one.

    Args:
        device: tpu, cuda, cpu or xla_cpu.
        cores: of this process.
        lanes: of this process.
    """
    useful = math.ceil(_MOST_IMAGES_PER_S[device] / _IMAGES_PER_WORKER)
    return max(1, min(useful, cores - 1, lanes))  # a core is the trainer's


def share_of_loader(processes: int, others: int) -> float:
    """The share of connections and of memory for reading ahead that one of two loaders has.

    Args:
        processes: of that loader; 0: it works in the training process.
        others: of the other one, likewise.
    """
    return max(1, processes) / (max(1, processes) + max(1, others))
