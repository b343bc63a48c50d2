"""The story of a run: resume, loaders, device, model, loop, last words."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from torch import Tensor

from radcap.data.collate import Batch
from radcap.data.faults import DataError
from radcap.errors import EXIT_DONE, EXIT_STOPPED, RadcapError
from radcap.host.console import heartbeat
from radcap.optim.schedule import Every, learning_rate
from radcap.training.log import summary
from radcap.training.log.dashboard import closing
from radcap.training.log.profiling import Profiling
from radcap.training.processes import decide, finish_together
from radcap.training.signals import ECHO_OF_A_SIGNAL_S, Stopped, StopRequest
from radcap.training.state import Run
from radcap.training.validate import validate


class TrainingLoop(Run):
    """Trains, validates and saves, to the end or until a signal."""

    def go(self) -> int:
        """Train to the configured length or until a signal.

        Returns:
            The exit status: 0 at the configured length, 75 after a signal and a checkpoint.

        Raises:
            RadcapError: what ended the run; the last checkpoint is whole.
        """
        summary.announce(self)
        several = self.runtime.num_processes > 1
        stop = StopRequest(
            echo_s=ECHO_OF_A_SIGNAL_S if several else 0.0,
            safe_step=lambda: self.saver.saved_step,
        )
        # Processes that train together stop at the same step: none may break off alone.
        self._breaking_off = partial(stop.interrupting, not several)
        try:
            with stop.listening():
                try:
                    completed = self._train(stop)
                    stop.saving = True
                    self._finish_saving()
                    if completed and self.validation is not None:
                        self.log.show(self.step, closing(self.validation))
                except DataError:
                    if not several and self.step > self.saver.saved_step:
                        self._finish_saving()  # the steps so far are good
                    raise
                finally:
                    self._close()
                if completed:
                    summary.conclude(self)
                self.saver.push()
        finally:
            self.saver.close()
        if completed:
            return EXIT_DONE
        summary.announce_stop(self)
        return EXIT_STOPPED

    def _train(self, stop: StopRequest) -> bool:
        """Steps, validations and checkpoints; whether the run has its length and its end."""
        trainer = self.config.trainer
        eval_due = Every(trainer.eval_every, clock=time.monotonic, **self.units)
        save_due = Every(trainer.save_every, clock=time.monotonic, **self.units)
        batches = self.runtime.batches(self._train_batches())
        stopping = False
        path = self.folder.path / "profile" if self.folder.is_ours else None
        profiling = Profiling(self.runtime, path, trainer.profile_steps, self.step)
        with self.bar.watched(), suppress(Stopped), profiling:
            if self.owed:
                self._validate()
                self._save()  # it may be the best
            while self.step < self.total_steps and not stopping:
                profiling.before(self.step + 1)
                with self.clock.measure("train"), self.runtime.purpose("train", self.step + 1):
                    self._train_one(batches)
                    last = self.step == self.total_steps
                    if last or self.step % trainer.log_every == 0:
                        self.step_log.write_out()
                        self.folder.check()
                if profiling.after(self.step):
                    self.step_log.resume_timing()
                stopping, save = decide(
                    self.runtime, stop=stop.requested, save=save_due.due(self.step)
                )
                self.owed = last or eval_due.due(self.step)
                better = self.owed and not stopping and self._validate()
                if last or better or save:
                    self._save()
                    save_due.done()
            if self.validation is None and self.step == self.total_steps and not stopping:
                self._validate()  # an earlier process was killed before its end
        return self.step == self.total_steps and self.validation is not None and not self.owed

    def _close(self) -> None:
        self.bar.close()
        self.log.close()
        self.train_loader.close()
        self.val_loader.close()
        self.runtime.close()

    def _train_batches(self) -> Iterator[Batch]:
        if self.config.debug.overfit:
            return itertools.repeat(next(iter(self.train_loader)))
        return iter(self.train_loader)

    def _train_one(self, batches: Iterator[tuple[Batch, Tensor, Tensor]]) -> None:
        self.bar.doing(self.step + 1, "waiting for its rows")
        waiting = time.monotonic()
        with self._breaking_off():
            batch, images, tokens = next(batches)
        data_wait = time.monotonic() - waiting
        self.step += 1
        self.bar.doing(self.step, "computing")
        rate = learning_rate(self.config, self.step, self.schedule_steps, **self.units)
        self.runtime.set_learning_rate(self.optimizer, rate)
        began = time.monotonic()
        scalars = self.train_step(images, tokens)
        traced = time.monotonic()
        self.runtime.end_step()
        if "batch" not in self.first_step_s:
            summary.announce_first_step(self, data_wait, traced - began, time.monotonic() - traced)
        if not self.config.debug.overfit:
            self.position = batch.position
        self.step_log.add(self.step, scalars, batch, lr=rate, data_wait_s=data_wait)

    def _validate(self) -> bool:
        """Score the validation split; True for the best result so far."""
        self.step_log.write_out()
        purpose, rows = self.runtime.purpose("validate"), self.inputs.num_val_rows
        what = f"validating after step {self.step}"
        beats = heartbeat(f"{what}, {rows:,} rows")
        # A beat is not begun where a signal may break it off.
        with self.clock.measure("validate"), beats as go_over_to, purpose, self._breaking_off():
            result = validate(
                self.model,
                self.runtime,
                self.val_loader,
                tokenizer=self.inputs.tokenizer,
                num_rows=rows,
                num_captioned=self.config.trainer.caption_rows,
                num_samples=self.config.trainer.samples,
                max_new_tokens=self.config.data.max_length,
                scored=lambda done: go_over_to(f"{what}, {done:,} of {rows:,} rows"),
            )
        self.step_log.resume_timing()
        self.validation, self.owed = result, False
        self.step_log.health.add_traffic(result.traffic)
        better = self.best is None or result.loss < self.best["val_loss"]
        better = self.runtime.gather(better)[0]
        if better:
            self.best = {"step": self.step, "val_loss": result.loss}
        summary.report_validation(self, result)
        return better

    def _save(self) -> None:
        """Begin to write a checkpoint; training waits for the copy to the host."""
        self.step_log.write_out()
        beats = heartbeat(f"saving step {self.step}")
        with self.clock.measure("save"), beats, self.runtime.purpose("save"):
            random = self.runtime.random_state()  # of all processes together
            if self.folder.is_ours:
                self.log.flush_to_disk()  # no checkpoint may be ahead of its curve
                best_step = self.best["step"] if self.best else None
                self.saver.submit(self.snapshot(random), best_step)
        self.step_log.resume_timing()

    def _finish_saving(self) -> None:
        """Wait until the last step is saved; no process ends before that.

        Raises:
            RadcapError: it cannot be saved.
        """
        failed: RadcapError | None = None
        with heartbeat(f"saving step {self.step}"):
            self.saver.wait()
            if self.step > self.runtime.gather(self.saver.saved_step)[0]:
                self._save()  # a signal came, or the disk had no room for it a moment ago
            try:
                self.folder.check()
                self.saver.finish()
            except RadcapError as error:
                failed = error
            finish_together(self.runtime, failed)
