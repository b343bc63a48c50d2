"""From the configuration's word to an open device."""

from __future__ import annotations

from radcap.config import RuntimeConfig
from radcap.runtime.base import Runtime
from radcap.runtime.launch import check_devices
from radcap.runtime.tpu import prepare_environment, tpu_is_usable


def open_runtime(config: RuntimeConfig, *, threads: int | None = None) -> Runtime:
    """Open the device that the configuration names.

    `auto` takes a TPU where there is one, else a GPU, else the CPU.

    Args:
        config: the device and its arithmetic.
        threads: CPU threads; None for one a core.

    Raises:
        RadcapError: the device is not there; the message says what to set instead.
    """
    name = best_there_is() if config.name == "auto" else config.name
    if name in ("cpu", "cuda"):
        from radcap.runtime.native import NativeRuntime

        check_devices(name, config.devices)
        precision = config.precision or default_precision(name)
        return NativeRuntime(name, precision=precision, threads=threads)
    prepare_environment(name, config.devices)
    from radcap.runtime.xla import XlaRuntime

    return XlaRuntime(
        name,
        devices=config.devices,
        precision=config.precision or default_precision(name),
        threads=threads,
        prefetch=config.prefetch,
    )


def default_precision(name: str) -> str:
    """The arithmetic that a device is built for: bf16 on a TPU and on GPUs that have it."""
    if name == "cuda":
        import torch

        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if name == "tpu" else "fp32"


def best_there_is() -> str:
    """The device that `auto` takes: tpu, cuda or cpu."""
    if tpu_is_usable():
        return "tpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
