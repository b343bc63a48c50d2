"""`python -m radcap.train -m` as a user runs it."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import metrics, run_module, start, summary, train, wait_for_step
from waiting import PATIENCE_S

from radcap.config.compose import read_command_line
from radcap.errors import ConfigError

# Runs of seconds.
SMOKE = (
    "+experiment=smoke",
    "runtime=cpu",
    "runtime.threads=1",
    "trainer.max_steps=12",
    "trainer.log_every=1",
    "trainer.eval_every=null",
    "trainer.save_every=null",
    "trainer.caption_rows=4",
    "trainer.samples=0",
    "data.batch_size=4",
)


def started(out: str) -> list[int]:
    """Numbers of the jobs that a sweep started."""
    return [int(number) for number in re.findall(r"^job (\d+) of \d+: ", out, re.MULTILINE)]


def results(home: Path) -> dict[str, dict[str, Any]]:
    """The entries of sweep.json by the job's folder."""
    content = json.loads((home / "sweep.json").read_text())
    return {job["folder"]: job for job in content["jobs"]}


def test_a_wrong_value_in_the_last_job_is_refused_before_the_first(
    tmp_path: Path, cache: Path
) -> None:
    done = train(tmp_path, cache, "-m", "optimizer.lr=1e-3,2e-3,-1")
    assert done.returncode == 2
    assert re.fullmatch(r"(checking 3 jobs(: \d+ s so far)?\n)*", done.stdout)  # if that takes long
    assert done.stderr == (
        "radcap: job 3 of 3 (optimizer.lr=-1): optimizer.lr=-1.0: must be above 0\n"
    )
    assert not list(tmp_path.iterdir())


def test_only_the_trainer_sweeps(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(ConfigError, match=r"-m: only python -m radcap\.train sweeps"):
        read_command_line(["--multirun", "seed=1,2"])
    for command in ("rehearse", "doctor"):
        done = run_module(f"radcap.{command}", tmp_path, cache, "-m", "seed=1,2")
        assert done.returncode == 2
        assert "only python -m radcap.train sweeps" in done.stderr


def test_the_configuration_of_every_job_can_be_seen(tmp_path: Path, cache: Path) -> None:
    done = train(tmp_path, cache, "-m", "--show-config", "seed=1,2")
    assert done.returncode == 0, done.stderr
    shown = [found for found in yaml.safe_load_all(done.stdout) if found]
    assert [(found["seed"], found["run"]["dir"]) for found in shown] == [
        (1, "runs/default-sweep/seed-1"),
        (2, "runs/default-sweep/seed-2"),
    ]
    assert not list(tmp_path.iterdir())


def test_a_folder_of_something_else_is_no_sweeps(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("")
    done = train(tmp_path, cache, "-m", "seed=1,2", "run.dir=mine")
    assert done.returncode == 2 and "holds no sweep" in done.stderr
    # Nor is a sweep's folder a run's.
    (tmp_path / "swept").mkdir()
    for name in (".sweep.lock", "sweep.json"):
        (tmp_path / "swept" / name).write_text("{}")
    done = train(tmp_path, cache, "run.dir=swept", "runtime=cpu")
    assert done.returncode == 2 and "holds no run" in done.stderr


@pytest.mark.slow
def test_a_failure_hides_nothing_and_is_all_that_runs_again(tmp_path: Path, cache: Path) -> None:
    from radcap.data.phantom.dataset import write_phantom

    write_phantom(tmp_path / "a", train_rows=40, val_rows=16, processes=1)
    for name in ("c", "d"):
        (tmp_path / name).symlink_to("a")
    words = ("-m", *SMOKE, "debug.limit=2", "data.path=a,b,c,d", "run.name=paths")
    done = train(tmp_path, cache, *words)
    home = tmp_path / "runs/paths-sweep"
    assert done.returncode == 1
    assert started(done.stdout) == [1, 2, 3, 4]
    found = results(home)
    assert [found[f"data.path-{name}"]["status"] for name in "abcd"] == [
        "done", "failed", "done", "done"
    ]  # fmt: skip
    assert "b is not a folder" in found["data.path-b"]["error"]
    assert "b is not a folder" in (home / "data.path-b.log").read_text()
    table = done.stdout.partition("val loss")[2]
    assert table.count(" done\n") == 3 and table.count(" failed\n") == 1
    assert "job 2 of 4 (data.path=b) failed: " in table and "b is not a folder" in table
    assert "1 of 4 jobs failed" in done.stderr and "Traceback" not in done.stdout + done.stderr
    # The same rows and seed by another name: the same losses.
    assert found["data.path-a"]["val_loss"] == found["data.path-d"]["val_loss"]

    (tmp_path / "b").symlink_to("a")
    again = train(tmp_path, cache, *words)
    assert again.returncode == 0, again.stderr
    assert started(again.stdout) == [2]
    assert {job["status"] for job in results(home).values()} == {"done"}
    assert {path.name for path in home.iterdir() if path.is_dir()} == set(found)


@pytest.mark.slow
def test_a_stopped_sweep_goes_on_and_its_runs_are_those_of_the_command_alone(
    tmp_path: Path, cache: Path
) -> None:
    from training.log.test_dashboard import session_groups

    home = tmp_path / "runs/smoke-sweep"
    words = ("-m", *SMOKE, "seed=1,2")
    first, last = home / "seed-1", home / "seed-2"
    process = start(tmp_path, cache, *words)
    wait_for_step(first, 2, process)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 75, errors
    assert "SIGINT: saving, then stopping" in out
    assert out.splitlines()[-1] == (
        "stopped; the same command goes on with what is left, 2 of 2 jobs"
    )
    statuses = [job["status"] for job in results(home).values()]
    assert statuses == ["stopped", "waiting"]

    began = time.time()
    done = train(tmp_path, cache, *words)
    assert done.returncode == 0, done.stderr
    assert started(done.stdout) == [1, 2]
    assert summary(first)["resumed_from"] >= 2
    found = results(home)
    losses = [job["val_loss"] for job in found.values()]
    assert losses == sorted(losses) and len(found) == 2
    for name, job in found.items():
        assert job["val_loss"] == summary(home / name)["val_loss"]
    assert re.search(r"^\*", done.stdout, re.MULTILINE)

    # The second one alone: bit for bit the same, whatever ran before it.
    alone = train(tmp_path, cache, *SMOKE, "seed=2")
    assert alone.returncode == 0, alone.stderr
    for name in ("loss", "grad_norm", "lr", "tokens"):
        expected = [line[name] for line in metrics(tmp_path / "runs/smoke")]
        assert [line[name] for line in metrics(last)] == expected, name
    assert summary(last)["val_loss"] == summary(tmp_path / "runs/smoke")["val_loss"]

    # TensorBoard has a line for each, with the swept values.
    groups = session_groups(home)
    assert [group["name"] for group in groups] == list(found)
    for group in groups:
        assert group["hparams"]["seed"] == int(found[group["name"]]["overrides"]["seed"])

    # All are finished; fresh ones are made beside.
    assert metrics(first)[-1]["time"] > began
    told = train(tmp_path, cache, *words)
    assert told.returncode == 0 and started(told.stdout) == []
    assert "2 jobs, 2 of them finished before" in told.stdout
    fresh = train(tmp_path, cache, *words, "run.fresh=true", "data.path=nowhere")
    assert fresh.returncode == 1
    assert started(fresh.stdout) == [1, 2]
    assert {job["status"] for job in results(home).values()} == {"failed"}
    assert results(home.with_name("smoke-sweep.old-1")) == found
