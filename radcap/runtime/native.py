"""CPU and GPU by plain torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from radcap.config import OptimizerConfig
from radcap.errors import ConfigError, RadcapError
from radcap.runtime.adam import keep_execution_flags
from radcap.runtime.base import B, Runtime


class NativeRuntime(Runtime):
    """One CPU or one GPU."""

    def __init__(self, name: str, *, precision: str, threads: int | None) -> None:
        """Open the device.

        Args:
            name: cpu or cuda.
            precision: fp32 or bf16 (autocast; weights and sums stay in float32).
            threads: CPU threads, None for one a core.

        Raises:
            RadcapError: there is no GPU that torch can use.
        """
        if name == "cuda" and not torch.cuda.is_available():
            raise RadcapError(
                "runtime=cuda: torch finds no GPU here; use runtime=cpu, or runtime=auto"
            )
        self.name = name
        self.device = torch.device(name)
        self.precision = precision
        torch.set_num_threads(threads or len(os.sched_getaffinity(0)))

    def describe(self) -> str:
        if self.name == "cuda":
            return f"{torch.cuda.get_device_name()}, {self.precision}"
        return f"CPU, {torch.get_num_threads()} threads, {self.precision}"

    def place(self, model: nn.Module) -> None:
        # Convolutions are faster with channels last: 1.2x of a whole step on a CPU.
        model.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def make_adam(self, model: nn.Module, options: OptimizerConfig) -> Optimizer:
        optimizer = Adam(
            model.parameters(),
            lr=options.lr,
            betas=(options.betas[0], options.betas[1]),
            eps=options.eps,
            weight_decay=options.weight_decay,
            decoupled_weight_decay=True,
            fused=True,
        )
        keep_execution_flags(optimizer)
        return optimizer

    def batches(self, loader: Iterable[B]) -> Iterator[tuple[B, Tensor, Tensor]]:
        for batch in loader:
            images = batch.images.to(
                self.device, non_blocking=True, memory_format=torch.channels_last
            )
            yield batch, images, batch.tokens.to(self.device, non_blocking=True)

    def arithmetic(self) -> AbstractContextManager[None]:
        if self.precision == "bf16":
            return torch.autocast(self.name, torch.bfloat16)
        return nullcontext()

    def set_learning_rate(self, optimizer: Optimizer, rate: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate

    def sum_over_devices(self, value: Tensor) -> Tensor:
        return value

    def sum_gradients(self, model: nn.Module) -> None:
        pass

    def update(self, optimizer: Optimizer, proceed: Tensor) -> None:
        # The fused kernels leave weights and state alone where `found_inf` is 1: the way of
        # torch.amp.GradScaler, and the only one that needs no read of the device.
        optimizer.grad_scale = torch.ones((), device=self.device)  # type: ignore[attr-defined]
        optimizer.found_inf = (~proceed).float()  # type: ignore[attr-defined]
        optimizer.step()

    def end_step(self) -> None:
        pass

    def fetch(self, queued: Sequence[Mapping[str, Tensor]]) -> list[dict[str, float]]:
        if not queued:
            return []
        self.device_reads += 1
        names = list(queued[0])
        table = torch.stack([torch.stack([row[n].double() for n in names]) for row in queued])
        return [dict(zip(names, values, strict=True)) for values in table.cpu().tolist()]

    def seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def random_state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"cpu": torch.get_rng_state()}
        if self.name == "cuda":
            state["cuda"] = torch.cuda.get_rng_state()
        return state

    def set_random_state(self, state: Mapping[str, Any]) -> None:
        torch.set_rng_state(state["cpu"])
        if self.name == "cuda" and "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"])

    @contextmanager
    def profile(self, folder: Path) -> Iterator[None]:
        folder.mkdir(parents=True, exist_ok=True)
        with torch.profiler.profile(record_shapes=True) as recorded:
            yield
        recorded.export_chrome_trace(str(folder / "trace.json"))

    def close(self) -> None:
        pass


def check_devices(name: str, devices: int | None) -> None:
    """Refuse more devices than one process has.

    Raises:
        ConfigError: naming the option.
    """
    if devices not in (None, 1):
        raise ConfigError(f"runtime.devices={devices}: runtime={name} trains on one device")
