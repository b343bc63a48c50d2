"""What a sweep makes of jobs that go wrong: it tells, and goes on with the others."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from radcap.config.compose import split_options, to_yaml
from radcap.errors import ConfigError
from radcap.files.durable import DurableFile
from radcap.sweep import run as sweeps
from radcap.sweep.jobs import plan
from radcap.sweep.process import Runner


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sweep(*words: str) -> int:
    return sweeps.sweep(*split_options(words))


def results(home: str) -> dict[str, dict[str, Any]]:
    jobs = json.loads(Path(home, "sweep.json").read_text())["jobs"]
    return {job["folder"]: job for job in jobs}


def ending(monkeypatch: pytest.MonkeyPatch, status: int) -> list[str]:
    """Let every job do nothing but end so. Returns the logs of those that were started."""
    started: list[str] = []

    def run(self: Runner, words: Sequence[str], log: Path) -> tuple[int, str]:
        DurableFile(log).close()
        started.append(log.name)
        return status, "radcap: no room"

    monkeypatch.setattr(Runner, "run", run)
    return started


def test_a_log_that_cannot_be_opened_is_one_jobs_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s/seed-1.log").mkdir(parents=True)
    (tmp_path / "s/sweep.json").touch()
    started = ending(monkeypatch, 1)
    assert sweep("seed=1,2", "run.dir=s", "runtime=cpu") == 1
    assert started == ["seed-2.log"]
    assert "Is a directory" in results("s")["seed-1"]["error"]
    assert "2 of 2 jobs failed" in capsys.readouterr().err


def test_results_that_cannot_be_written_keep_no_job_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s/sweep.json").mkdir(parents=True)
    started = ending(monkeypatch, 1)
    assert sweep("seed=1,2", "run.dir=s", "runtime=cpu") == 1
    assert started == ["seed-1.log", "seed-2.log"]
    out, err = capsys.readouterr()
    assert "warning: s/sweep.json cannot be written" in err and "results:" not in out


def test_a_damaged_summary_is_one_jobs_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("seed=1,2", "run.dir=s", "runtime=cpu")
    first = plan(*split_options(words))[0]
    (tmp_path / "s/seed-1").mkdir(parents=True)
    (tmp_path / "s/sweep.json").touch()
    (tmp_path / "s/seed-1/config.yaml").write_text(to_yaml(first.config))
    (tmp_path / "s/seed-1/summary.json").write_text('{"fini')
    started = ending(monkeypatch, 1)
    assert sweep(*words) == 1
    assert started == ["seed-2.log"]
    told = results("s")["seed-1"]["error"]
    assert "s/seed-1/summary.json is damaged" in told and "move s/seed-1 away" in told


def test_a_signal_without_a_name_is_told_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    ending(monkeypatch, -40)
    assert sweep("seed=1,2", "run.dir=s", "runtime=cpu") == 1
    assert results("s")["seed-1"]["error"] == "killed by signal 40"
    ending(monkeypatch, -signal.SIGKILL)
    assert sweep("seed=1,2", "run.dir=s", "runtime=cpu") == 1
    assert results("s")["seed-1"]["error"] == "killed by SIGKILL; out of memory?"


def test_no_sentence_of_it_is_wider_than_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ending(monkeypatch, 1)
    names = [f"the folder {name} of some data with a long name of many words" for name in "ab"]
    paths = ",".join(f"'{name}'" for name in names)
    assert sweep(f"data.path={paths}", f"data.cache={paths}", "run.dir=s", "runtime=cpu") == 1
    told = capsys.readouterr()
    lines = [line for line in (told.out + told.err).splitlines() if "all it said" not in line]
    assert "job 4 of 4: data.path=" in told.out and "job 4 of 4 (data.path=" in told.err
    assert max(len(line) for line in lines) <= 100


def test_the_folder_in_use_is_not_moved_aside(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(ConfigError, match="cannot be moved aside"):
        sweep("seed=1,2", "run.dir=.", "run.fresh=true", "runtime=cpu")
    assert (tmp_path / "sweep.json").is_file()
