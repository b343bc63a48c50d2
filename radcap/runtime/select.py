"""From the configuration's word to an open device."""

from __future__ import annotations

import os
from pathlib import Path

from radcap.config.schema import RuntimeConfig
from radcap.runtime.base import Runtime
from radcap.runtime.launch import check_compiler, check_devices
from radcap.runtime.tpu import prepare_environment, tpu_is_usable

_CPU_INFO = Path("/proc/cpuinfo")
# Values of ONEDNN_MAX_CPU_ISA begin so where they allow products of bf16.
_ISA_WITH_BF16 = ("DEFAULT", "AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX512_CORE_AMX", "AVX10")


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
    if config.compile:
        check_compiler(name)
    if name in ("cpu", "cuda"):
        from radcap.runtime.native import NativeRuntime

        check_devices(name, config.devices)
        return NativeRuntime(
            name,
            precision=config.precision or default_precision(name),
            threads=threads,
            training_precision=config.precision or default_training_precision(name),
            compile=config.compile,
        )
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


def default_training_precision(name: str) -> str:
    """The arithmetic of training steps: bf16 on CPUs that multiply it, too.

    Four times the products a second of float32 on the one measured, with AVX512-BF16. Scores gain
    less, and captions, made of small products, lose: they stay as `default_precision` says.
    """
    if name == "cpu" and _cpu_multiplies_bf16():
        return "bf16"
    return default_precision(name)


def _cpu_multiplies_bf16() -> bool:
    """Whether the CPU has instructions for it and oneDNN, which makes the products, may use them.

    Without them bf16 is emulated, and slow. oneDNN keeps to the instructions that its variable
    names (https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html).
    """
    most = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    if most and not most.startswith(_ISA_WITH_BF16):
        return False
    try:
        words = _CPU_INFO.read_text(encoding="utf-8").split()
    except OSError:
        return False  # not Linux
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(words)


def best_there_is() -> str:
    """The device that `auto` takes: tpu, cuda or cpu."""
    if tpu_is_usable():
        return "tpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
