"""The progress of a run: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from radcap.console import on_terminal, say, wrapped
from radcap.training.clock import duration_text

_SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Shows how far a run is and how long it will take."""

    def __init__(self, total_steps: int, first_step: int, *, shown: bool | None) -> None:
        """Args:
        total_steps: length of the run.
        first_step: steps done before.
        shown: whether to draw a bar; None draws it on a terminal only.
        """
        self._total, self._first = total_steps, first_step
        self._start = self._last_line = time.monotonic()
        bar = on_terminal() if shown is None else shown
        self._bar = (
            tqdm(total=total_steps, initial=first_step, unit="step", dynamic_ncols=True)
            if bar
            else None
        )

    def advance(self, step: int, record: Mapping[str, Any], health: str) -> None:
        """Show that `step` steps are done.

        Args:
            step: steps done.
            record: the last line of metrics.jsonl.
            health: the data's, in words; shown where there is no bar to keep in place.
        """
        figures = f"loss {record['loss']:.4f}, {record['images_per_s']:.0f} images/s"
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
            self._bar.set_postfix_str(figures)
            return
        now = time.monotonic()
        if now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = (now - self._start) / max(step - self._first, 1) * (self._total - step)
            say(f"step {step}/{self._total}: {figures}, {duration_text(left)} left")
            say(wrapped(health))

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        say(text)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
