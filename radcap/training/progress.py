"""The progress of long work: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time

from tqdm import tqdm

from radcap.console import on_terminal, say, wrapped
from radcap.training.clock import duration_text

_SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Shows how far the work is and how long it will take."""

    def __init__(
        self, total_steps: int, first_step: int, *, shown: bool | None, unit: str = "step"
    ) -> None:
        """Args:
        total_steps: length of the work.
        first_step: steps done before.
        shown: whether to draw a bar; None draws it on a terminal only.
        unit: what a step is called.
        """
        self._total, self._first, self._unit = total_steps, first_step, unit
        self._start = self._last_line = time.monotonic()
        bar = on_terminal() if shown is None else shown
        self._bar = (
            tqdm(total=total_steps, initial=first_step, unit=unit, dynamic_ncols=True)
            if bar
            else None
        )

    def advance(self, step: int, figures: str, health: str | None = None) -> None:
        """Show that `step` steps are done.

        Args:
            step: steps done.
            figures: how it goes, in a few words.
            health: the data's, in words; shown where there is no bar to keep in place.
        """
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
            self._bar.set_postfix_str(figures)
            return
        now = time.monotonic()
        if now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = (now - self._start) / max(step - self._first, 1) * (self._total - step)
            say(f"{self._unit} {step}/{self._total}: {figures}, {duration_text(left)} left")
            if health is not None:
                say(wrapped(health))

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        say(text)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
