"""Records the operations of some training steps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from radcap.host.console import heartbeat
from radcap.runtime.base import Runtime


class Profiling:
    """The recording of `trainer.profile_steps`; a context that ends it with the run."""

    def __init__(
        self, runtime: Runtime, folder: Path | None, steps: Sequence[int] | None, done_before: int
    ) -> None:
        """Args:
        runtime: does the recording.
        folder: gets the files; None records nothing.
        steps: first and last step; None for none.
        done_before: steps that an earlier process did.
        """
        self._runtime, self._folder = runtime, folder
        first, self._last = steps or (0, -1)
        self._first = max(first, done_before + 1)
        self._recording = ExitStack()

    def __enter__(self) -> Profiling:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._recording.close()

    def before(self, step: int) -> None:
        """Begin, if this is the first of the steps."""
        if self._folder is not None and step == self._first <= self._last:
            self._recording.enter_context(self._runtime.profile(self._folder))

    def after(self, step: int) -> bool:
        """End, if this was the last of them; whether it was."""
        if self._folder is None or not self._first <= self._last == step:
            return False
        with heartbeat(f"writing the profile into {self._folder}"):
            self._recording.close()
        return True
