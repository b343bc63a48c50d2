"""Writes checkpoints beside training, which waits for the copy to host memory and no longer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from radcap.errors import RadcapError
from radcap.host.console import heartbeat, say
from radcap.training.run.checkpoint import Checkpoint, prune, save_checkpoint
from radcap.training.run.mirror import Mirror


class Saver:
    """One writer of one run folder.

    A checkpoint that cannot be written (a full disk, a mount that has gone) is told and missed:
    training goes on, the one before stays, and the next one is tried as usual. Only the end of a
    run, or of a process, has to have its checkpoint: see `finish`.

    The mirror has a thread of its own: a slow upload holds up no checkpoint. What one upload misses
    the next one brings.

    Attributes:
        saved_step: step of the newest whole checkpoint, 0 for none.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int,
        saved_step: int,
        best_step: int | None = None,
        mirror: Mirror | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Args:
        folder: the run folder.
        keep: newest checkpoints kept, beside the best.
        saved_step: of the newest one there.
        best_step: of the best one there.
        mirror: gets a copy of every checkpoint, and of the curves.
        check: raises RadcapError where the folder is not the run's any more.
        """
        self._folder, self._keep, self._mirror = folder / "checkpoints", keep, mirror
        self._best_step, self._check = best_step, check
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="radcap-saver")
        self._uploader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="radcap-mirror")
        self._writing: Future[None] | None = None
        self._uploading: Future[None] | None = None
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
        self._writing = self._writer.submit(self._write, checkpoint, best_step)

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
        if self._mirror is not None:
            with heartbeat(f"copying the run to {self._mirror.address}"):
                if self._uploading is not None:
                    self._uploading.result()
                self._upload()

    def wait(self) -> None:
        """Wait for the checkpoint under way, whether it can be written or not."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()  # a disk's faults are told by `_write`: this raises radcap's own

    def close(self) -> None:
        """Wait for whatever is under way: nothing may write once the folder is unlocked."""
        with heartbeat("ending what is being written"):
            self._writer.shutdown()
            self._uploader.shutdown()

    def _write(self, checkpoint: Checkpoint, best_step: int | None) -> None:
        try:
            self._check()
            save_checkpoint(self._folder, checkpoint)
            self.saved_step = checkpoint.step
        except RadcapError as error:
            self._failed = error
            say(f"warning: {error}")
        if self._uploading is not None and not self._uploading.done():
            return  # it may be reading what is too old by now: the next one deletes that
        try:
            # The best one stays until its better successor is there. After a failure too: what is
            # no longer needed may be the room that was missing.
            if (self._folder / f"step-{best_step}").is_dir():
                self._best_step = best_step
            prune(self._folder, keep=self._keep, best_step=self._best_step)
        except OSError as error:  # an old one that cannot be deleted is no loss
            say(f"warning: {self._folder}: {error.strerror or error}")
        if self._mirror is not None and self._failed is None:
            self._uploading = self._uploader.submit(self._upload)

    def _upload(self) -> None:
        assert self._mirror is not None
        try:
            self._check()  # what another folder lacks would be deleted there
            self._mirror.push(self._folder.parent)
        except RadcapError as error:
            say(f"warning: {error}; the run folder here is whole")
