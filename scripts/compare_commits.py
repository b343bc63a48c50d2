"""Proves that a change of radcap's code changes nothing else: compares what two commits compute.

usage: python scripts/compare_commits.py OLD [NEW] [--quick]

OLD, NEW   any revision of git; NEW left out, or `.`: the working tree of this folder's checkout,
           with files that are not committed yet
--quick    leaves the compiled v3-8 step out, which takes the longest

Both are checked out into a temporary folder and measured by their own code, OLD and NEW side by
side on one core each, then OLD once more on two. Compared bit by bit, in the order of a row's way:

    data set          the phantom's files
    word pieces       captions as tokens
    row order         which captions make which batch; tokens of each step of the default run
    pixels            pictures as the model gets them: an epoch's, the phantom's, other files'
    initial weights   as drawn from the seed
    model outputs     on golden weights and inputs: memory, logits, loss, generated ids
    gradients         likewise
    optimizer update  what the optimizer makes of fixed weights and gradients
    learning rate     the schedule
    losses            and gradient norms: 50 steps of the default run, which has no dropout; 20 with
                      dropout, clipping, weight decay and micro-batches
    8 devices         5 steps of a tiny model on virtual XLA devices
    captions          of 16 pictures, by golden weights
    compiled step     epoch1's for v3-8, by radcap.preflight: program, FLOPs, bytes, collectives

The first eight and the captions' weights are given, so that a difference there is the part's own;
losses, devices and captions follow from all of them. The last column compares OLD with itself on
two threads: what rounding alone does.

exit status:
  0 nothing differs   1 something does, or NEW lacks what OLD has   2 wrong arguments
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
from bench_pairs import machine_load
from compare_checkout import WORKING_TREE, check_out, checkout_root

from radcap.errors import EXIT_DONE, EXIT_FAILED, RadcapError
from radcap.host.console import Arguments, run_command, say, wrapped
from radcap.host.handlers import STOPPING, handled

PARTS = (
    *("data set", "word pieces", "row order", "pixels", "initial weights", "model outputs"),
    *("gradients", "optimizer update", "learning rate", "losses", "8 devices", "captions"),
    "compiled step",
)
# Where the number of threads has a say.
_WITH_THREADS = ("default run", "dropout", "model", "captions")
_ROW = "{:16.16s}  {:33.33s}  {:24.24s}  {:.21s}"
_SAME, _NONE = "same", "-"
_LISTED = 9999  # entries up to which the index of the first difference is of use
_KILLED_WITHIN_S = 10.0
_MEASURE = Path(__file__).with_name("compare_measure.py")


@dataclass(frozen=True)
class Measured:
    """What a commit computes: arrays by `PART|WHAT`, and the reason for each stage it lacks."""

    arrays: Mapping[str, np.ndarray]
    lacks: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path) -> Measured:
        with np.load(folder / "measured.npz") as stored:
            arrays = {name: stored[name] for name in stored}
        return cls(arrays, json.loads((folder / "lacks.json").read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        change: OLD to NEW, as text; `same` where every bit is.
        spread: OLD on one thread to OLD on two, likewise; `-` where threads have no part.
        counts: whether the change is a difference.
    """

    part: str
    what: str
    change: str
    spread: str
    counts: bool


def difference(old: np.ndarray, new: np.ndarray) -> str:
    """How two arrays differ, as text; `same` where every bit is."""
    if old.shape != new.shape or old.dtype.kind != new.dtype.kind:
        return f"{_form(old)} -> {_form(new)}"
    if old.dtype == new.dtype and old.tobytes() == new.tobytes():
        return _SAME
    if old.dtype != new.dtype and old.dtype.kind != "U":
        return f"{old.dtype} -> {new.dtype}"
    one, other = np.atleast_1d(old), np.atleast_1d(new)
    unequal = (one != other) & ~((one != one) & (other != other))  # NaN is NaN
    entries = unequal.reshape(len(unequal), -1).any(axis=1)
    if not entries.any():
        return "signs of zeros or NaNs"
    where = f"{entries.sum()}/{len(entries)} from {int(entries.argmax()) + 1}"
    if len(entries) > _LISTED:
        where = f"{100 * entries.mean():.3g}%"
    if old.dtype.kind == "U":
        return where
    apart = np.abs(one.astype(np.float64) - other.astype(np.float64)).max()
    if old.dtype == np.uint8:
        return f"{apart:.0f} of 255, {where}"
    largest = np.abs(one.astype(np.float64)).max()
    return f"{apart / largest if largest else apart:.1e}, {where}"


def _form(array: np.ndarray) -> str:
    return f"{'x'.join(map(str, array.shape)) or 1} {array.dtype.name.rstrip('0123456789')}"


