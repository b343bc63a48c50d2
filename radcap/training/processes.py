"""Processes that train together: they start from one place and stop and save at the same step."""

from __future__ import annotations

from pathlib import Path

from radcap.errors import RadcapError
from radcap.runtime.base import Runtime
from radcap.runtime.launch import Launch


def check_same_start(
    runtime: Runtime, launch: Launch, *, step: int, revision: str, folder: Path
) -> None:
    """Make sure that all processes go on from the same step of the same data.

    Args:
        launch: which process this one was taken for before its device was opened.
        step, revision: what it found in the run folder, and as its data.
        folder: the run folder.

    Raises:
        RadcapError: it is another process, or some of them see another folder or other data.
    """
    found = Launch(runtime.process_index, runtime.num_processes)
    if found != launch:
        raise RadcapError(
            f"process {launch.process_index} of {launch.num_processes} is number "
            f"{found.process_index} of {found.num_processes} by its device; give all hosts the "
            "same command"
        )
    states = runtime.gather((step, revision))
    if len(set(states)) > 1:
        told = ", ".join(f"step {step} of data {revision[:12]}" for step, revision in states)
        raise RadcapError(
            f"the processes would go on from different places ({told}); they need the same data, "
            f"and {folder} on a disk that all of them see"
        )


class Decisions:
    """Whether to stop and whether to save, decided alike by all processes.

    Signals and clocks differ between processes, and what only some of them begin would hang.
    Several of them ask each other when the device is read anyway; one alone need not wait.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._save = False

    def take(self, *, stop: bool, save: bool, read: bool) -> tuple[bool, bool]:
        """Decide after a step.

        Args:
            stop: a signal has come to this process.
            save: by this process's clock, a checkpoint is due.
            read: the device was read in this step, the same in all processes.

        Returns:
            Whether to stop and whether to save now.
        """
        if self._runtime.num_processes == 1:
            return stop, save
        self._save |= save
        if not read:
            return False, False
        words = self._runtime.gather((stop, self._save))
        self._save = False
        return any(stop for stop, _ in words), any(save for _, save in words)
