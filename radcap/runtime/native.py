"""CPU and GPU by plain torch, one device or, under torchrun, one in each of several processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from radcap.config.schema import OptimizerConfig
from radcap.errors import ConfigError, RadcapError
from radcap.host.cores import num_cores
from radcap.optim.adam import keep_execution_flags, parameter_groups, set_learning_rate
from radcap.runtime.base import B, P, Runtime, T, gather_objects
from radcap.runtime.launch import num_launched, num_launched_here

# Batches of a GPU have a quarter, a half, three quarters or all of the target tokens: few shapes to
# compile for.
_GPU_WIDTHS = 4


class NativeRuntime(Runtime):
    """One CPU or one GPU, alone or with those of the other processes that torchrun started.

    Each process trains on its own rows. Losses, gradients and the sums of batch norm are added
    over all (torch's SyncBatchNorm refuses the CPU), so that every process takes the step that one
    device with all the rows would take.
    """

    def __init__(
        self,
        name: str,
        *,
        precision: str,
        threads: int | None,
        training_precision: str | None = None,
        compile: bool = False,
    ) -> None:
        """Open the device.

        Args:
            name: cpu or cuda.
            precision: fp32 or bf16 (autocast; weights and sums stay in float32).
            threads: CPU threads, None for one a core, shared by the processes of the machine.
            training_precision: of training steps alone; None for that of all else.
            compile: let `compiled` compile, by torch.compile.

        Raises:
            RadcapError: there is no GPU that torch can use.
        """
        if name == "cuda" and not torch.cuda.is_available():
            raise RadcapError(
                "runtime=cuda: torch finds no GPU here; use runtime=cpu, or runtime=auto"
            )
        self.name = name
        self.device = torch.device(name)
        if name == "cpu":
            self.read_every = 1  # nothing has to be waited for
        self.precision = precision
        self.training_precision = training_precision or precision
        self._compile = compile
        cores = num_cores() // num_launched_here()
        torch.set_num_threads(threads or max(1, cores))
        self.num_devices = self.num_processes = num_launched()
        if self.num_processes > 1:
            if name == "cuda":
                gpus, mine = torch.cuda.device_count(), int(os.environ["LOCAL_RANK"])
                if mine >= gpus:
                    raise ConfigError(
                        f"torchrun started {num_launched_here()} processes here, and there are "
                        f"{gpus} GPUs; start one process a GPU"
                    )
                torch.cuda.set_device(mine)
            # Tensors of a GPU go by nccl; what processes tell each other goes by gloo.
            dist.init_process_group("cpu:gloo,cuda:nccl" if name == "cuda" else "gloo")
            self.process_index = dist.get_rank()

    def describe(self, *, training: bool = False) -> str:
        processes = f"{self.num_processes} processes, each " if self.num_processes > 1 else ""
        if self.name == "cuda":
            return f"{processes}{torch.cuda.get_device_name()}, {self.precision}"
        described = f"{processes}CPU, {torch.get_num_threads()} threads, {self.precision}"
        if training and self.training_precision != self.precision:
            described += f", {self.training_precision} in training"
        return described

    def place(self, model: nn.Module) -> None:
        # Convolutions are faster with channels last: 1.2x of a whole step on a CPU.
        model.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.num_processes > 1:
            # All processes draw the same weights with the same seed; dropout has to differ.
            torch.manual_seed(torch.initial_seed() + self.process_index)

    def make_adam(
        self,
        model: nn.Module,
        options: OptimizerConfig,
        *,
        encoder: Iterable[nn.Parameter] = (),
    ) -> Optimizer:
        optimizer = Adam(
            parameter_groups(model, options, encoder),
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
            images = self.upload_rows(batch.images)
            targets = batch.tokens.shape[1] - 1
            multiple = -(-targets // _GPU_WIDTHS) if self.name == "cuda" else 1
            tokens = without_padding(batch.tokens, batch.pad_id, multiple)
            yield batch, images, self.upload_rows(tokens)

    def upload_rows(self, rows: Tensor) -> Tensor:
        if self.name == "cuda":
            # From other memory than pinned, the host would wait for what the GPU has to do before.
            rows = rows.pin_memory().to(self.device, non_blocking=True)
        return rows.contiguous(memory_format=torch.channels_last) if rows.ndim == 4 else rows

    def arithmetic(self) -> AbstractContextManager[None]:
        return self._autocast(self.precision)

    def training_arithmetic(self) -> AbstractContextManager[None]:
        return self._autocast(self.training_precision)

    def compiled(self, function: Callable[P, T], *, calls: int) -> Callable[P, T]:
        if not self._compile:
            return function
        # Recorded as CUDA graphs, a step of hundreds of small kernels is started at once. A graph
        # that runs again before its gradients are used up would overwrite them.
        mode = "reduce-overhead" if calls == 1 else None
        return torch.compile(function, dynamic=False, mode=mode)

    def _autocast(self, precision: str) -> AbstractContextManager[None]:
        if precision == "bf16":
            return torch.autocast(self.name, torch.bfloat16)
        return nullcontext()

    def set_learning_rate(self, optimizer: Optimizer, rate: float) -> None:
        set_learning_rate(optimizer, rate)

    def sum_over_devices(self, value: Tensor) -> Tensor:
        if self.num_processes == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total

    def gather(self, value: T) -> list[T]:
        return gather_objects(value) if self.num_processes > 1 else [value]

    def sum_gradients(self, model: nn.Module) -> None:
        if self.num_processes == 1:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        # In one exchange: hundreds of small ones would each wait for the network.
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, total in zip(gradients, parts, strict=True):
            gradient.copy_(total.view(gradient.shape))

    def update(self, optimizer: Optimizer, proceed: Tensor) -> None:
        # The fused kernels leave weights and state alone where `found_inf` is 1: the way of
        # torch.amp.GradScaler, and the only one that needs no read of the device. Its `grad_scale`
        # is not set: with one, the kernels write all gradients back.
        optimizer.found_inf = (~proceed).float()  # type: ignore[attr-defined]
        optimizer.step()

    def end_step(self) -> None:
        pass

    def fetch(self, queued: Sequence[Mapping[str, Tensor]]) -> list[dict[str, float]]:
        if not queued:
            return []
        self.log_reads += 1
        names = list(queued[0])
        table = torch.stack([torch.stack([row[n].double() for n in names]) for row in queued])
        return [dict(zip(names, values, strict=True)) for values in table.cpu().tolist()]

    def seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def random_state(self) -> dict[str, Any]:
        """Those of all processes, in their order: all have to call this together."""
        own: dict[str, Any] = {"cpu": torch.get_rng_state()}
        if self.name == "cuda":
            own["cuda"] = torch.cuda.get_rng_state()
        states = self.gather(own)
        return own if len(states) == 1 else {**states[0], "processes": states}

    def set_random_state(self, state: Mapping[str, Any]) -> None:
        states = state.get("processes", [state])
        as_many = len(states) == self.num_processes
        own = states[self.process_index] if as_many else states[0]
        torch.set_rng_state(own["cpu"])
        if self.name == "cuda" and "cuda" in own:
            torch.cuda.set_rng_state(own["cuda"])
        if not as_many and self.process_index > 0:
            # Of another number of processes: the others must not draw what the first one draws.
            torch.manual_seed(torch.initial_seed() + self.process_index)

    @contextmanager
    def profile(self, folder: Path) -> Iterator[None]:
        folder.mkdir(parents=True, exist_ok=True)
        with torch.profiler.profile(record_shapes=True) as recorded:
            yield
        recorded.export_chrome_trace(str(folder / "trace.json"))

    def close(self) -> None:
        if self.num_processes > 1 and dist.is_initialized():
            dist.destroy_process_group()


def without_padding(tokens: Tensor, pad_id: int, multiple: int = 1) -> Tensor:
    """Right-padded ids [B, T + 1] with T cut to that of the longest caption.

    Exact: what precedes a position does not see it, and [PAD] is no target.

    Args:
        tokens: on the host.
        pad_id: [PAD].
        multiple: to round the new T up to, as far as the old one allows.
    """
    # By position: nothing forbids a model to write [PAD] inside of a caption.
    longest = max(int(((tokens != pad_id) * torch.arange(tokens.shape[1])).max()), 1)
    return tokens[:, : 1 + -(-longest // multiple) * multiple]