def compare(old: Measured, new: Measured, threads: Measured) -> list[Row]:
    """The table: OLD to NEW, then OLD on one thread to OLD on two (`threads`)."""
    every = dict.fromkeys((*old.arrays, *new.arrays))  # each once, in the order of measuring
    names = sorted(every, key=lambda name: PARTS.index(name.partition("|")[0]))
    rows = []
    for name in names:
        part, _, what = name.partition("|")
        spread = _NONE
        if name not in old.arrays:
            change = "OLD lacks it"
        elif name not in new.arrays:
            change = "NEW lacks it"
        else:
            change = difference(old.arrays[name], new.arrays[name])
            if name in threads.arrays:
                spread = difference(old.arrays[name], threads.arrays[name])
        rows.append(Row(part, what, change, spread, change not in (_SAME, "OLD lacks it")))
    return rows


def lines(rows: Sequence[Row], old: Measured, new: Measured) -> Iterator[str]:
    """The report, at most 100 columns wide."""
    yield _ROW.format("part", "compared", "OLD to NEW", "OLD, 1 to 2 threads")
    for row in rows:
        yield _ROW.format(row.part, row.what, row.change, row.spread)
    for name, measured in (("OLD", old), ("NEW", new)):
        for stage, reason in measured.lacks.items():
            yield wrapped(f"{name} lacks {stage}: {reason}")
    found = list(dict.fromkeys(row.part for row in rows if row.counts))
    if not found:
        yield f"nothing differs in {len(rows)} comparisons"
        return
    first = next(row for row in rows if row.counts)
    yield wrapped(f"differs: {', '.join(found)}")
    yield wrapped(f"first in {first.part}, {first.what}: {first.change}")


def main(words: Sequence[str]) -> int:
    """Check out, measure, compare.

    Returns:
        The exit status.

    Raises:
        ConfigError: wrong arguments, an unknown revision, no checkout.
    """
    parser = Arguments()
    parser.add_argument("old")
    parser.add_argument("new", nargs="?", default=WORKING_TREE)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(list(words))
    start = time.monotonic()
    stop = _Stop()
    with handled(dict.fromkeys(STOPPING, stop)):
        prefix = "radcap-compare-"
        with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
            folder = Path(name)
            root = checkout_root()
            for role, revision in (("OLD", options.old), ("NEW", options.new)):
                say(f"{role} {check_out(root, revision, folder / role)}")
            old, new, threads = measure(folder, stop, quick=options.quick)
    rows = compare(old, new, threads)
    for line in lines(rows, old, new):
        say(line)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cost = f"{time.monotonic() - start:.0f} s, {used.ru_utime + used.ru_stime:.0f} of a core"
    say(f"{cost}, {machine_load()}")
    return EXIT_FAILED if any(row.counts for row in rows) else EXIT_DONE


class _Stop:
    """Takes a signal that asks to end, until a moment when nothing is half done."""

    number = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.number = number

    def check(self) -> None:
        """End the program if it was asked to."""
        if self.number:
            sys.exit(128 + self.number)


def measure(folder: Path, stop: _Stop, *, quick: bool) -> tuple[Measured, Measured, Measured]:
    """Measure the checkouts `OLD` and `NEW` in `folder`: both on one core, and OLD on two."""
    cores = sorted(os.sched_getaffinity(0))
    stages = ["feed", *_WITH_THREADS, "8 devices", *(() if quick else ("compiled step",))]
    with (
        measuring(folder, "OLD", cores[:1], stages) as old,
        measuring(folder, "NEW", cores[-1:], stages) as new,
    ):
        _wait(stop, old, new)
    threads = Measured({}, {})
    if len(cores) > 1:
        with measuring(folder, "OLD", cores[:2], _WITH_THREADS) as twice:
            _wait(stop, twice)
        threads = Measured.read(folder / "OLD-2")
    return Measured.read(folder / "OLD-1"), Measured.read(folder / "NEW-1"), threads


@contextmanager
def measuring(
    folder: Path, role: str, cores: Sequence[int], stages: Sequence[str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a measurement; whatever of it still runs at the end of the block is killed."""
    out = folder / f"{role}-{len(cores)}"
    spare = folder / f"{out.name}-tmp"
    spare.mkdir()
    name = role if len(cores) == 1 else f"{role}, {len(cores)} threads"
    words = [_MEASURE, folder / role, out, ",".join(map(str, cores)), name, *stages]
    environment = {**os.environ, "TMPDIR": str(spare)}
    process = subprocess.Popen([sys.executable, *words], env=environment, start_new_session=True)
    try:
        yield process
    finally:
        _kill_session(process)


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and those it started, and see them gone: they would still write files."""
    with suppress(ProcessLookupError):  # all of it has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + _KILLED_WITHIN_S
    while _is_alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)


def _is_alive(group: int) -> bool:
    """Whether a process of a group still runs; proc(5): state and process group in stat."""
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            state, _, member_of = file.read_bytes().rpartition(b")")[2].split()[:3]
            if int(member_of) == group and state not in b"ZX":
                return True
    return False


def _wait(stop: _Stop, *processes: subprocess.Popen[bytes]) -> None:
    """Wait for the end of measurements.

    Raises:
        RadcapError: one failed.
    """
    while None in (states := [process.poll() for process in processes]) and not any(states):
        stop.check()
        time.sleep(0.1)
    if any(states):
        raise RadcapError("a measurement failed; its last lines are above")


if __name__ == "__main__":
    sys.exit(run_command(main, __doc__ or ""))
