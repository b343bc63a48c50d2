"""How long the default run takes to its first step, and each command to its --help."""

from __future__ import annotations

import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_pairs import processor_seconds
from bench_split import phantom_folder, say_load

import radcap
from radcap.host.console import say

_REPEATS = 3
_FIRST_STEP = re.compile(r"^first step after [\d.]+ s: (.*)$")
_TRAIN = [sys.executable, "-m", "radcap.train"]


def bench_startup(*, repeats: int = _REPEATS, words: tuple[str, ...] = ()) -> None:
    """Print medians in seconds, and processor seconds, which a busy machine stretches less.

    The run's own parts, from the start of its process; the phantom data set is drawn beforehand.

    Args:
        repeats: of each command.
        words: overrides of the run; none for the default run.
    """
    if not words:
        phantom_folder()
    say(f"{' '.join(['python -m radcap.train', *words])}, data cached, {repeats} times: seconds")
    runs = [_first_step(words) for _ in range(repeats)]
    for name in runs[0]:
        say(_line(name, [run[name] for run in runs]))
    say(_line("import alone, processor", [_import() for _ in range(repeats)]))
    say("--help")
    for command in commands():
        say(_line(command, [_help(command) for _ in range(repeats)]))
    say_load()


def _line(name: str, seconds: list[float]) -> str:
    median = statistics.median(seconds)
    return f"{name:24s} {median:6.2f}   ({min(seconds):.2f} to {max(seconds):.2f})"


def commands() -> list[str]:
    """The names of radcap's commands."""
    files = Path(radcap.__file__).parent.glob("*.py")
    found = {file.stem for file in files if b"sys.exit(run_command(" in file.read_bytes()}
    return sorted(found)


def _first_step(words: tuple[str, ...]) -> dict[str, float]:
    """Seconds by purpose, as the run says, and from the start of its process to its first step."""
    with tempfile.TemporaryDirectory(prefix="radcap-bench-") as folder:
        start = time.perf_counter()
        command = [*_TRAIN, f"run.dir={folder}/run", *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as process:
            assert process.stdout is not None
            for line in process.stdout:
                if found := _FIRST_STEP.match(line):
                    seconds = time.perf_counter() - start
                    processor = processor_seconds([process.pid])
                    process.kill()
                    break
            else:
                raise RuntimeError("the run ended before its first step")
    parts = dict(part.split() for part in found[1].split(", "))
    whole = {"first step": seconds, "first step, processor": processor}
    return {name: float(value) for name, value in parts.items()} | whole


def _import() -> float:
    """Processor seconds of the imports of a run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", "import radcap.training.loop"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _help(command: str) -> float:
    start = time.perf_counter()
    words = [sys.executable, "-m", f"radcap.{command}", "--help"]
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start
