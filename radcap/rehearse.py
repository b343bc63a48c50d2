"""`python -m radcap.rehearse`: kill a run, start it again, compare it with an unbroken one."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from radcap.config.overrides import quoted
from radcap.errors import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, ConfigError, RadcapError
from radcap.host.console import heartbeat, last_words, run_command, say
from radcap.training.run.folder import move_aside

USAGE = """
usage: python -m radcap.rehearse [OVERRIDE ...] [--config-dir FOLDER] [--show-config]

The proof before paying for a week: trains the configured run twice, once unbroken and once killed
at the steps given (SIGKILL and SIGTERM in turn) and started again, and compares both curves.

overrides: those of python -m radcap.train, and
  rehearse.kill_at=[5,12]   steps at which the run is killed
  rehearse.tolerance=1e-3   largest relative difference of a loss that counts as the same

The two runs lie in RUN-rehearsal/unbroken and RUN-rehearsal/broken beside the run folder; what an
earlier rehearsal left there is moved aside.

options:
  --config-dir FOLDER   a folder of your own with experiment/NAME.yaml and the like
  --show-config         print the whole configuration and stop
  -h, --help            print this and stop

exit status:
  0 the curves are the same   1 they differ, or a run failed   2 wrong configuration

examples:
  python -m radcap.rehearse +experiment=smoke
  python -m radcap.rehearse +experiment=epoch1 trainer.max_steps=60 rehearse.kill_at=[20,45]
"""

_POLL_S = 0.02
_SIGNALS = (signal.SIGKILL, signal.SIGTERM)


def main(words: Sequence[str]) -> int:
    """Train twice and compare.

    Returns:
        The exit status.
    """
    from radcap.config.compose import read_command_line

    config = read_command_line(words)
    if config is None:
        return EXIT_DONE
    kills = sorted(set(config.rehearse.kill_at))
    home = Path(f"{config.run.dir}-rehearsal")
    start = time.monotonic()
    say(f"the unbroken run: {home / 'unbroken'}")
    unbroken = _Trial(home / "unbroken", words)
    unbroken.finish()
    took = time.monotonic() - start
    last = max(unbroken.losses(), default=0)
    if kills and kills[-1] >= last:
        raise ConfigError(f"rehearse.kill_at={kills}: the run has only {last} steps")
    broken = _Trial(home / "broken", words)
    say(f"the broken run:   {home / 'broken'}")
    for number, step in enumerate(kills):
        broken.kill(step, _SIGNALS[number % len(_SIGNALS)])
    broken.finish()
    return _compare(unbroken, broken, config.rehearse.tolerance, took)


class _Trial:
    """One of the two runs.

    Attributes:
        breaks: (signal, step reached) of each kill.
    """

    def __init__(self, folder: Path, words: Sequence[str]) -> None:
        self.folder = folder
        self._words = [*words, f"run.dir={quoted(str(folder))}", "run.mirror=null"]
        if folder.exists():
            move_aside(folder)
        self.breaks: list[tuple[str, int]] = []

    def finish(self) -> None:
        """Run to the end."""
        process = self._start()
        with heartbeat(self._progress):
            _, errors = process.communicate()
        if process.returncode != 0:
            raise RadcapError(_failure(process.returncode, errors))

    def kill(self, step: int, number: signal.Signals) -> None:
        """Run until `step` is logged, then send a signal."""
        process = self._start()
        with heartbeat(self._progress):
            while step not in self.losses():
                if process.poll() is not None:
                    _, errors = process.communicate()
                    raise RadcapError(_failure(process.returncode, errors))
                time.sleep(_POLL_S)
            process.send_signal(number)
            _, errors = process.communicate()
        reached = max(self.losses())
        expected = -number if number == signal.SIGKILL else EXIT_STOPPED
        if process.returncode != expected:
            raise RadcapError(
                f"after {number.name} the run ended with status {process.returncode}, not "
                f"{expected}: {last_words(errors)}"
            )
        say(f"  {number.name} after step {reached}")
        self.breaks.append((number.name, reached))

    def losses(self) -> dict[int, float]:
        """Step -> loss, of the whole lines of metrics.jsonl."""
        found: dict[int, float] = {}
        for record in self.records():
            found[record["step"]] = record["loss"]
        return found

    def records(self) -> list[dict[str, Any]]:
        """The whole lines of metrics.jsonl."""
        try:
            text = (self.folder / "metrics.jsonl").read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]

    def _progress(self) -> str:
        return f"{self.folder}, step {max(self.losses(), default=0):,}"

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "radcap.train", *self._words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )


def _compare(unbroken: _Trial, broken: _Trial, tolerance: float, took: float) -> int:
    expected, found = unbroken.losses(), broken.losses()
    lines = len(broken.records())
    worst = max((_difference(expected[s], found.get(s, math.nan)) for s in expected), default=0.0)
    say("\n       step  unbroken loss    broken loss  difference")
    shown = sorted({1, max(expected), *(n for _, s in broken.breaks for n in (s, s + 1))})
    for step in (s for s in shown if s in expected):
        ours = found.get(step, math.nan)
        mark = next((f"  {name}" for name, at in broken.breaks if at == step), "")
        say(
            f"{step:11d}  {expected[step]:13.8f}  {ours:13.8f}  "
            f"{_difference(expected[step], ours):10.1e}{mark}"
        )
    exact = expected == found
    same = worst <= tolerance and expected.keys() == found.keys() and lines == len(found)
    how = "bit for bit the same" if exact else f"within {worst:.1e} of each other, relatively"
    say(
        f"\n{len(broken.breaks)} kills, {len(expected):,} steps, each with one value: {how}"
        if same
        else f"\nthe curves differ: by up to {worst:.1e}, {len(expected):,} steps against "
        f"{len(found):,} in {lines:,} lines"
    )
    say(f"the unbroken run took {took:.0f} s")
    return EXIT_DONE if same else EXIT_FAILED


def _difference(one: float, other: float) -> float:
    """Relative difference; infinite where one of the two is missing."""
    if math.isnan(other) or math.isnan(one):
        return math.inf
    return abs(one - other) / max(abs(one), 1e-12)


def _failure(status: int, errors: str) -> str:
    return f"the run ended with status {status}: {last_words(errors)}"


if __name__ == "__main__":
    sys.exit(run_command(main, USAGE))
