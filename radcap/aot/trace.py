"""A runtime that records programs for devices that are not there: shapes only, nothing runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch_xla
import torch_xla.core.xla_builder as xb
import torch_xla.core.xla_model as xm
from torch import Tensor, nn
from torch.optim import Optimizer

from radcap.aot.scopes import scope
from radcap.runtime.xla import XlaRuntime

# A tensor with its version and its number at torch_xla.
Watched = tuple[Tensor, int, int]


@dataclass(frozen=True)
class Program:
    """One compiled step, as portable StableHLO.

    Attributes:
        bytecode: a portable artefact of StableHLO for all devices, without shardings.
        sharded: for each argument whether its first axis is spread over the devices.
        aliases: argument -> output, where the device writes a tensor in place.
        devices: over how many it is spread.
    """

    bytecode: bytes
    sharded: list[bool]
    aliases: dict[int, int]
    devices: int

    def write(self, stem: Path) -> None:
        """Write STEM.bytecode, and the rest as STEM.json: what `radcap.aot.compile` reads."""
        stem.with_suffix(".bytecode").write_bytes(self.bytecode)
        notes = {"sharded": self.sharded, "aliases": self.aliases, "devices": self.devices}
        stem.with_suffix(".json").write_text(json.dumps(notes), encoding="utf-8")


class TracingRuntime(XlaRuntime):
    """The XLA runtime with placeholders for tensors.

    Tensors have a shape, a dtype and a place on the mesh, but no values: a program of the full
    model for 32 devices is recorded in the memory of none. Anything that would run fails.
    """

    def __init__(self, *, num_devices: int, precision: str, forward: str = "loss") -> None:
        """Args:
        num_devices: over which the batch is spread.
        precision: fp32 or bf16.
        forward: name of what a forward pass does outside of the model's modules.
        """
        super().__init__("xla_cpu", devices=1, precision=precision, threads=None, prefetch=1)
        self.num_devices = self.num_shards = num_devices
        self._forward = forward
        self._sharded: set[int] = set()

    @torch.no_grad()
    def place(self, model: nn.Module) -> None:
        model._apply(self._upload)

    def _upload(self, tensor: Tensor, *, shard: bool = False) -> Tensor:
        placeholder = xb.create_placeholder_tensor(tensor.shape, tensor.dtype)
        if shard:
            self._sharded.add(_tensor_id(placeholder))
        return placeholder

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        # Modules open scopes of their own inside; what is left is the loss, or the choice of words.
        with scope(self._forward), super().arithmetic():
            yield

    def update(self, optimizer: Optimizer, proceed: Tensor) -> None:
        with scope("optimizer"):
            super().update(optimizer, proceed)

    def watch(self, tensors: Iterable[Tensor]) -> list[Watched]:
        """Note how tensors stand before a program may write them in place."""
        return [(tensor, tensor._version, _tensor_id(tensor)) for tensor in tensors]

    def program(self, results: Iterable[Tensor], watched: Sequence[Watched] = ()) -> Program:
        """What was recorded since the runtime was opened, or since the last placeholders.

        Args:
            results: what the program computes; no bare placeholders.
            watched: of these, the tensors that were written in place are results too, and the
                device puts them where they came from.
        """
        written = [(tensor, old) for tensor, version, old in watched if tensor._version != version]
        outputs: Any = [*(tensor for tensor, _ in written), *results]
        arguments, _ = torch_xla._XLAC._get_tensors_xla_device_data_node(outputs)
        number = {old: i for i, (_, old) in enumerate(written)}
        return Program(
            bytecode=xm.get_stablehlo_bytecode(outputs),
            sharded=[argument in self._sharded for argument in arguments],
            devices=self.num_devices,
            aliases={i: number[a] for i, a in enumerate(arguments) if a in number},
        )


def _tensor_id(tensor: Tensor) -> int:
    return torch_xla._XLAC._xla_get_tensor_id(tensor)
