"""What every device offers to the training loop: one interface, whatever the device is.

A runtime knows tensors, modules and optimizers. It knows no file, no data set and no model.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from radcap.config.schema import OptimizerConfig
from radcap.runtime.launch import check_batch_size


class HostBatch(Protocol):
    """The part of a batch that goes to the device."""

    images: Tensor  # uint8 [B, 3, 224, 224]
    tokens: Tensor  # int32 [B, T + 1]
    pad_id: int  # what fills its rows up on the right


B = TypeVar("B", bound=HostBatch)
T = TypeVar("T")
P = ParamSpec("P")


class Runtime(abc.ABC):
    """A device, or many that act as one.

    Attributes:
        name: cpu, cuda, tpu or xla_cpu.
        device: where modules and batches live.
        num_devices: devices that share a global batch, over all processes.
        num_shards: devices that the batch axis of one tensor of `batches` is spread over.
        process_index: this process among all; process 0 writes files.
        num_processes: processes that train together.
        precision: fp32 or bf16.
        log_reads: how often `fetch` has waited for the device.
        device_reads: how often anything else has, in training steps: each costs a step the overlap
            of host and device. None where that cannot be told.
        compiles: whether a step is recorded and compiled before it runs.
        can_caption: whether captions can be made on these devices.
        step_boundary: runs what was recorded so far, for loops such as
            `ImageCaptioningModel.generate`; None where every operation runs at once.
        read_every: tokens that such a loop writes between looks at the device.
    """

    name: str
    device: torch.device
    num_devices: int = 1
    num_shards: int = 1
    process_index: int = 0
    num_processes: int = 1
    precision: str
    log_reads: int = 0
    device_reads: int | None = None
    compiles: bool = False
    can_caption: bool = True
    step_boundary: Callable[[], None] | None = None
    read_every: int = 8

    def check_batch_size(self, batch_size: int, accumulate: int = 1) -> None:
        """Refuse a global batch that the devices cannot share evenly.

        Args:
            batch_size: rows of a global batch.
            accumulate: micro-batches it is cut into.

        Raises:
            ConfigError: naming the nearest sizes that fit.
        """
        check_batch_size(batch_size, self.num_devices, accumulate)

    @abc.abstractmethod
    def describe(self, *, training: bool = False) -> str:
        """The device and its precision in words, for the first line of a run.

        Args:
            training: name the precision of training steps too, where it is another.
        """

    @abc.abstractmethod
    def place(self, model: nn.Module) -> None:
        """Move a model to the device, in place."""

    @abc.abstractmethod
    def make_adam(
        self,
        model: nn.Module,
        options: OptimizerConfig,
        *,
        encoder: Iterable[nn.Parameter] = (),
    ) -> Optimizer:
        """Adam over a placed model's parameters, its state made before the first step.

        With `weight_decay` above 0 the decay is decoupled (Loshchilov and Hutter, 2019).

        Args:
            model: placed.
            options: rate, betas, eps and decay.
            encoder: parameters of the model that learn at `options.encoder_lr_scale` of the rate.
        """

    @abc.abstractmethod
    def batches(self, loader: Iterable[B]) -> Iterator[tuple[B, Tensor, Tensor]]:
        """Bring batches to the device ahead of their use.

        Yields:
            The batch, its images and its tokens on the device.

        Raises:
            Whatever the loader raises, unchanged.
        """

    @abc.abstractmethod
    def upload_rows(self, rows: Tensor) -> Tensor:
        """Bring this process's rows of a tensor to the device, as `batches` does with images.

        Args:
            rows: [B, ...] on the host, such as images alone; spread over `num_shards` devices.
        """

    @abc.abstractmethod
    def arithmetic(self) -> AbstractContextManager[None]:
        """The context of a forward pass: its precision."""

    def training_arithmetic(self) -> AbstractContextManager[None]:
        """The context of a training step's forward pass."""
        return self.arithmetic()

    def compiled(self, function: Callable[P, T], *, calls: int) -> Callable[P, T]:
        """A function of tensors, the same or made faster.

        Args:
            function: with gradients.
            calls: how often a step calls it before its gradients are used up.
        """
        return function

    @abc.abstractmethod
    def set_learning_rate(self, optimizer: Optimizer, rate: float) -> None:
        """Set the rate of the next update."""

    @abc.abstractmethod
    def sum_over_devices(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes; itself where one program sees all devices."""

    def gather(self, value: T) -> list[T]:
        """What every process has to say, in their order; all of them call this together.

        Args:
            value: anything that can be pickled, on the host.
        """
        return [value]

    @abc.abstractmethod
    def sum_gradients(self, model: nn.Module) -> None:
        """Make every process's gradients the sum of all of theirs."""

    @abc.abstractmethod
    def update(self, optimizer: Optimizer, proceed: Tensor) -> None:
        """Take an optimizer step if `proceed` (bool scalar on the device) holds.

        Otherwise weights and optimizer state keep their values bit for bit. No device is read.
        """

    @abc.abstractmethod
    def end_step(self) -> None:
        """Mark the end of a step: a compiling device runs what was recorded."""

    @abc.abstractmethod
    def fetch(self, queued: Sequence[Mapping[str, Tensor]]) -> list[dict[str, float]]:
        """Read queued scalars from the device, all at once."""

    @abc.abstractmethod
    def seed(self, seed: int) -> None:
        """Seed the random numbers of host and device."""

    @abc.abstractmethod
    def random_state(self) -> dict[str, Any]:
        """Random states of host and device: tensors and plain values, on the host."""

    @abc.abstractmethod
    def set_random_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `random_state` gave, as far as this device has the same parts."""

    def purpose(self, name: str, step: int | None = None) -> AbstractContextManager[None]:
        """The context of one kind of work, so that a compiled graph can be told whose it is.

        Random numbers drawn on the device for anything but "train" leave training's alone.

        Args:
            name: train, validate, generate, save, ...
            step: the training step, for messages.
        """
        return nullcontext()

    @abc.abstractmethod
    def profile(self, folder: Path) -> AbstractContextManager[None]:
        """The context of steps whose operations are recorded into files of `folder`."""

    def num_graphs(self) -> dict[str, int]:
        """Graphs compiled so far, by purpose; empty where nothing is compiled."""
        return {}

    def to_host(self, tree: Any) -> Any:
        """A copy on the host of nested dicts, lists and tensors."""
        if isinstance(tree, Tensor):
            return tree.detach().to("cpu", copy=True)
        if isinstance(tree, Mapping):
            return {key: self.to_host(value) for key, value in tree.items()}
        if isinstance(tree, list | tuple):
            return type(tree)(self.to_host(value) for value in tree)
        return tree

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the device."""


def gather_objects(value: T) -> list[T]:
    """`Runtime.gather` by torch.distributed's default group."""
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
