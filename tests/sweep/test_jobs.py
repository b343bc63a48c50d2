"""The jobs of a sweep: checked before any of them starts, each in a folder of its own."""

from __future__ import annotations

import os
import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radcap.config.compose import compose, split_options
from radcap.config.overrides import parse_single
from radcap.errors import ConfigError
from radcap.runtime.launch import Launch
from radcap.sweep.jobs import Job, check_machine, folder_name, plan


def jobs_of(*words: str) -> list[Job]:
    return plan(*split_options(words))


def test_each_has_its_folder_whatever_the_order_of_the_words() -> None:
    folders = [job.folder for job in jobs_of("optimizer.lr=1e-4,3e-4", "seed=1,2")]
    assert len(set(folders)) == 4
    assert Path("runs/default-sweep/optimizer.lr-0.0001+seed-1") in folders
    # More values leave the folders of those before.
    more = {job.folder for job in jobs_of("seed=2,1", "optimizer.lr=0.0003,1e-4,1")}
    assert set(folders) < more
    assert len(more) == 6


@pytest.mark.parametrize(
    "words",
    [
        ("seed=1,2", "run.mirror=gs://bucket/a"),
        ("data.path='a b','a,b','it\\'s [x]','ü{}:#',null", "run.dir='odd, name'"),
        ("optimizer.betas=[0.9,0.99],[0.9,0.999]", "+experiment=smoke"),
        ("+experiment=smoke,epoch1", "seed=3"),
        ("model=glob(*)", "run.fresh=true"),
    ],
)
def test_its_words_alone_give_its_configuration(words: tuple[str, ...]) -> None:
    jobs = jobs_of(*words)
    assert len(jobs) > 1
    for job in jobs:
        assert compose(job.words) == job.config
    assert len({job.folder for job in jobs}) == len(jobs)


values = st.text(min_size=1, max_size=200)


@settings(max_examples=40)
@given(st.lists(values, min_size=2, max_size=2, unique=True), values)
def test_names_of_folders_are_safe_and_differ(texts: list[str], other: str) -> None:
    names = [folder_name({"data.path": text, "a": other}) for text in texts]
    assert names[0] != names[1]
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9._+-]{1,150}", name)
        assert parse_single(f"run.dir=runs/{name}").value() == f"runs/{name}"  # needs no quotes


def test_no_folder_is_anothers_log_or_older_one() -> None:
    jobs = jobs_of("data.path=a,a.log,a.old-1")
    beside = {jobs[0].log, jobs[0].folder.with_name(f"{jobs[0].folder.name}.old-1")}
    assert not beside & {job.folder for job in jobs}


def test_where_the_sweep_lies() -> None:
    def home(*words: str) -> str:
        (found,) = {str(job.folder.parent) for job in jobs_of(*words)}
        return found

    assert home("seed=1,2") == "runs/default-sweep"
    assert home("seed=1,2", "run.name=mine") == "runs/mine-sweep"
    assert home("seed=1,2", "run.dir=here") == "here"
    assert home("+experiment=smoke,epoch1") == "runs/sweep"
    assert home("+experiment=smoke,epoch1", "run.name=mine") == "runs/mine-sweep"


def test_a_mirror_has_a_place_for_each() -> None:
    mirrors = [job.config.run.mirror for job in jobs_of("seed=1,2", "run.mirror=gs://b/x/")]
    assert mirrors == ["gs://b/x/seed-1", "gs://b/x/seed-2"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("seed=1,2", "optimizer.lr=1e-3,-1"), "job 2 of 4 (seed=1 optimizer.lr=-1): optimizer.lr"),
        (("model.num_heads=4,7",), "job 2 of 2 (model.num_heads=7): model.num_heads=7: "),
        (("model=small,tinny",), "job 2 of 2 (model=tinny): model=tinny: there are"),
        (("seed=1,2", "trainer.max_stepz=5"), "did you mean trainer.max_steps?"),
        (("optimizer.lr=1e-3,2e-3,0.001",), "jobs 1 (optimizer.lr=0.001) and 3 "),
        (("run.name=a,b",), "run.name: one value for the whole sweep"),
        (("run.dir=a,b",), "run.dir: one value"),
        (("run.fresh=true,false",), "run.fresh: one value"),
        (("seed=1,2", "run.name=s${seed}"), "run.name: differs from job to job"),
        (("seed=1,2", "run.dir=runs/s${seed}"), "run.dir: differs from job to job"),
        (("seed=1,2", "hydra.sweep.dir=x"), "radcap writes into run.dir alone"),
    ],
)
def test_a_wrong_job_is_refused_by_name(words: tuple[str, ...], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        jobs_of(*words)
    assert told in str(caught.value)


def test_many_jobs_give_signs_of_life_but_not_into_what_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []

    def heartbeat(text: str, *, every_s: float) -> AbstractContextManager[None]:
        said.append(text)
        return nullcontext()

    monkeypatch.setattr("radcap.sweep.jobs.heartbeat", heartbeat)
    jobs_of("seed=1,2", "--show-config")
    assert said == []
    jobs_of("seed=1,2")
    assert said == ["checking 2 jobs"]


def test_a_device_that_is_not_here_is_told_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CPU_NUM_DEVICES", raising=False)
    before = dict(os.environ)
    check_machine(jobs_of("runtime=xla_cpu,cpu", "data.batch_size=8"))
    with pytest.raises(ConfigError, match=r"job 2 of 2 \(runtime\.devices=8\)"):
        check_machine(jobs_of("runtime.devices=null,8", "runtime=cpu"))
    assert dict(os.environ) == before  # what one job's device needs is not for the next


def test_several_processes_or_hosts_do_not_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = jobs_of("seed=1,2")
    monkeypatch.setattr("radcap.sweep.jobs.find_launch", lambda _: Launch(0, 4))
    with pytest.raises(ConfigError, match="several hosts"):
        check_machine(jobs)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="without torchrun"):
        jobs_of("seed=1,2")
