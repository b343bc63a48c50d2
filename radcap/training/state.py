"""What a run is made of: its parts, opened or restored in their order, and how far it has come."""

from __future__ import annotations

import copy
from typing import Any

import torch

from radcap.config.schema import Config
from radcap.errors import ConfigError, RadcapError, first_line
from radcap.forms.lists import place
from radcap.host.console import heartbeat, say
from radcap.optim.schedule import run_length
from radcap.runtime.select import open_runtime
from radcap.training.build import build_model
from radcap.training.inputs import Inputs
from radcap.training.log.clock import Clock
from radcap.training.log.curves import RunLog
from radcap.training.log.dashboard import floor_lines, opening
from radcap.training.log.progress import Progress
from radcap.training.log.steps import StepLog
from radcap.training.processes import check_same_start
from radcap.training.run.checkpoint import Checkpoint, load_latest
from radcap.training.run.folder import RunFolder
from radcap.training.run.mirror import Mirror
from radcap.training.run.saver import Saver
from radcap.training.step import TrainStep
from radcap.training.validate import Validation


class Run:
    """What a run is made of, and how far it has come.

    Attributes:
        step: steps done.
        saver: writes checkpoints.
        total_steps: the configured length.
        resumed_from: the step a checkpoint was restored at, None for a new run.
        position: where the data goes on after `step`.
        first_step_s: seconds from the start of this process to its first step, by purpose.
        best: step and loss of the best validation so far.
        owed: whether the validation after `step` is still to be made: a signal came before it.
        validation: the last one of this process.
    """

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        inputs: Inputs,
        clock: Clock,
        mirror: Mirror | None = None,
    ) -> None:
        """Restore what an earlier process left, start the loaders, open the device.

        Args:
            config: the checked configuration.
            folder: the run folder, locked.
            inputs: the opened data.
            clock: has counted the start.
            mirror: gets a copy of the run folder.

        Raises:
            RadcapError: in one line, what is missing.
        """
        self.config, self.folder, self.inputs = config, folder, inputs
        self.units = {
            "batch_size": config.data.batch_size,
            "steps_per_epoch": inputs.steps_per_epoch,
        }
        whole_length = run_length(config.trainer, **self.units)
        self.total_steps = min(whole_length, config.debug.limit or whole_length)
        restored = None
        if folder.resumed:
            with heartbeat("reading the last checkpoint"):
                restored = load_latest(folder.checkpoints, say, is_ours=folder.is_ours)
        progress = dict(restored.progress) if restored else {}
        self.step = restored.step if restored else 0
        self.resumed_from = self.step if restored else None
        if self.total_steps < self.step:
            raise ConfigError(
                f"{folder.path} has done {self.step} steps, more than the {self.total_steps} asked "
                "for; a run can be lengthened, not shortened (run.fresh=true starts anew)"
            )
        # A run that is lengthened later keeps the curve of its rate.
        self.schedule_steps: int = progress.get("schedule_steps", whole_length)
        # One batch over and over has no place in the data to go on from.
        self.position: Any = None if config.debug.overfit else progress.get("position")
        # Scores on other rows are no measure of these.
        same = (self.position or {}).get("revision") in (None, inputs.revision)
        self.best: dict[str, Any] | None = progress.get("best") if same else None
        self.owed: bool = progress.get("owed", False)
        self.validation: Validation | None = None
        # Loader processes are started before the device is opened: a process forked after that
        # would inherit the device's threads and locks.
        with clock.measure("data"), heartbeat("starting the loaders"):
            self.train_loader, self.val_loader = inputs.loaders(self.position)
        with clock.measure("model"), heartbeat("opening the device") as go_over_to:
            # Sums over another number of threads differ in their last bits.
            same = progress.get("processes") == inputs.launch.num_processes
            threads = config.runtime.threads or (progress.get("threads") if same else None)
            self.runtime = open_runtime(config.runtime, threads=threads)
            self.runtime.check_batch_size(config.data.batch_size, config.trainer.accumulate)
            check_same_start(
                self.runtime,
                inputs.launch,
                config,
                step=self.step,
                revision=inputs.revision,
                folder=folder.path,
            )
            self.runtime.seed(config.seed)
            go_over_to("making the model")
            self.model = build_model(
                config.model,
                vocab_size=len(inputs.tokenizer),
                weights=restored.model if restored else None,
            )
            place(self.model, self.runtime)
            self.optimizer = self.runtime.make_adam(
                self.model, config.optimizer, encoder=self.model.image_parameters()
            )
            if restored:
                self._restore(restored)
        self.first_step_s = dict(clock.seconds)
        self.clock = Clock(progress.get("seconds"))
        for purpose, seconds in clock.seconds.items():
            self.clock.add(purpose, seconds)
        self.train_step = TrainStep(
            self.model,
            self.optimizer,
            self.runtime,
            pad_id=inputs.tokenizer.pad_token_id,
            accumulate=config.trainer.accumulate,
            clip_norm=config.optimizer.clip_norm,
        )
        folder.accept()
        self.saver = Saver(
            folder.path,
            keep=config.trainer.keep_checkpoints,
            saved_step=self.step,
            best_step=self.best["step"] if self.best else None,
            mirror=mirror,
            check=folder.check,
        )
        path = folder.path if folder.is_ours else None
        self.log = RunLog(
            path,
            resume_step=self.step,
            tensorboard=config.logger.tensorboard,
            floor=inputs.floor,
        )
        self.log.show(0, opening(config))
        if not restored:
            self.log.show(0, floor_lines(inputs.floor))
        self.bar = Progress(
            self.total_steps, self.step, shown=config.logger.progress if folder.is_ours else False
        )
        self.step_log = StepLog(
            self.runtime,
            self.log,
            self.bar,
            steps_per_epoch=inputs.steps_per_epoch,
            counts=progress.get("counts"),
        )
        self.step_log.health.add_traffic(inputs.traffic)

    def snapshot(self, random: dict[str, Any]) -> Checkpoint:
        """The run as it stands after a step, in memory of its own.

        Args:
            random: random states of all processes.
        """
        return Checkpoint(
            step=self.step,
            model=self.runtime.to_host(self.model.state_dict()),
            optimizer=self.runtime.to_host(self.optimizer.state_dict()),
            random=random,
            progress={
                "position": self.position,
                "schedule_steps": self.schedule_steps,
                "best": self.best,
                "owed": self.owed,
                "counts": copy.deepcopy(self.step_log.health.counts),
                "seconds": dict(self.clock.seconds),
                "threads": torch.get_num_threads(),
                "processes": self.runtime.num_processes,
            },
        )

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Give the optimizer and the random generators back what `snapshot` took."""
        try:
            self.optimizer.load_state_dict(dict(checkpoint.optimizer))
            for parameter, state in self.optimizer.state.items():
                if any(t.ndim and t.shape != parameter.shape for t in state.values()):
                    raise ValueError("the optimizer's state is of other parameters")
            self.runtime.set_random_state(checkpoint.random)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
            raise RadcapError(
                f"{self.folder.checkpoints}/step-{checkpoint.step} does not fit this run: "
                f"{first_line(error)}; run.fresh=true starts anew"
            ) from None
