"""Loader processes by the machine, and what two loaders of a run share."""

from __future__ import annotations

import os

import pytest

from radcap.config.compose import compose
from radcap.training import feeding
from radcap.training.feeding import default_workers, share_of_loader, useful_workers_on


@pytest.mark.parametrize(
    ("device", "cores", "lanes", "workers"),
    [
        ("tpu", 96, 64, 14),  # what the device can use
        ("tpu", 8, 64, 7),  # a core is the trainer's
        ("tpu", 96, 5, 5),
        ("cuda", 96, 64, 5),
        ("cpu", 96, 64, 1),
        ("xla_cpu", 96, 64, 1),
        ("tpu", 1, 64, 1),
        ("tpu", 96, 0, 1),
    ],
)
def test_as_many_as_device_machine_and_data_can_use(
    device: str, cores: int, lanes: int, workers: int
) -> None:
    assert useful_workers_on(device, cores, lanes) == workers


def test_processes_of_one_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(96)))
    runtime = compose(["runtime=tpu"]).runtime
    assert default_workers(runtime, 64) == 14
    monkeypatch.setattr(feeding, "num_launched_here", lambda: 8)
    assert default_workers(runtime, 64) == 11


@pytest.mark.parametrize(("train", "val"), [(0, 0), (1, 1), (8, 2), (14, 0)])
def test_two_loaders_share_the_whole(train: int, val: int) -> None:
    assert share_of_loader(train, val) + share_of_loader(val, train) == pytest.approx(1)
    assert share_of_loader(train, val) >= share_of_loader(val, train)
