"""What the jobs of a sweep came to: a table for people, and sweep.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radcap.config.options import options_where, value_of
from radcap.config.schema import Config
from radcap.errors import RadcapError
from radcap.files.atomic import write_atomically
from radcap.files.mappings import figure_in, json_text, number_in
from radcap.host.console import WIDTH, wrapped
from radcap.scoring.perplexity import perplexity_text
from radcap.sweep.jobs import Job
from radcap.training.log.clock import duration_text

DONE, FAILED, STOPPED, WAITING = "done", "failed", "stopped", "waiting"

_LONGEST_VALUE = 24


@dataclass(frozen=True)
class Result:
    """How a job stands.

    Attributes:
        status: done, failed, stopped, or waiting for its turn.
        error: of a failed one, in a line.
        summary: of one that is done: what its summary.json holds.
    """

    job: Job
    status: str = WAITING
    error: str | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """The validation loss in nats a token; infinite where there is none."""
        loss = number_in(self.summary, "val_loss")
        return math.inf if loss is None else loss

    def record(self) -> dict[str, Any]:
        """Its entry in sweep.json."""
        return {
            "folder": self.job.folder.name,
            "overrides": dict(self.job.swept),
            "status": self.status,
            "error": self.error,
            **{name: number_in(self.summary, name) for name in ("steps", "val_loss")},
            "val_perplexity": figure_in(self.summary, "val_perplexity"),
            "wall_s": number_in(self.summary, "wall_s"),
            "slots": self._slots(),
        }

    def cells(self) -> list[str]:
        """Its figures in the table."""
        steps = number_in(self.summary, "steps")
        perplexity = figure_in(self.summary, "val_perplexity")
        if math.isinf(self.loss):
            perplexity = None
        wall = number_in(self.summary, "wall_s")
        right = self._slots().get("pathology")
        return [
            "-" if steps is None else f"{steps:,}",
            "-" if math.isinf(self.loss) else f"{self.loss:.4f}",
            "-" if perplexity is None else perplexity_text(perplexity, ",.3f"),
            "-" if right is None else f"{right:.1%}",
            "-" if wall is None else duration_text(wall),
            self.status,
        ]

    def _slots(self) -> dict[str, float]:
        """The share of right answers, by what was asked for."""
        slots = self.summary.get("slots")
        shares = {
            name: number_in(slot, "accuracy")
            for name, slot in (slots.items() if isinstance(slots, dict) else ())
            if isinstance(slot, dict)
        }
        return {name: share for name, share in shares.items() if share is not None}


def ranked(results: Sequence[Result]) -> list[Result]:
    """The lowest validation loss first, then those without one; without a rank as they came."""
    by_status = [DONE, FAILED, STOPPED, WAITING]
    if not _compare([result.job.config for result in results]):
        return sorted(results, key=lambda r: by_status.index(r.status))
    return sorted(results, key=lambda r: (by_status.index(r.status), r.loss))


def best(results: Sequence[Result]) -> Result | None:
    """The one with the lowest validation loss, where the losses of the jobs compare."""
    first = ranked(results)[0]
    compares = _compare([result.job.config for result in results])
    return first if compares and math.isfinite(first.loss) else None


def write(path: Path, words: Sequence[str], results: Sequence[Result]) -> None:
    """Write sweep.json, whole or not at all.

    Args:
        path: the file.
        words: the command's words.
        results: how each job stands.

    Raises:
        RadcapError: it cannot be written.
    """
    first = best(results)
    content = {
        "words": list(words),
        "best": None if first is None else first.job.folder.name,
        "jobs": [result.record() for result in ranked(results)],
    }
    try:
        write_atomically(path, json_text(content, indent=2) + "\n")
    except OSError as error:
        raise RadcapError(f"{path} cannot be written: {error.strerror}") from None


def table(results: Sequence[Result]) -> list[str]:
    """The results in lines, the best marked by a star, the errors below.

    Values that leave no room for the figures are told below too, by the number of the job.
    """
    first = best(results)
    lines = _rows(results, first, list(results[0].job.swept))
    if len(max(lines, key=len)) > WIDTH:
        lines = _rows(results, first, [])
        lines += [wrapped(f"job {r.job.number}: {r.job.label}") for r in ranked(results)]
    for result in ranked(results):
        if result.error is not None:
            lines.append(wrapped(f"{result.job} ({result.job.label}) failed: {result.error}"))
            lines.append(f"  all it said: {result.job.log}")
    if first is None and any(result.status == DONE for result in results):
        lines.append("no best one: the jobs are scored on different rows, or without a loss")
    return lines


def _rows(results: Sequence[Result], first: Result | None, keys: Sequence[str]) -> list[str]:
    """The table itself, with these options' values; without any, with the jobs' numbers."""
    figures = ["steps", "val loss", "perplexity", "pathology", "time", "status"]
    short = [key.rpartition(".")[2] for key in keys]
    unique = len({*short, *figures}) == len(short) + len(figures)
    names = (short if unique else keys) if keys else ["job"]
    rows = [["", *names, *figures]]
    for result in ranked(results):
        values = [_shortened(result.job.swept[key]) for key in keys]
        told = values or [str(result.job.number)]
        rows.append(["*" if result is first else "", *told, *result.cells()])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [_line(row, widths, num_left=1 + len(names)) for row in rows]


def _compare(configs: Sequence[Config]) -> bool:
    """Whether the jobs are scored on the same tokens of the same rows."""
    names = options_where(Config, "is_scored")
    return len({tuple(value_of(config, name) for name in names) for config in configs}) == 1


def _line(row: Sequence[str], widths: Sequence[int], num_left: int) -> str:
    """A line of the table: words to the left, figures to the right, the status last."""
    cells = [
        cell.ljust(width) if column < num_left else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join([*cells[:-1], row[-1]])


def _shortened(value: str) -> str:
    return value if len(value) <= _LONGEST_VALUE else f"...{value[3 - _LONGEST_VALUE :]}"
