"""From the configuration's word to an open device."""

from __future__ import annotations

from radcap.config import RuntimeConfig
from radcap.errors import ConfigError
from radcap.runtime.base import Runtime


def open_runtime(config: RuntimeConfig, *, threads: int | None = None) -> Runtime:
    """Open the device that the configuration names.

    `auto` takes a TPU where there is one, else a GPU, else the CPU.

    Args:
        config: the device and its arithmetic.
        threads: CPU threads; None for one a core.

    Raises:
        RadcapError: the device is not there; the message says what to set instead.
    """
    from radcap.runtime.native import NativeRuntime, check_devices

    name = _best_there_is() if config.name == "auto" else config.name
    if name in ("cpu", "cuda"):
        check_devices(name, config.devices)
        return NativeRuntime(name, precision=config.precision, threads=threads)
    raise ConfigError(f"runtime={name}: not built in yet; use runtime=cpu or runtime=cuda")


def _best_there_is() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
