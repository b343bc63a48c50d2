"""Durations in steps and the learning rate of each step."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radcap.config.compose import compose
from radcap.config.schema import Duration, ScheduleConfig
from radcap.optim.schedule import Every, in_steps, learning_rate_factor, run_length

UNITS = {"batch_size": 336, "steps_per_epoch": 2233}


def test_durations_in_steps() -> None:
    assert in_steps(Duration(10, "steps"), **UNITS) == 10
    assert in_steps(Duration(672, "examples"), **UNITS) == 2
    assert in_steps(Duration(0.5, "epochs"), **UNITS) == 1116.5


def test_run_length_counts_a_part_of_a_step_as_a_whole_one() -> None:
    def length(word: str) -> int:
        return run_length(compose([word]).trainer, **UNITS)

    assert length("trainer.max_steps=2250") == 2250
    assert length("trainer.max_epochs=1") == 2233
    assert length("trainer.max_examples=337") == 2
    assert length("trainer.max_epochs=0.0001") == 1


@given(
    every=st.floats(0.1, 50).map(lambda x: f"{x:.3f}epochs") | st.integers(1, 50).map(str),
    steps_per_epoch=st.integers(1, 40),
)
def test_what_is_due_depends_on_the_step_alone(every: str, steps_per_epoch: int) -> None:
    units = {"batch_size": 4, "steps_per_epoch": steps_per_epoch}
    unbroken = Every(every, **units)
    due = [step for step in range(1, 200) if unbroken.due(step)]
    assert due == [step for step in range(1, 200) if Every(every, **units).due(step)]
    interval = max(1.0, in_steps(Duration.parse(every), **units))
    assert len(due) == int(199 // interval)


def test_minutes_count_from_the_last_time() -> None:
    now = [0.0]
    every = Every("2min", batch_size=1, steps_per_epoch=1, clock=lambda: now[0])
    now[0] = 119.0
    assert not every.due(1)
    now[0] = 120.0
    assert every.due(2)
    every.done()
    assert not every.due(3)


def test_never() -> None:
    assert not any(Every(None, **UNITS).due(step) for step in range(1, 5000))


def test_cosine_with_warmup() -> None:
    schedule = ScheduleConfig(name="cosine", warmup="10", final_fraction=0.1)
    rates = [
        learning_rate_factor(step, schedule, warmup_steps=10, total_steps=110)
        for step in range(1, 131)
    ]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == 1.0
    assert rates[59] == pytest.approx(0.1 + 0.9 * 0.5)
    assert rates[109] == pytest.approx(0.1)
    assert rates[129] == pytest.approx(0.1)  # a lengthened run stays at the final rate
    assert all(a >= b for a, b in itertools.pairwise(rates[9:]))


def test_constant() -> None:
    schedule = ScheduleConfig(name="constant", warmup="0", final_fraction=1.0)
    for step in (1, 10, 10**6):
        assert learning_rate_factor(step, schedule, warmup_steps=0, total_steps=5) == 1.0
    assert math.isclose(learning_rate_factor(1, schedule, warmup_steps=4, total_steps=5), 0.25)
