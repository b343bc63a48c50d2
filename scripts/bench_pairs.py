"""Timings of two ways of doing the same, in turn, so that a busy machine slows both."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

HEADER = "ratio   (least to greatest)"
RATES_HEADER = f"      card     radcap    {HEADER}"
_SCHED = 2  # linux/posix-timers.h: CPUCLOCK_SCHED


@dataclass(frozen=True)
class Pairs:
    """Seconds of both ways, pair by pair."""

    theirs: Sequence[float]
    ours: Sequence[float]

    @property
    def median_theirs(self) -> float:
        return statistics.median(self.theirs)

    @property
    def median_ours(self) -> float:
        return statistics.median(self.ours)

    @property
    def ratios(self) -> list[float]:
        """How many times faster ours is: of each pair, in rising order."""
        return sorted(a / b for a, b in zip(self.theirs, self.ours, strict=True))

    def ratio_text(self) -> str:
        """Under `HEADER`: the median of the ratios, the least and the greatest."""
        ratios = self.ratios
        return f"{statistics.median(ratios):6.2f}x   ({ratios[0]:.2f} to {ratios[-1]:.2f})"

    def rates_text(self, units: int) -> str:
        """Under `RATES_HEADER`: units a second of both, by their medians, and the ratio."""
        theirs, ours = units / self.median_theirs, units / self.median_ours
        return f"{theirs:10.2f} {ours:10.2f}  {self.ratio_text()}"


def seconds_of(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """What a call takes."""
    start = clock()
    work()
    return clock() - start


def take_in_turn(
    theirs: Callable[[], object],
    ours: Callable[[], object],
    pairs: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Pairs:
    """Time both, one after the other, `pairs` times.

    Args:
        theirs, ours: the two ways; warm them up before where that matters.
        pairs: at least one.
        clock: `time.process_time` for work on one core of a machine that others use too.
    """
    timed = [(seconds_of(theirs, clock), seconds_of(ours, clock)) for _ in range(pairs)]
    columns = list(zip(*timed, strict=True))
    return Pairs(columns[0], columns[1])


def settled_clock() -> float:
    """Seconds, read when a GPU, if there is one, has done all it was given."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def machine_load() -> str:
    """How busy the machine is with other work, in words."""
    return f"load {os.getloadavg()[0]:.1f} on {len(os.sched_getaffinity(0))} cores"


def processor_seconds(processes: Sequence[int]) -> float:
    """What processes have used up to now, all their threads.

    By the clock that clock_getcpuclockid(3) names: /proc/PID/stat counts hundredths of a second.
    """
    return sum(time.clock_gettime(~pid << 3 | _SCHED) for pid in processes)
