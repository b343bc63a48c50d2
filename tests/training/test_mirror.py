"""The run folder's copy at an address of fsspec: memory stands for the cloud."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest
import torch

from radcap.errors import RadcapError
from radcap.training.checkpoint import Checkpoint, load_latest, save_checkpoint
from radcap.training.mirror import Mirror

ADDRESS = "memory://bucket/runs/x"


@pytest.fixture(autouse=True)
def empty_bucket() -> None:
    fsspec.filesystem("memory").store.clear()


def save(run: Path, step: int) -> None:
    weights = {"w": torch.full((3,), float(step))}
    save_checkpoint(run / "checkpoints", Checkpoint(step, weights, {"s": {}}, {}, {"at": step}))


def make_run(run: Path, *steps: int) -> Path:
    run.mkdir(exist_ok=True)
    (run / "config.yaml").write_text("seed: 0\n")
    (run / "metrics.jsonl").write_text(f"{max(steps)}\n")
    for step in steps:
        save(run, step)
    return run


def newest(run: Path) -> int:
    found = load_latest(run / "checkpoints", print)
    assert found is not None
    return found.step


def test_another_machine_goes_on_from_it(tmp_path: Path) -> None:
    here = make_run(tmp_path / "here", 5, 10)
    Mirror(ADDRESS).push(here)
    there = tmp_path / "there"
    Mirror(ADDRESS).restore(there)
    assert newest(there) == 10
    for name in ("config.yaml", "metrics.jsonl"):
        assert (there / name).read_text() == (here / name).read_text()
    assert not list(there.rglob("*.partial"))


def test_old_checkpoints_go_there_when_they_go_here(tmp_path: Path) -> None:
    import shutil

    here = make_run(tmp_path / "here", 5, 10)
    Mirror(ADDRESS).push(here)
    shutil.rmtree(here / "checkpoints" / "step-5")
    save(here, 15)
    Mirror(ADDRESS).push(here)
    again = tmp_path / "again"
    Mirror(ADDRESS).restore(again)
    assert sorted(path.name for path in (again / "checkpoints").iterdir()) == ["step-10", "step-15"]


def test_a_copy_that_broke_off_is_not_taken(tmp_path: Path) -> None:
    here = make_run(tmp_path / "here", 5, 10)
    Mirror(ADDRESS).push(here)
    files = fsspec.filesystem("memory")
    files.rm_file("/bucket/runs/x/checkpoints/step-10/manifest.json")
    there = tmp_path / "there"
    Mirror(ADDRESS).restore(there)
    assert newest(there) == 5
    # The next push makes it whole.
    Mirror(ADDRESS).push(here)
    Mirror(ADDRESS).restore(there)
    assert newest(there) == 10


def test_what_is_newer_here_stays(tmp_path: Path) -> None:
    here = make_run(tmp_path / "here", 5)
    Mirror(ADDRESS).push(here)
    save(here, 20)
    (here / "metrics.jsonl").write_text("20\n")
    Mirror(ADDRESS).restore(here)
    assert newest(here) == 20 and (here / "metrics.jsonl").read_text() == "20\n"


def test_nothing_there_changes_nothing(tmp_path: Path) -> None:
    Mirror(ADDRESS).restore(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("address", "said"), [("nonsense://x", "nonsense"), ("gs://bucket/x", r"radcap\[gcs\]")]
)
def test_an_address_that_cannot_be_used_is_named(address: str, said: str) -> None:
    with pytest.raises(RadcapError, match=said):
        Mirror(address)
