"""Runs a radcap command in this process and keeps what its model and its optimizer are given.

    compare_watch.py OUT.npz MODULE [WORD ...]

It looks through torch's global hooks, and so needs no name inside radcap: the pictures and word
pieces as modules get them, and the weights around the optimizer's steps. The weights and gradients
of the first steps are replaced by fixed ones, so that what the optimizer makes of them depends on
nothing else. Run by scripts/compare_measure.py.
"""

from __future__ import annotations

import runpy
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

FIXED_STEPS = 3
_FIRST_OF_EACH = 500  # numbers kept of every parameter
# [PAD] and [SEP] of bert-base-uncased. The longest caption of a batch is given without its [SEP].
_NO_WORDS = (0, 102)


class Watch:
    """What was seen so far.

    Attributes:
        pictures: uint8 [3, H, W] each, in the order in which the model got them.
        captions: a checksum of each caption's word pieces, likewise.
        initial: the weights before the first step.
        updated: the weights after the fixed steps; None before.
    """

    def __init__(self) -> None:
        self.pictures: list[np.ndarray] = []
        self.captions: list[str] = []
        self.initial: np.ndarray | None = None
        self.updated: np.ndarray | None = None
        self._steps = 0

    def start(self) -> None:
        """Listen to every module and every optimizer from now on."""
        nn.modules.module.register_module_forward_pre_hook(self._see)
        register_optimizer_step_pre_hook(self._before_step)
        register_optimizer_step_post_hook(self._after_step)

    def _see(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        for tensor in given:
            if not isinstance(tensor, Tensor):
                continue
            if tensor.dtype == torch.uint8 and tensor.ndim == 4 and tensor.shape[1] == 3:
                self.pictures += list(tensor.cpu().contiguous().numpy())
            elif isinstance(module, nn.Embedding) and tensor.ndim == 2:
                rows = tensor.cpu().tolist()
                self.captions += [_checksum([p for p in row if p not in _NO_WORDS]) for row in rows]

    def _before_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if self._steps >= FIXED_STEPS:
            return
        parameters = _parameters(optimizer)
        if self._steps == 0:
            self.initial = _pieces(parameters)
        for parameter in parameters:
            index = torch.arange(parameter.numel(), dtype=torch.float64).view(parameter.shape)
            with torch.no_grad():
                if self._steps == 0:
                    parameter.copy_(0.1 * torch.sin(12.9898 * index))
                if parameter.grad is not None:
                    # Of many sizes: Adam's eps has an effect on small ones alone.
                    gradient = torch.sin(0.7 * index + 78.233 * self._steps)
                    parameter.grad.copy_(gradient * 10.0 ** -(index % 9))

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self._steps += 1
        if self._steps == FIXED_STEPS:
            self.updated = _pieces(_parameters(optimizer))

    def save(self, path: Path) -> None:
        """Write what was seen; what was not is left out."""
        seen: dict[str, Any] = {}
        if self.pictures:
            seen["pictures"] = np.stack(self.pictures)
        if self.captions:
            seen["captions"] = np.array(self.captions)
        if self.initial is not None:
            seen["initial"] = self.initial
        if self.updated is not None:
            seen["updated"] = self.updated
        np.savez(path, **seen)


def _checksum(numbers: list[int]) -> str:
    return f"{zlib.crc32(np.array(numbers, np.int64).tobytes()):08x}"


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _pieces(parameters: list[Tensor]) -> np.ndarray:
    """The first numbers of each parameter, whatever the order of the optimizer's groups."""
    pieces = [
        (tuple(p.shape), p.detach().float().cpu().flatten()[:_FIRST_OF_EACH].numpy())
        for p in parameters
    ]
    pieces.sort(key=lambda piece: (piece[0], piece[1].tobytes()))
    return np.concatenate([numbers for _, numbers in pieces])


def main() -> int | str | None:
    out, module, *words = sys.argv[1:]
    watch = Watch()
    watch.start()
    sys.argv = [module, *words]
    status: int | str | None = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code
    watch.save(Path(out))
    return status


if __name__ == "__main__":
    sys.exit(main())
