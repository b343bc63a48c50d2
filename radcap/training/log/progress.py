"""The progress of long work: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tqdm import tqdm

from radcap.host.console import heartbeat, moved, on_terminal, say, seconds_of_silence
from radcap.training.log.clock import duration_text

_LONGEST_SILENCE_S = 9.0  # before a line that could also come with the next interval


class Progress:
    """Shows how far the work is and how long it will take: one line an interval of the log."""

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
        self._start = self._last = time.monotonic()
        self._told: frozenset[str] = frozenset()
        self._go_over_to: Callable[[str], None] = lambda text: None
        bar = on_terminal() if shown is None else shown
        self._bar = (
            tqdm(total=total_steps, initial=first_step, unit=unit, dynamic_ncols=True)
            if bar
            else None
        )

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Say what `doing` has named last, where an interval of the log is long."""
        with heartbeat(f"{self._unit} {self._first}/{self._total}") as self._go_over_to:
            yield

    def doing(self, step: int, what: str) -> None:
        """Note what is under way.

        Args:
            step: the step in progress.
            what: in a word or two.
        """
        self._go_over_to(f"{self._unit} {step}/{self._total}, {what}")

    def advance(self, step: int, figures: str, facts: Sequence[str] = ()) -> None:
        """Show that `step` steps are done, at the end of an interval of the log.

        Args:
            step: steps done.
            figures: how it goes, in a few words.
            facts: what else is to be known, each in a few words; only those that are new are told,
                and where a bar has to stay in place none.
        """
        now = time.monotonic()
        interval_s, self._last = now - self._last, now
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
            self._bar.set_postfix_str(figures)
            moved()
        elif seconds_of_silence() + interval_s >= _LONGEST_SILENCE_S:
            left = (now - self._start) / max(step - self._first, 1) * (self._total - step)
            new = ", ".join(fact for fact in facts if fact not in self._told)
            self._told = frozenset(facts)
            say(
                f"{self._unit} {step}/{self._total}: {figures}, {duration_text(left)} left"
                + (f"; {new}" if new else "")
            )

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        say(text)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
