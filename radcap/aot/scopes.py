"""Names the operations of a recorded program after the modules they come from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch_xla
from torch import Tensor, nn
from torch.autograd.graph import Node


@contextmanager
def scope(name: str) -> Iterator[None]:
    """Name what is recorded inside `name`; the innermost scope counts."""
    pusher = torch_xla._XLAC.profiler.scope_pusher(name)
    try:
        yield
    finally:
        del pusher  # its end closes the scope


def name_modules(model: nn.Module) -> None:
    """Let every module's forward and backward operations bear its name.

    The backward pass runs outside of all modules: each node of the autograd graph that a module
    adds is given hooks that open the module's scope for as long as it runs.
    """
    for name, module in model.named_modules():
        if name:
            _ModuleScope(name, module)


class _ModuleScope:
    """The hooks of one module."""

    def __init__(self, name: str, module: nn.Module) -> None:
        self._name = name
        self._pushers: list[Any] = []
        self._first_nodes: list[int] = []
        module.register_forward_pre_hook(self._before)
        module.register_forward_hook(self._after)

    def _before(self, module: nn.Module, args: Any) -> None:
        self._first_nodes.append(torch.autograd._get_sequence_nr())
        self._open()

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        self._close()
        first = self._first_nodes.pop()
        if isinstance(output, Tensor) and output.grad_fn is not None:
            self._name_nodes(output.grad_fn, first)

    def _name_nodes(self, end: Node, first: int) -> None:
        """Hook the nodes that lead to `end` and were made since number `first`."""
        waiting, seen = [end], {end}
        node: Any  # torch's type lacks what is used here
        while waiting:
            node = waiting.pop()
            if "radcap" not in node.metadata:  # else an inner module's
                node.metadata["radcap"] = self._name
                node.register_prehook(lambda _: self._open())
                node.register_hook(lambda _, __: self._close())
            before: Any
            for before, _ in node.next_functions:
                if before is None or before in seen or before._sequence_nr() < first:
                    continue
                if before.name().endswith("AccumulateGrad"):
                    continue
                seen.add(before)
                waiting.append(before)

    def _open(self) -> None:
        self._pushers.append(torch_xla._XLAC.profiler.scope_pusher(self._name))

    def _close(self) -> None:
        self._pushers.pop()
