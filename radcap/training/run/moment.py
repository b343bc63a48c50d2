"""What a checkpoint's progress.json may hold: the step, the place in the data, clock and counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from radcap.files.mappings import number_in, read_mapping

_MOST = 10**15
_LONGEST_WORD = 100
_MOST_THREADS = 1024


def read_progress(file: Path, step: int) -> dict[str, Any]:
    """Read and check it.

    Args:
        file: progress.json; anybody may have written it.
        step: of the checkpoint's folder.

    Raises:
        OSError: it cannot be read.
        ValueError: no run has written this; the message names the entry.
    """
    progress = read_mapping(file)
    if progress is None:
        raise ValueError("progress.json is damaged")
    _check_progress(progress, step)
    return progress


def _check_progress(progress: Any, step: int) -> None:
    """Raise ValueError, naming the first entry that no run has written."""
    checks = {
        "step": lambda n: _is_count(n) and n == step,
        "position": lambda p: p is None or _is_position(p),
        "schedule_steps": lambda n: _is_count(n) and n > 0,
        "best": lambda b: b is None or _is_best(b),
        "owed": lambda o: isinstance(o, bool),
        "counts": lambda c: isinstance(c, dict) and _are_counts(dict(c)),
        "seconds": _are_numbers,
        "threads": lambda n: _is_count(n) and 0 < n <= _MOST_THREADS,
        "processes": _is_count,
    }
    if not isinstance(progress, dict) or "step" not in progress:
        raise ValueError("progress.json names no step")
    for name, value in progress.items():
        if name in checks and not checks[name](value):
            raise ValueError(f"progress.json: {name} is {str(value)[:60]}")


def _is_count(value: Any) -> bool:
    """A number of steps, epochs or rows, such as a run may come to."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST


def _is_position(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _is_count(value.get("epoch"))
        and _is_count(value.get("batch"))
        and all(_is_word(value.get(name, "")) for name in ("order", "revision"))
    )


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_WORD


def _is_best(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _is_count(value.get("step"))
        and number_in(value, "val_loss") is not None
    )


def _are_counts(value: dict[str, Any]) -> bool:
    """Numbers, and masked rows by reason."""
    return _are_numbers(value.pop("skipped", {})) and _are_numbers(value)


def _are_numbers(value: Any) -> bool:
    """Seconds, or numbers of anything, such as a run may come to."""
    return isinstance(value, dict) and all(
        (number := number_in(value, name)) is not None and 0 <= number <= _MOST for name in value
    )
