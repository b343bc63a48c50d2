"""Kills a training run at random moments, again and again, and looks at what each kill leaves."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from command_line import command, environment, train
from waiting import PATIENCE_S, wait_until

from radcap.training.run.checkpoint import list_checkpoints, load_checkpoint

NUM_STEPS, SAVE_EVERY, EVAL_EVERY = 200, 5, 20
WORDS = (
    "+experiment=smoke",
    "runtime=cpu",
    "runtime.threads=1",
    f"trainer.max_steps={NUM_STEPS}",
    f"trainer.save_every={SAVE_EVERY}",
    f"trainer.eval_every={EVAL_EVERY}",
    "trainer.log_every=1",
    "trainer.caption_rows=8",
    "trainer.samples=2",
    "data.batch_size=4",
    "data.workers=1",
)
# What else may change the way of a run; FOLDER is a data set's, and local_copy asks a Hub for it.
SHORT_STEPS = 60
VARIANTS = {
    "accumulate": ("trainer.accumulate=2",),
    "dropout": ("model.dropout=0.3",),
    "folder": ("data.path=FOLDER",),
    "cache": ("data.path=FOLDER", "data.cache=kept"),
    "decoded": ("data.path=FOLDER", "data.cache=kept", "data.cache_decoded=true"),
    "local_copy": ("data=radimagenet_vqa", "data.local_copy=kept"),
    "lengthened": (),  # when it was finished
}
COMBINED = ("accumulate", "dropout", "decoded", "lengthened")
STOPPED = 75
# A later kill might come after the end: a validation is waited for, and perhaps a second one.
_BEFORE_END = 2 * EVAL_EVERY


@dataclass(frozen=True)
class Kill:
    """One kill, as planned.

    Attributes:
        phase: `start`, `step`, `save` or `validation`.
        step: the earliest step at which it comes.
        number: the signal.
        delay: how far into the phase, as a share of its usual length.
    """

    phase: str
    step: int
    number: signal.Signals
    delay: float


@dataclass(frozen=True)
class Found:
    """What a kill left.

    Attributes:
        step: last step with a line in metrics.jsonl.
        saved: newest whole checkpoint.
        in_phase: whether the phase was under way at the signal: no step yet, a checkpoint half
            written, a validation without its line.
        stop_s: seconds from the signal to the end of the process, to be told.
    """

    step: int
    saved: int
    in_phase: bool
    stop_s: float


def plan(count: int, seed: int, num_steps: int = NUM_STEPS) -> list[Kill]:
    """Kills in the order of their steps: of five, two in steps and one of each other phase."""
    draw = random.Random(seed)
    phases = (["step", "save", "step", "validation", "start"] * count)[:count]
    draw.shuffle(phases)
    steps = sorted(draw.randint(1, num_steps - _BEFORE_END) for _ in phases)
    return [
        Kill(
            phase,
            step,
            signal.SIGTERM if draw.random() < 0.25 else signal.SIGKILL,
            draw.random(),
        )
        for phase, step in zip(phases, steps, strict=True)
    ]


def carry_out(
    kill: Kill,
    cwd: Path,
    cache: Path,
    start_s: float,
    words: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
) -> Found:
    """Start the run (again), kill it as planned, and check what is left of it.

    Args:
        start_s: seconds that a process takes to its first step.
        words: of the command, beside those that all runs have.
        variables: of its environment, likewise.
    """
    run = cwd / "runs" / "smoke"
    began = time.time()
    with (cwd / "tmp" / "errors").open("w+") as errors_file:
        process = subprocess.Popen(
            command([*WORDS, *words]),
            cwd=cwd,
            env=environment(cache) | {"TMPDIR": str(cwd / "tmp"), **(variables or {})},
            stdout=subprocess.DEVNULL,
            stderr=errors_file,
        )
        _wait_for(kill, process, run, began)
        length = {"start": start_s, "step": 0.05, "save": 0.1, "validation": 0.2}[kill.phase]
        time.sleep(kill.delay * length)
        in_phase = _in_phase(kill.phase, run, began)
        sent = time.monotonic()
        process.send_signal(kill.number)
        process.wait(PATIENCE_S)
        stop_s = time.monotonic() - sent
        errors_file.seek(0)
        errors = errors_file.read()
    (cwd / "tmp" / "errors").unlink()
    expected = {signal.SIGKILL: {-signal.SIGKILL}, signal.SIGTERM: {STOPPED}}[kill.number]
    if kill.phase == "start":
        expected = expected | {-kill.number, 128 + kill.number}
    assert process.returncode in expected, (kill, process.returncode, errors)
    assert "Traceback" not in errors, errors
    # What is trained can stop by itself, before the grace is over.
    assert kill.phase == "start" or "not stopped" not in errors, errors
    found = Found(_last_step(run), _newest(run), in_phase, stop_s)
    if process.returncode == STOPPED:
        assert found.saved == found.step, (kill, found)
    return found


def finish(
    cwd: Path, cache: Path, words: Sequence[str] = (), variables: Mapping[str, str] | None = None
) -> None:
    """Run to the end."""
    (cwd / "tmp").mkdir(exist_ok=True)
    done = train(cwd, cache, *WORDS, *words, TMPDIR=str(cwd / "tmp"), **(variables or {}))
    assert done.returncode == 0, done.stderr


def _wait_for(kill: Kill, process: subprocess.Popen[bytes], run: Path, began: float) -> None:
    """Wait for the beginning of the phase, at its step or the first one after it."""
    if kill.phase == "start":
        return

    def reached(every: int) -> bool:
        step = _last_step(run, since=began)
        return step >= kill.step and step % every == 0

    _wait(process, lambda: reached(EVAL_EVERY if kill.phase == "validation" else 1))
    if kill.phase == "save":
        _wait(process, lambda: any(_partials(run)))


def _wait(process: subprocess.Popen[bytes], reached: Callable[[], bool]) -> None:
    def running() -> bool:
        assert process.poll() is None, f"the run ended with status {process.returncode}"
        return reached()

    wait_until(running, "the moment of the kill", every_s=0.002)


def _in_phase(phase: str, run: Path, began: float) -> bool:
    step = _last_step(run, since=began)
    return {
        "start": step == 0,
        "step": step > 0,
        "save": any(_partials(run)),
        "validation": step % EVAL_EVERY == 0 and step not in _validated(run),
    }[phase]


def _newest(run: Path) -> int:
    """Step of the newest checkpoint; every one there has to be whole."""
    steps = [load_checkpoint(path).step for path in list_checkpoints(run / "checkpoints")]
    return max(steps, default=0)


def _partials(run: Path) -> Iterator[Path]:
    return (run / "checkpoints").glob(".step-*.partial")


def _last_step(run: Path, since: float = 0.0) -> int:
    """Step of the last whole line of metrics.jsonl, 0 where it was written before `since`."""
    try:
        lines = (run / "metrics.jsonl").read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return 0
    record = json.loads(lines[-1]) if lines else {"step": 0, "time": 0.0}
    return record["step"] if record["time"] >= since else 0


def _validated(run: Path) -> set[int]:
    file = run / "val_metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return {json.loads(line)["step"] for line in lines if line.endswith("\n")}
