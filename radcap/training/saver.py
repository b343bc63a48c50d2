"""Writes checkpoints beside training, which waits for the copy to host memory and no longer."""

from __future__ import annotations

import copy
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from radcap.console import say
from radcap.errors import RadcapError, first_line
from radcap.training.checkpoint import Checkpoint, prune, save_checkpoint
from radcap.training.mirror import Mirror

if TYPE_CHECKING:
    from radcap.training.loop import Run


class Saver:
    """One writer of one run folder.

    A checkpoint that cannot be written (a full disk, a mount that has gone) is told and missed:
    training goes on, the one before stays, and the next one is tried as usual. Only the end of a
    run, or of a process, has to have its checkpoint: see `finish`.

    Attributes:
        saved_step: step of the newest whole checkpoint, 0 for none.
    """

    def __init__(
        self, folder: Path, *, keep: int, saved_step: int, mirror: Mirror | None = None
    ) -> None:
        """Args:
        folder: the run folder.
        keep: newest checkpoints kept, beside the best.
        saved_step: of the newest one there.
        mirror: gets a copy of every checkpoint, and of the curves.
        """
        self._folder, self._keep, self._mirror = folder / "checkpoints", keep, mirror
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="radcap-saver")
        self._writing: Future[None] | None = None
        self._failed: RadcapError | None = None
        self.saved_step = saved_step

    def submit(self, checkpoint: Checkpoint, best_step: int | None) -> None:
        """Begin to write a checkpoint, after the one before is done.

        Args:
            checkpoint: on the host, in memory of its own.
            best_step: of the checkpoint that is kept whatever its age.
        """
        self.wait()
        self._failed = None
        self._writing = self._executor.submit(self._write, checkpoint, best_step)

    def finish(self) -> None:
        """Wait for the last checkpoint.

        Raises:
            RadcapError: it could not be written.
        """
        self.wait()
        if self._failed is not None:
            raise self._failed

    def push(self) -> None:
        """Bring the mirror up to date; it is told, and no more, where that fails."""
        if self._mirror is None:
            return
        try:
            self._mirror.push(self._folder.parent)
        except RadcapError as error:
            say(f"warning: {error}; the run folder here is whole")

    def wait(self) -> None:
        """Wait for the checkpoint under way, whether it can be written or not."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()  # raises what is nobody's disk's fault, but ours

    def _write(self, checkpoint: Checkpoint, best_step: int | None) -> None:
        try:
            save_checkpoint(self._folder, checkpoint)
            self.saved_step = checkpoint.step
        except RadcapError as error:
            self._failed = error
            say(f"warning: {error}")
        try:
            # After a failure too: what is no longer needed may be the room that was missing.
            prune(self._folder, keep=self._keep, best_step=best_step)
        except OSError as error:  # an old one that cannot be deleted is no loss
            say(f"warning: {self._folder}: {error.strerror or error}")
        if self._failed is None:
            self.push()


def snapshot(run: Run, random: dict[str, Any]) -> Checkpoint:
    """A run as it stands after a step, in memory of its own.

    Args:
        random: random states of all processes.
    """
    return Checkpoint(
        step=run.step,
        model=run.runtime.to_host(run.model.state_dict()),
        optimizer=run.runtime.to_host(run.optimizer.state_dict()),
        random=random,
        progress={
            "position": run.position,
            "schedule_steps": run.schedule_steps,
            "best": run.best,
            "validated": run.validated,
            "counts": copy.deepcopy(run.step_log.health.counts),
            "seconds": dict(run.clock.seconds),
            "threads": torch.get_num_threads(),
            "processes": run.runtime.num_processes,
        },
    )


def restore(run: Run, checkpoint: Checkpoint) -> None:
    """Give a run's optimizer and random generators back what `snapshot` took.

    Raises:
        RadcapError: the checkpoint does not fit the run.
    """
    try:
        run.optimizer.load_state_dict(dict(checkpoint.optimizer))
        for parameter, state in run.optimizer.state.items():
            if any(t.ndim and t.shape != parameter.shape for t in state.values()):
                raise ValueError("the optimizer's state is of other parameters")
        run.runtime.set_random_state(checkpoint.random)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
        raise RadcapError(
            f"{run.folder.checkpoints}/step-{checkpoint.step} does not fit this run: "
            f"{first_line(error)}; run.fresh=true starts anew"
        ) from None
