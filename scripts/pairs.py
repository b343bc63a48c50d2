"""Two ways of doing one thing, timed in turn: what else the machine does hits both."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch


class Comparison(NamedTuple):
    """Median seconds of each, and the ratios theirs / own of the pairs, least to greatest."""

    theirs_s: float
    own_s: float
    ratios: list[float]

    def line(self, units: int) -> str:
        """Units a second of both and the median ratio, in columns of 10, 10 and 7."""
        return (
            f"{units / self.theirs_s:10.2f} {units / self.own_s:10.2f}  "
            f"{statistics.median(self.ratios):6.2f}x   "
            f"({self.ratios[0]:.2f} to {self.ratios[-1]:.2f})"
        )


HEADER = "      card     radcap    ratio   (least to greatest)"


def time_pairs(theirs: Callable[[], object], own: Callable[[], object], pairs: int) -> Comparison:
    """Time both in turn, after one call of each that does not count."""
    theirs()
    own()
    timed = [(_seconds(theirs), _seconds(own)) for _ in range(pairs)]
    theirs_s, own_s = (statistics.median(column) for column in zip(*timed, strict=True))
    return Comparison(theirs_s, own_s, sorted(a / b for a, b in timed))


def machine_load() -> str:
    """How busy the machine is with other work, in words."""
    return f"load {os.getloadavg()[0]:.1f} on {len(os.sched_getaffinity(0))} cores"


def _seconds(work: Callable[[], object]) -> float:
    _wait()
    start = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
