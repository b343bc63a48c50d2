"""Commands in a process of their own, and what `python -m radcap.train` leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import programs
from programs import ROOT
from waiting import PATIENCE_S, wait_until

# 60 steps of the tiny model: an epoch's end lies inside, and a checkpoint at step 30.
WORDS = (
    "+experiment=smoke",
    "runtime=cpu",
    "trainer.max_steps=60",
    "trainer.save_every=15",
    "trainer.eval_every=20",
    "trainer.log_every=4",
    "trainer.samples=1",
)


def command(words: Sequence[str]) -> list[str]:
    """The trainer's line, in one process."""
    return [sys.executable, "-m", "radcap.train", *words]


def environment(cache: Path) -> dict[str, str]:
    # Any look at the network would fail at once, and loudly.
    offline = {"HF_HUB_OFFLINE": "1", "http_proxy": "http://127.0.0.1:9"}
    return {**os.environ, "RADCAP_CACHE": str(cache), "PYTHONPATH": str(ROOT), **offline}


def start_module(
    module: str,
    cwd: Path,
    cache: Path,
    *words: str,
    processes: int = 1,
    variables: Mapping[str, str] | None = None,
    **options: Any,
) -> Any:
    """Start one of radcap's commands; the rest is up to the caller.

    Args:
        options: further ones of `programs.popen`.

    Returns:
        What is used as a subprocess.Popen.
    """
    quick = programs.QUICK_XLA if "runtime=xla_cpu" in words else {}
    env = environment(cache) | quick | dict(variables or {})
    line = programs.launched(["-m", module, *words], processes, env)
    pipe = subprocess.PIPE
    streams = {"stdin": subprocess.DEVNULL, "stdout": pipe, "stderr": pipe}
    return programs.popen(line, cwd=cwd, env=env, **{**streams, **options})


def run_module(
    module: str, cwd: Path, cache: Path, *words: str, processes: int = 1, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run one of radcap's commands to its end, by torchrun for several processes."""
    process = start_module(module, cwd, cache, *words, processes=processes, variables=variables)
    return programs.finish(process)


def train(
    cwd: Path, cache: Path, *words: str, processes: int = 1, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Train to the end."""
    return run_module("radcap.train", cwd, cache, *words, processes=processes, **variables)


def start(cwd: Path, cache: Path, *words: str, processes: int = 1, **options: Any) -> Any:
    """Begin to train; the rest is up to the caller."""
    return start_module("radcap.train", cwd, cache, *words, processes=processes, **options)


def run_python(
    program: str, *words: str | Path, cwd: Path | None = None, **variables: str | None
) -> subprocess.CompletedProcess[str]:
    """Run a few lines of Python in a process of their own; see `run_interpreter`."""
    return run_interpreter("-c", program, *words, cwd=cwd, **variables)


def run_interpreter(
    *words: str | Path, cwd: Path | None = None, **variables: str | None
) -> subprocess.CompletedProcess[str]:
    """Run Python with these words, radcap in its reach.

    Args:
        cwd: its folder; None for this one.
        variables: of its environment, in addition to this one's; None takes one away.
    """
    env = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={name: value for name, value in env.items() if value is not None},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def summary(run: Path) -> dict[str, Any]:
    return json.loads((run / "summary.json").read_text())


def wait_for_step(run: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Wait until the step's line stands in metrics.jsonl."""
    file = run / "metrics.jsonl"

    def reached() -> bool:
        assert process.poll() is None, process.communicate()
        return file.exists() and file.read_text().count("\n") >= step

    wait_until(reached, f"step {step}")
