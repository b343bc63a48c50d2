"""TPU by PyTorch/XLA, and the same program on virtual CPU devices.

One process a host, SPMD over a mesh of one axis, "data": weights are on every device, the rows
of a batch are spread over all, and XLA's partitioner adds what has to be summed. Importing this
module loads torch_xla, which reads its environment then: see `radcap.runtime.tpu`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch_xla
import torch_xla.core.xla_model as xm
import torch_xla.debug.metrics as metrics
import torch_xla.debug.profiler as profiler
import torch_xla.distributed.spmd as spmd
import torch_xla.distributed.xla_backend
import torch_xla.runtime
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from radcap.config.schema import OptimizerConfig
from radcap.errors import ConfigError, RadcapError
from radcap.host.console import heartbeat
from radcap.optim.adam import DeviceAdam, parameter_groups
from radcap.runtime.base import B, Runtime, T, gather_objects
from radcap.runtime.graphs import GraphWatch
from radcap.runtime.transfer import Transfer

# In what libtpu says.
_SIGNS_OF_ANOTHER_PROCESS = ("already in use", "libtpu_lockfile", "Device or resource busy")


class XlaRuntime(Runtime):
    """All devices of this process's host, and of the other hosts of a TPU slice, as one."""

    compiles = True

    def __init__(
        self, name: str, *, devices: int | None, precision: str, threads: int | None, prefetch: int
    ) -> None:
        """Open the devices.

        Args:
            name: tpu or xla_cpu.
            devices: how many there must be; None for any number.
            precision: fp32 or bf16 (autocast; weights, optimizer state and sums stay float32).
            threads: CPU threads of torch, None for its own choice.
            prefetch: batches that are brought to the devices ahead of their use.

        Raises:
            ConfigError: there are more or fewer devices than asked for.
            RadcapError: they cannot be opened, or another process has them.
        """
        self.name = name
        self.precision = precision
        if threads is not None:
            torch.set_num_threads(threads)
        if not torch_xla.runtime.is_spmd():  # by an earlier run of this process
            torch_xla.runtime.use_spmd()
        try:
            self.num_devices = torch_xla.runtime.global_runtime_device_count()
            self.device = torch_xla.device()
        except RuntimeError as error:
            raise RadcapError(_cannot_open(name, str(error))) from error
        if devices not in (None, self.num_devices):
            raise ConfigError(
                f"runtime.devices={devices}: runtime={name} has {self.num_devices} here; "
                "leave runtime.devices=null"
            )
        self.num_shards = self.num_devices
        self.process_index = torch_xla.runtime.process_index()
        self.num_processes = torch_xla.runtime.process_count()
        if self.num_processes > 1:
            dist.init_process_group("gloo", init_method="xla://")
        # One program captions for all hosts, and none of them could read all of its rows.
        self.can_caption = self.num_processes == 1
        self._prefetch = prefetch
        self._met: set[str] = set()
        self._reads_of_fetch = 0
        self.device_reads: int = 0
        self._mesh = spmd.Mesh(np.arange(self.num_devices), (self.num_devices,), ("data",))
        self._transfers: list[Transfer] = []
        self._watch = GraphWatch(_num_compiled)
        self._input = "unknown"
        self.step_boundary = torch_xla.sync

    def describe(self, *, training: bool = False) -> str:
        if self.name == "xla_cpu":
            return f"XLA on {self.num_devices} virtual CPU devices, {self.precision}"
        hosts = f" on {self.num_processes} hosts" if self.num_processes > 1 else ""
        return f"{self.num_devices} cores of {xm.xla_device_kind()}{hosts}, {self.precision}"

    @torch.no_grad()
    def place(self, model: nn.Module) -> None:
        host = [tensor.detach().cpu() for tensor in (*model.parameters(), *model.buffers())]
        model.to(self.device)
        # A step gives weights back that are written in place and marked as on all devices; those
        # of the first step have to be so too, or the second one is another graph.
        placed = (*model.parameters(), *model.buffers())
        for tensor, values in zip(placed, host, strict=True):
            tensor.copy_(values)
            spmd.mark_sharding(tensor, self._mesh, (None,) * tensor.ndim)
        # Uploads. A scalar such as a step count of 0 would else be a constant of the first graph.
        torch_xla.sync()

    def make_adam(
        self,
        model: nn.Module,
        options: OptimizerConfig,
        *,
        encoder: Iterable[nn.Parameter] = (),
    ) -> Optimizer:
        return DeviceAdam(parameter_groups(model, options, encoder), options, self._upload)

    def batches(self, loader: Iterable[B]) -> Iterator[tuple[B, Tensor, Tensor]]:
        transfer = Transfer(loader, self._upload_batch, prefetch=self._prefetch)
        self._transfers.append(transfer)
        try:
            for batch, (images, tokens) in transfer:
                self._input = f"{_shape(images)} and {_shape(tokens)}"
                yield batch, images, tokens
        finally:
            transfer.close()
            self._transfers.remove(transfer)

    def _upload_batch(self, batch: B) -> tuple[Tensor, Tensor]:
        return self.upload_rows(batch.images), self.upload_rows(batch.tokens)

    def upload_rows(self, rows: Tensor) -> Tensor:
        self.check_batch_size(len(rows) * self.num_processes)
        return self._upload(rows, shard=True)

    def _upload(self, tensor: Tensor, *, shard: bool = False) -> Tensor:
        """Bring a host tensor to the devices as data: `Tensor.to` makes scalars 0 and 1 constants.

        Args:
            tensor: on the host; with `shard` this host's rows of a global batch.
            shard: spread the first axis over the devices, else every device gets all of it.
        """
        # Each tensor its own: one for all would leave those of another rank unsharded.
        axes = ["data" if shard and axis == 0 else None for axis in range(tensor.ndim)]
        spec = spmd.ShardingSpec(self._mesh, tuple(axes), minibatch=shard)
        uploaded: Any = xm.send_cpu_data_to_device([tensor], self.device, spec)
        return uploaded[0]

    def arithmetic(self) -> AbstractContextManager[None]:
        if self.precision == "bf16":
            return torch.autocast("xla", torch.bfloat16)
        return nullcontext()

    def set_learning_rate(self, optimizer: Optimizer, rate: float) -> None:
        assert isinstance(optimizer, DeviceAdam)
        optimizer.set_learning_rate(rate)

    def sum_over_devices(self, value: Tensor) -> Tensor:
        return value

    def gather(self, value: T) -> list[T]:
        return gather_objects(value) if self.num_processes > 1 else [value]

    def sum_gradients(self, model: nn.Module) -> None:
        pass

    def update(self, optimizer: Optimizer, proceed: Tensor) -> None:
        assert isinstance(optimizer, DeviceAdam)
        optimizer.step_if(proceed)

    def end_step(self) -> None:
        torch_xla.sync()
        self._watch.end_step(self._input)

    def fetch(self, queued: Sequence[Mapping[str, Tensor]]) -> list[dict[str, float]]:
        if not queued:
            return []
        self.log_reads += 1
        before = _num_reads()
        tensors = [tensor for row in queued for tensor in row.values()]
        # One transfer and no new graph: stacked on the device, each number of rows would be one.
        values = iter(torch_xla._XLAC._xla_get_cpu_tensors(tensors))
        self._reads_of_fetch += _num_reads() - before
        return [{name: float(next(values)) for name in row} for row in queued]

    def seed(self, seed: int) -> None:
        torch.manual_seed(seed)
        xm.set_rng_state(seed)  # torch's seed does not reach the device

    def random_state(self) -> dict[str, Any]:
        return {"cpu": torch.get_rng_state(), "xla": xm.get_rng_state()}

    def set_random_state(self, state: Mapping[str, Any]) -> None:
        torch.set_rng_state(state["cpu"])
        if "xla" in state:
            xm.set_rng_state(state["xla"])

    @contextmanager
    def purpose(self, name: str, step: int | None = None) -> Iterator[None]:
        # Every sync moves the device's random numbers on, whatever it is for.
        before = None if name == "train" else xm.get_rng_state()
        reads = _num_reads() - self._reads_of_fetch
        try:
            with self._watch.purpose(name, step), self._heartbeat(name):
                yield
        finally:
            if before is None:
                self.device_reads += _num_reads() - self._reads_of_fetch - reads
            else:
                xm.set_rng_state(before)

    def _heartbeat(self, name: str) -> AbstractContextManager[object]:
        """Signs of life the first time a purpose is met, when its graphs are compiled."""
        if name in self._met:
            return nullcontext()
        self._met.add(name)
        return heartbeat(f"first {name}, with its compiling")

    @contextmanager
    def profile(self, folder: Path) -> Iterator[None]:
        profiler.start_trace(str(folder))
        try:
            yield
        finally:
            xm.wait_device_ops()
            profiler.stop_trace()

    def num_graphs(self) -> dict[str, int]:
        self._watch.look()
        return dict(self._watch.counts)

    def to_host(self, tree: Any) -> Any:
        tensors: list[Tensor] = []
        tree_map_only(Tensor, tensors.append, tree)
        on_device = [tensor for tensor in tensors if tensor.device.type == "xla"]
        # In one transfer: hundreds of tensors would each wait for the device.
        copies = iter(torch_xla._XLAC._xla_get_cpu_tensors(on_device))

        def copy(tensor: Tensor) -> Tensor:
            return next(copies) if tensor.device.type == "xla" else tensor.detach().clone()

        return tree_map_only(Tensor, copy, tree)

    def close(self) -> None:
        for transfer in self._transfers:
            transfer.close()
        xm.wait_device_ops()


def _num_compiled() -> int:
    return metrics.counter_value("UncachedCompile") or 0


def _num_reads() -> int:
    """Reads of the device by this process so far, as torch_xla counts them."""
    data = metrics.metric_data("TransferFromDeviceTime")
    return data[0] if data else 0


def _shape(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _cannot_open(name: str, reason: str) -> str:
    lines = [line for line in reason.splitlines() if line.strip()]
    first = lines[0] if lines else "no reason given"
    if any(sign in reason for sign in _SIGNS_OF_ANOTHER_PROCESS):
        return f"runtime={name}: another process uses the TPU; end it and try again ({first})"
    return f"runtime={name}: the device could not be opened: {first}"
