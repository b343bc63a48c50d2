"""The run folder's copy at an address of fsspec: memory stands for the cloud."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest
import torch

from radcap.errors import ConfigError, RadcapError
from radcap.training.run.checkpoint import Checkpoint, load_latest, save_checkpoint
from radcap.training.run.mirror import Mirror

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


def test_the_folders_of_curves_go_there_too(tmp_path: Path) -> None:
    here = make_run(tmp_path / "here", 5)
    for name in ("train/events.out.tfevents.1", "val/events.out.tfevents.1"):
        (here / name).parent.mkdir()
        (here / name).write_text("points")
    Mirror(ADDRESS).push(here)
    (here / "train" / "events.out.tfevents.1").rename(here / "train" / "events.out.tfevents.2")
    save(here, 10)
    Mirror(ADDRESS).push(here)
    files = fsspec.filesystem("memory")
    found = {name for name in files.find("/bucket/runs/x") if "events" in name}
    assert found == {
        "/bucket/runs/x/train/events.out.tfevents.2",
        "/bucket/runs/x/val/events.out.tfevents.1",
    }


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


def test_a_longer_run_is_not_called_finished_by_the_summary_of_a_shorter_one(
    tmp_path: Path,
) -> None:
    here = make_run(tmp_path / "here", 5)
    (here / "summary.json").write_text("{}")
    Mirror(ADDRESS).push(here)
    (here / "summary.json").unlink()
    save(here, 10)
    Mirror(ADDRESS).push(here)
    Mirror(ADDRESS).restore(tmp_path / "there")
    assert not (tmp_path / "there" / "summary.json").exists()


def test_another_runs_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    Mirror(ADDRESS).push(make_run(tmp_path / "old", 5))
    new = make_run(tmp_path / "new", 3)
    checkpoint = Checkpoint(5, {"w": torch.zeros(3)}, {"s": {}}, {}, {"at": "new"})
    save_checkpoint(new / "checkpoints", checkpoint)
    Mirror(ADDRESS).push(new)
    Mirror(ADDRESS).restore(tmp_path / "there")
    found = load_latest(tmp_path / "there" / "checkpoints", print)
    assert found is not None and found.progress["at"] == "new"
    with pytest.raises(ConfigError, match="holds a run of 5 steps"):
        Mirror(ADDRESS).refuse_a_run()
    Mirror("memory://bucket/runs/y").refuse_a_run()


@pytest.mark.parametrize("at", range(1, 12))
def test_a_restore_that_broke_off_is_done_again(tmp_path: Path, at: int) -> None:
    here = make_run(tmp_path / "here", 5, 10)
    Mirror(ADDRESS).push(here)
    there = tmp_path / "there"
    mirror = Mirror(ADDRESS)
    fetch, count = mirror._fs.get_file, 0

    def broken(*words: str) -> None:
        nonlocal count
        count += 1
        if count == at:
            raise KeyboardInterrupt
        fetch(*words)

    try:
        mirror._fs.get_file = broken
        with pytest.raises(KeyboardInterrupt):
            mirror.restore(there)
    finally:
        del mirror._fs.get_file  # the file system is shared by all mirrors
    Mirror(ADDRESS).restore(there)
    assert newest(there) == 10
    for name in ("config.yaml", "metrics.jsonl"):
        assert (there / name).read_text() == (here / name).read_text()


def test_an_address_that_takes_nothing_is_told_before_a_run(tmp_path: Path) -> None:
    Mirror(ADDRESS).check_writable()
    assert not fsspec.filesystem("memory").find("/")  # nothing of the probe stays
    (tmp_path / "file").touch()
    with pytest.raises(RadcapError, match=r"run\.mirror=.*cannot be written: "):
        Mirror(f"{tmp_path}/file/run").check_writable()


def test_an_error_of_any_kind_is_told_and_no_more(tmp_path: Path) -> None:
    class Refused(Exception):
        """File systems of clouds have errors of their own."""

    here = make_run(tmp_path / "here", 5)
    mirror = Mirror(ADDRESS)

    def refuse(*_: object, **__: object) -> None:
        raise Refused("403: quota")

    try:
        mirror._fs.put_file = refuse
        with pytest.raises(RadcapError, match=r"run\.mirror=memory.*403: quota"):
            mirror.push(here)
    finally:
        del mirror._fs.put_file
