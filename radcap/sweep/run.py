"""A sweep: the same training with several values, one run after the other, and their results.

    sweep.json  JOB/ (a run folder)  JOB.log  ...

Every job is a `python -m radcap.train` in a process and a folder of its own. The same command again
runs what is not finished. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import errno
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from radcap.config.compose import Options, to_yaml
from radcap.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_STOPPED,
    ConfigError,
    RadcapError,
    first_line,
)
from radcap.files.locks import lock_folder
from radcap.files.mappings import read_mapping
from radcap.host.console import WIDTH, last_words, report, say, wrapped
from radcap.host.handlers import STOPPING
from radcap.sweep import results as sweep_results
from radcap.sweep.jobs import Job, check_machine, naming, plan
from radcap.sweep.process import Runner
from radcap.sweep.results import DONE, FAILED, STOPPED, WAITING, Result
from radcap.training.run.folder import RunFolder, check_movable, move_aside

_LOCK = ".sweep.lock"  # a run takes a folder with .lock for one of its own kind
_FILE = "sweep.json"

# How a run ends that is told to before it listens: by the signal, or as a shell would say it.
_BY_SIGNAL = {status for number in STOPPING for status in (-number, 128 + number)}


def sweep(words: Sequence[str], options: Options) -> int:
    """Run every job that is not finished, and tell what all of them came to.

    Args:
        words: overrides, some with several values.
        options: the ordinary options of the command.

    Returns:
        The exit status: 0 all are done, 1 one failed, 75 stopped by a signal.

    Raises:
        ConfigError: a job is wrong; none was started.
        RadcapError: the folder of the sweep or of a job cannot be used.
    """
    jobs = plan(words, options)
    if options.show_config:
        for job in jobs:
            say(f"# {job}: {job.label}\n---\n{to_yaml(job.config)}")
        return EXIT_DONE
    check_machine(jobs)
    home = jobs[0].folder.parent
    _check_place(home, fresh=jobs[0].config.run.fresh)
    results = [_standing(job) for job in jobs]
    try:
        home.mkdir(parents=True, exist_ok=True)
        remedy = "choose another run.name"
        lock = lock_folder(home, remedy, name=_LOCK)
        if jobs[0].config.run.fresh and (home / _FILE).is_file():
            lock.follow(move_aside(home))
            lock.close()
            home.mkdir()
            lock = lock_folder(home, remedy, name=_LOCK)
    except OSError as error:
        raise RadcapError(f"{home} cannot be used: {error.strerror or error}") from None
    with lock:
        return _run(words, home, results)


def _run(words: Sequence[str], home: Path, results: list[Result]) -> int:
    finished = sum(result.status == DONE for result in results)
    before = f", {finished} of them finished before" if finished else ""
    say(f"sweep:  {home}, {len(results)} jobs{before}")
    runner = Runner()
    with runner.listening():
        for place, waiting in enumerate(results):
            _write(home, words, results)
            if runner.stopping:
                break
            if waiting.status != WAITING:
                continue
            say("")
            say(wrapped(f"{waiting.job}: {waiting.job.label}"))
            results[place] = found = _carry_out(runner, waiting.job)
            if found.status == FAILED:
                _report(f"{found.job} ({found.job.label}) failed")
            if found.status == STOPPED:
                break
        written = _write(home, words, results)
    status = _conclude(home, results, written)
    return status if written else status or EXIT_FAILED


def _write(home: Path, words: Sequence[str], results: Sequence[Result]) -> bool:
    """Write sweep.json, or warn: the jobs go on, and the next write holds all of them again."""
    try:
        sweep_results.write(home / _FILE, words, results)
    except RadcapError as error:
        _report(f"warning: {error}")
        return False
    return True


def _carry_out(runner: Runner, job: Job) -> Result:
    try:
        status, said = runner.run([sys.executable, "-m", "radcap.train", *job.words], job.log)
    except (RadcapError, OSError) as error:  # its log or its process: the next ones may do better
        return Result(job, FAILED, first_line(error))
    if status == EXIT_DONE:
        run = dataclasses.replace(job.config.run, fresh=False)  # it is what was to be made
        done = dataclasses.replace(job, config=dataclasses.replace(job.config, run=run))
        try:
            return _standing(done)
        except RadcapError as error:
            return Result(job, FAILED, str(error))
    # By a signal to the job alone, too: whoever stops one job means the sweep.
    if status == EXIT_STOPPED or (runner.stopping and status in _BY_SIGNAL):
        return Result(job, STOPPED)
    if status < 0:
        name = _signal_name(-status)
        hint = "; out of memory?" if -status == signal.SIGKILL else ""
        return Result(job, FAILED, f"killed by {name}{hint}")
    return Result(job, FAILED, last_words(said))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of the real-time signals
        return f"signal {number}"


def _standing(job: Job) -> Result:
    """Whether a job is finished, by its folder, which is not touched.

    Damage to one job's folder is that job's failure, and no reason to keep the others waiting.

    Raises:
        ConfigError: the folder holds a run with other settings.
        RadcapError: another process uses it.
    """
    if not job.config.run.fresh and (damaged := _damaged(job.folder)) is not None:
        remedy = f"put it right, or move {job.folder} away and it is made anew"
        return Result(job, FAILED, f"{damaged} is damaged; {remedy}")
    with naming(f"{job} ({job.label})"):
        folder = RunFolder.look(job.config)
    return Result(job, DONE, summary=folder.summary()) if folder.finished else Result(job)


def _damaged(folder: Path) -> Path | None:
    """The first file of a run folder that is no mapping, if there is one."""
    for file in (folder / "summary.json", folder / "versions.json"):
        try:
            if file.exists() and read_mapping(file) is None:
                return file
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EFBIG):  # a pipe, or what no run has written
                return file
            raise RadcapError(f"{file} cannot be read: {error.strerror}") from None
    return None


def _check_place(home: Path, *, fresh: bool) -> None:
    is_sweep = (home / _FILE).exists() or (home / _LOCK).exists()
    try:
        taken = home.exists() and not is_sweep and any(home.iterdir())
    except OSError as error:
        raise RadcapError(f"{home} cannot be used: {error.strerror}") from None
    if taken:
        raise ConfigError(f"{home}: the folder is not empty and holds no sweep; choose another")
    if fresh:
        check_movable(home)


def _report(text: str) -> None:
    report(wrapped(text, width=WIDTH - len("radcap: ")))


def _conclude(home: Path, results: Sequence[Result], written: bool) -> int:
    say("")
    for line in sweep_results.table(results):
        say(line)
    if written:
        say(f"results: {home / _FILE}")
    say(f"curves:  tensorboard --logdir {quote(str(home))}")
    statuses = {result.status for result in results}
    again = "the same command"
    if results[0].job.config.run.fresh:
        again += " without run.fresh=true"
    if statuses & {STOPPED, WAITING}:
        left = sum(result.status != DONE for result in results)
        say(f"stopped; {again} goes on with what is left, {left} of {len(results)} jobs")
        return EXIT_STOPPED
    if FAILED in statuses:
        failed = sum(result.status == FAILED for result in results)
        _report(f"{failed} of {len(results)} jobs failed; {again} runs these again")
        return EXIT_FAILED
    return EXIT_DONE
