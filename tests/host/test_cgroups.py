"""The limits of a container, in both kinds of control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from radcap.config.compose import compose
from radcap.diagnosis.machine import cores
from radcap.host.cgroups import cpu_quota, memory_left, memory_limit
from radcap.host.cores import num_cores
from radcap.training.feeding import default_workers

OF_2, OF_1 = "0::{}\n", "4:memory:{0}\n2:cpu,cpuacct:{0}\n"


def make(root: Path, group: str, files: dict[str, str]) -> Path:
    """A machine as a process of a group sees it."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(group)
    for name, content in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return root


@pytest.mark.parametrize(
    ("group", "files", "quota"),
    [
        (OF_2.format("/"), {"cpu.max": "150000 100000\n"}, 1.5),
        (OF_2.format("/"), {"cpu.max": "max 100000\n"}, None),
        (OF_2.format("/"), {}, None),
        # A job of a batch system, whose limit lies above its own group.
        (
            OF_2.format("/job/step"),
            {"job/step/cpu.max": "max 100000", "job/cpu.max": "200000 100000"},
            2.0,
        ),
        (OF_2.format("/job"), {"job/cpu.max": "800000 100000", "cpu.max": "50000 100000"}, 0.5),
        # A container of cgroup 1 sees its own group as the root, and its name from outside.
        (
            OF_1.format("/docker/12ab"),
            {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            1.0,
        ),
        (
            OF_1.format("/slurm"),
            {
                "cpu,cpuacct/slurm/cpu.cfs_quota_us": "400000",
                "cpu,cpuacct/slurm/cpu.cfs_period_us": "100000",
            },
            4.0,
        ),
        (
            OF_1.format("/"),
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            None,
        ),
        (OF_2.format("/../other"), {"cpu.max": "100000 100000"}, 1.0),
        ("garbage", {"cpu.max": "a b c"}, None),
        (OF_2.format("/"), {"cpu.max": "100000 0"}, None),
    ],
)
def test_the_quota_of_processor_time(
    tmp_path: Path, group: str, files: dict[str, str], quota: float | None
) -> None:
    assert cpu_quota(make(tmp_path, group, files)) == quota


@pytest.mark.parametrize(
    ("quota", "expected"), [("max", 8), ("100000", 1), ("150000", 2), ("5000", 1), ("6400000", 8)]
)
def test_cores_are_what_the_quota_is_worth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    root = make(tmp_path, OF_2.format("/"), {"cpu.max": f"{quota} 100000"})
    assert num_cores(root) == expected


def test_the_doctor_names_the_quota_and_loaders_keep_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make(tmp_path, OF_2.format("/"), {"cpu.max": "100000 100000"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    (check,) = cores(compose(["data.workers=2"]), root)
    assert check.status == "warn" and check.fix == "data.workers=1"
    assert check.found.startswith("1 (the time of 1 of the 2 here is allowed) for the trainer")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr("radcap.training.feeding.num_cores", lambda: num_cores(root))
    assert default_workers(compose(["runtime=cuda"]).runtime, 64) == 1


@pytest.mark.parametrize(
    ("group", "files", "limit", "left"),
    [
        (
            OF_2.format("/job/step"),
            {
                "job/memory.max": "1000",
                "job/memory.current": "400",
                "job/memory.stat": "anon 5\ninactive_file 100\n",
                "job/step/memory.max": "max",
                "job/step/memory.current": "300",
            },
            1000,
            700,
        ),
        (
            OF_1.format("/docker/1"),
            {
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "memory/memory.usage_in_bytes": "5",
            },
            None,
            None,
        ),
        (
            OF_1.format("/a"),
            {
                "memory/a/memory.limit_in_bytes": "2000",
                "memory/a/memory.usage_in_bytes": "500",
                "memory/a/memory.stat": "cache 1\ntotal_inactive_file 50",
            },
            2000,
            1550,
        ),
    ],
)
def test_the_limit_of_memory(
    tmp_path: Path, group: str, files: dict[str, str], limit: int | None, left: int | None
) -> None:
    root = make(tmp_path, group, files)
    assert (memory_limit(root), memory_left(root)) == (limit, left)
