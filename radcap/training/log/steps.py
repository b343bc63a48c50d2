"""Steps wait here, unread, until the log's interval: then one read of the device serves all.

Every step still gets its own loss and perplexity, and a loss that is not finite still names its
step and rows, only later.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from radcap.data.collate import Batch, BatchCounts
from radcap.errors import RadcapError
from radcap.host.console import printable
from radcap.runtime.base import Runtime
from radcap.scoring.perplexity import perplexity
from radcap.training.log.clock import rate_text
from radcap.training.log.curves import RunLog
from radcap.training.log.health import DataHealth
from radcap.training.log.progress import Progress


class TrainingFailed(RadcapError):
    """The run cannot go on: a loss or gradient is not finite."""


@dataclass(frozen=True)
class _Waiting:
    step: int
    scalars: Mapping[str, Tensor]
    rows: list[str]
    lr: float
    data_wait_s: float
    step_s: float
    time: float
    images: int  # of this process


class StepLog:
    """Queues steps and writes them out.

    Attributes:
        health: what became of the rows, over the whole run.
        last: the record last written.
    """

    def __init__(
        self,
        runtime: Runtime,
        log: RunLog,
        bar: Progress,
        *,
        steps_per_epoch: int,
        counts: Mapping[str, Any] | None,
    ) -> None:
        """Args:
        counts: what earlier processes of the run counted.
        """
        self._runtime, self._log, self._bar = runtime, log, bar
        self._steps_per_epoch = steps_per_epoch
        self._queue: list[_Waiting] = []
        self._mark = time.monotonic()
        self.health = DataHealth(counts)
        self._new = BatchCounts()
        self.last: dict[str, Any] | None = None

    def resume_timing(self) -> None:
        """Leave the time since the last step, spent on something else, out of the next one's."""
        self._mark = time.monotonic()

    def add(
        self,
        step: int,
        scalars: Mapping[str, Tensor],
        batch: Batch,
        *,
        lr: float,
        data_wait_s: float,
    ) -> None:
        """Queue a step's scalars, as `TrainStep` gave them, without reading them."""
        now = time.monotonic()
        images = int(batch.valid.sum())
        self._queue.append(
            _Waiting(
                step=step,
                scalars=scalars,
                rows=list(batch.rows),
                lr=lr,
                data_wait_s=data_wait_s,
                step_s=now - self._mark,
                time=time.time(),
                images=images,
            )
        )
        self._mark = now
        self._new.rows += images
        self._new.truncated += batch.counts.truncated
        for reason, (rows, first) in batch.counts.skipped.items():
            before, known = self._new.skipped.get(reason, (0, first))
            self._new.skipped[reason] = (before + rows, known)
        self._new.traffic += batch.counts.traffic
        self._new.waited_s += batch.counts.waited_s
        self._new.worked_s += batch.counts.worked_s

    def write_out(self) -> None:
        """Read the queued steps from the device, at once, and log each. All processes call this.

        Raises:
            TrainingFailed: naming the first step whose loss or gradient is not finite, with its
                rows. The steps before it are logged.
        """
        waiting, self._queue = self._queue, []
        values = self._runtime.fetch([entry.scalars for entry in waiting])
        # The read waits for the device: its time belongs to the steps that were waited for.
        lag = time.monotonic() - self._mark
        seconds = sum(entry.step_s for entry in waiting) + lag
        images = self._count()
        # The first step of a process waits for its loader to start and its program to compile.
        counted = waiting[1:] if self.last is None else waiting
        self.health.add_time(
            train_s=sum(entry.step_s for entry in counted) + (lag if counted else 0.0),
            wait_s=sum(entry.data_wait_s for entry in counted),
            images=sum(entry.images for entry in counted) * self._runtime.num_processes,
        )
        for entry, scalars in zip(waiting, values, strict=True):
            if not (math.isfinite(scalars["loss"]) and math.isfinite(scalars["grad_norm"])):
                raise TrainingFailed(_not_finite(entry, scalars))
            self._record(entry, scalars, images / max(seconds, 1e-9), lag / len(waiting))
        if waiting:
            self._log.health(self.health.record(waiting[-1].step, time.time()))
            last = self.last or {}
            figures = f"loss {last['loss']:.4f}, {rate_text(last['images_per_s'])} images/s"
            self._bar.advance(waiting[-1].step, figures, self.health.facts())
        self._mark = time.monotonic()

    def _count(self) -> int:
        """Add up what all processes met since the last time; the images among it."""
        images = 0
        for new in self._runtime.gather(self._new):
            images += new.rows
            self.health.add(new)
        self._new = BatchCounts()
        return images

    def _record(
        self, entry: _Waiting, scalars: Mapping[str, float], images_per_s: float, lag: float
    ) -> None:
        self.last = {
            "step": entry.step,
            "epoch": entry.step / self._steps_per_epoch,
            "loss": scalars["loss"],
            "perplexity": perplexity(scalars["loss"]),
            "tokens": int(scalars["tokens"]),
            "lr": entry.lr,
            "grad_norm": scalars["grad_norm"],
            "images_per_s": images_per_s,
            "step_s": entry.step_s + lag,
            "data_wait_s": entry.data_wait_s,
            "time": entry.time,
        }
        self._log.step(self.last, self.health.scalars())


def _not_finite(entry: _Waiting, scalars: Mapping[str, float]) -> str:
    what = "loss" if not math.isfinite(scalars["loss"]) else "gradient"
    rows = ", ".join(map(printable, entry.rows[:8])) + (", ..." if len(entry.rows) > 8 else "")
    return (
        f"the {what} of step {entry.step} is not finite; the step was skipped and the run ends. "
        f"Lower optimizer.lr or set optimizer.clip_norm; its rows: {rows}"
    )
