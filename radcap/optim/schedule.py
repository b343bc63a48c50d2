"""Durations in steps, and the learning rate of each step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from radcap.config.schema import RUN_LENGTHS, Config, Duration, ScheduleConfig, TrainerConfig


def in_steps(duration: Duration, *, batch_size: int, steps_per_epoch: int) -> float:
    """A duration as a number of steps, not rounded.

    Args:
        duration: in steps, examples or epochs.
        batch_size: rows in a global batch.
        steps_per_epoch: batches in one pass over the data.
    """
    assert duration.unit != "minutes", "minutes are no number of steps"
    unit = {"steps": 1.0, "examples": 1 / batch_size, "epochs": float(steps_per_epoch)}
    return duration.amount * unit[duration.unit]


def run_length(trainer: TrainerConfig, *, batch_size: int, steps_per_epoch: int) -> int:
    """The length of a run in steps: at least one, part of a step counting as a whole one."""
    (name,) = (n for n in RUN_LENGTHS if getattr(trainer, n) is not None)
    duration = Duration(float(getattr(trainer, name)), name.removeprefix("max_"))
    steps = in_steps(duration, batch_size=batch_size, steps_per_epoch=steps_per_epoch)
    return max(1, math.ceil(steps - 1e-9))


class Every:
    """Says when something that recurs is due.

    Given in steps, examples or epochs, what is due depends on the step alone, so that a resumed
    run does it at the same steps as an unbroken one. Minutes count from the last time it was done.
    """

    def __init__(
        self,
        text: str | None,
        *,
        batch_size: int,
        steps_per_epoch: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args are as in `in_steps`; `text` as in the configuration, None for never."""
        self._clock = clock
        self._last = clock()
        self._steps = self._seconds = math.inf
        if text is not None:
            duration = Duration.parse(text, minutes=True)
            if duration.unit == "minutes":
                self._seconds = 60 * duration.amount
            else:
                steps = in_steps(duration, batch_size=batch_size, steps_per_epoch=steps_per_epoch)
                self._steps = max(1.0, steps)

    def due(self, step: int) -> bool:
        """Whether it is due after this step, counted from 1."""
        if math.isfinite(self._seconds):
            return self._clock() - self._last >= self._seconds
        if math.isinf(self._steps):
            return False
        return step // self._steps > (step - 1) // self._steps

    def done(self) -> None:
        """Start the minutes anew."""
        self._last = self._clock()


def learning_rate(
    config: Config, step: int, total_steps: int, *, batch_size: int, steps_per_epoch: int
) -> float:
    """The rate of a step, counted from 1, of a run whose schedule has `total_steps`."""
    warmup = Duration.parse(config.schedule.warmup)
    return config.optimizer.lr * learning_rate_factor(
        step,
        config.schedule,
        warmup_steps=in_steps(warmup, batch_size=batch_size, steps_per_epoch=steps_per_epoch),
        total_steps=total_steps,
    )


def learning_rate_factor(
    step: int, schedule: ScheduleConfig, *, warmup_steps: float, total_steps: int
) -> float:
    """The multiple of optimizer.lr at a step.

    Args:
        step: counted from 1.
        schedule: the shape.
        warmup_steps: length of the linear rise; the rate is whole at its last step.
        total_steps: where the cosine (Loshchilov and Hutter, 2017) reaches its final fraction.
    """
    if step < warmup_steps:
        return step / warmup_steps
    if schedule.name == "constant":
        return 1.0
    span = max(1.0, total_steps - warmup_steps)
    progress = min(1.0, (step - warmup_steps) / span)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return schedule.final_fraction + (1 - schedule.final_fraction) * cosine
