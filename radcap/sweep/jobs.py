"""The jobs of a sweep: each one's words, configuration and folder, all checked beforehand.

Imports no torch: a wrong value in the last job is refused as fast as one in the first.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from radcap.config.compose import Options, compose, config_folders, group_options
from radcap.config.options import declared
from radcap.config.overrides import Combination, combine, parse, quoted
from radcap.config.schema import Config, RunConfig, RuntimeConfig
from radcap.errors import ConfigError, RadcapError
from radcap.host.console import heartbeat
from radcap.runtime.launch import check_batch_size, find_launch, num_launched

_LONGEST_NAME = (
    120  # bytes of a job's folder; file systems take 255, with .log and .old-1 at its end
)
_BESIDE = re.compile(r"\.(log|old-\d+)$")  # how what lies beside a job's folder is called


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        number: its place in the sweep, from 1.
        of: how many jobs there are.
        swept: option or group -> value as text, of those that the sweep turns.
        words: the words of its own `python -m radcap.train`.
        config: what these compose to; `run.dir` is the job's folder.
    """

    number: int
    of: int
    swept: Mapping[str, str]
    words: tuple[str, ...]
    config: Config

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.config.run.dir)

    @property
    def log(self) -> Path:
        """What the job said, beside its folder: that is there only once the run begins."""
        return self.folder.with_name(f"{self.folder.name}.log")

    def __str__(self) -> str:
        return f"job {self.number} of {self.of}"

    @property
    def label(self) -> str:
        """What sets it apart, as on a command line."""
        return _label(self.swept)


def plan(words: Sequence[str], options: Options) -> list[Job]:
    """Every job of a sweep, composed and checked.

    The sweep's folder is `run.dir` where that is set, else RUN-sweep beside the run folder RUN of
    its jobs; where their experiments have names of their own, it is `sweep` there. Each job has a
    folder in it, named after its swept values, whatever the order of the words.

    Args:
        words: overrides, some with several values.
        options: the ordinary options of the command.

    Raises:
        ConfigError: naming the job, where one of them is wrong.
    """
    if num_launched() > 1:
        raise ConfigError(
            f"-m: torchrun started {num_launched()} processes, and a sweep starts its jobs itself, "
            "one process each; give it without torchrun"
        )
    groups = group_options(config_folders(options.config_dir))
    keys = [parse(word, groups).key_or_group for word in words]
    combinations = combine(words, groups)
    for key in combinations[0].swept:
        if key in declared(RunConfig, "run."):
            raise ConfigError(
                f"{key}: one value for the whole sweep, whose jobs get folders named after what "
                "differs"
            )
    count = len(combinations)
    configs = []
    # What is to be shown is perhaps read by a program: nothing else stands in between.
    signs = nullcontext() if options.show_config else heartbeat(f"checking {count} jobs", every_s=5)
    with signs:
        for number, found in enumerate(combinations, 1):
            with naming(f"job {number} of {count} ({_label(found.swept)})"):
                configs.append(compose(found.words, config_dir=options.config_dir))
    home = _home(configs, keys)
    ours = [] if options.config_dir is None else [f"--config-dir={options.config_dir}"]
    jobs = [
        _job(number, count, found, config, home, ours)
        for number, (found, config) in enumerate(zip(combinations, configs, strict=True), 1)
    ]
    _refuse_the_same_twice(jobs)
    return jobs


def check_machine(jobs: Sequence[Job]) -> None:
    """Look for what the jobs' devices need, as each job will.

    Raises:
        RadcapError: naming the first job that lacks something.
        ConfigError: there are several hosts; or naming a job.
    """
    looked_at: dict[RuntimeConfig, int] = {}
    for job in jobs:
        with naming(f"{job} ({job.label})"):
            runtime = job.config.runtime
            if runtime not in looked_at:
                with _environment_kept():
                    looked_at[runtime] = find_launch(runtime).num_processes
            check_batch_size(job.config.data.batch_size, 1, job.config.trainer.accumulate)
    if max(looked_at.values()) > 1:
        raise ConfigError(
            "-m: this TPU has several hosts, whose sweeps would not stay together; give each job "
            "as a command of its own, on all hosts"
        )


@contextmanager
def naming(who: str) -> Iterator[None]:
    """Let a refusal say which job it is about."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{who}: {error}") from None
    except RadcapError as error:
        raise RadcapError(f"{who}: {error}") from None


def folder_name(swept: Mapping[str, str]) -> str:
    """A job's folder: `optimizer.lr-0.0001+seed-1`, needing no quotes in a shell or an override.

    Values that such a name cannot hold, or that are too long, are told apart by a hash; so are
    those that would make it the name of another job's log or of a folder moved aside.
    """
    text = "+".join(f"{key}-{value}" for key, value in sorted(swept.items()))
    safe = re.sub(r"[^A-Za-z0-9._+-]+", "_", text)
    if safe == text and len(safe) <= _LONGEST_NAME and not _BESIDE.search(safe):
        return safe
    return f"{safe[:_LONGEST_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _label(swept: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in swept.items())


def _home(configs: Sequence[Config], keys: Sequence[str]) -> Path:
    """The sweep's folder."""
    folders = {config.run.dir for config in configs}
    if len(folders) == 1:
        (folder,) = folders
        return Path(folder if "run.dir" in keys else f"{folder}-sweep")
    parents = {Path(folder).parent for folder in folders}
    named = [key for key in ("run.dir", "run.name") if key in keys]
    if named or len(parents) > 1:
        raise ConfigError(
            f"{named[0] if named else 'run.dir'}: differs from job to job; give the sweep one "
            "folder, run.dir=FOLDER, and each job gets its own in it"
        )
    return parents.pop() / "sweep"


def _job(
    number: int, count: int, found: Combination, config: Config, home: Path, ours: Sequence[str]
) -> Job:
    name = folder_name(found.swept)
    run = dataclasses.replace(config.run, dir=str(home / name))
    words = [*ours, *found.words, f"run.dir={quoted(run.dir)}"]
    if run.mirror is not None:
        run = dataclasses.replace(run, mirror=f"{run.mirror.rstrip('/')}/{name}")
        words.append(f"run.mirror={quoted(run.mirror)}")
    config = dataclasses.replace(config, run=run)
    return Job(number, count, found.swept, tuple(words), config)


def _refuse_the_same_twice(jobs: Sequence[Job]) -> None:
    seen: dict[str, Job] = {}
    for job in jobs:
        alone = dataclasses.replace(job.config, run=jobs[0].config.run)
        for mark in (repr(alone), str(job.folder)):
            if mark in seen:
                raise ConfigError(
                    f"jobs {seen[mark].number} ({seen[mark].label}) and {job.number} "
                    f"({job.label}) of {job.of} are the same run; give each value once"
                )
            seen[mark] = job


@contextmanager
def _environment_kept() -> Iterator[None]:
    """What a look at the devices sets for this process is not for the jobs."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
