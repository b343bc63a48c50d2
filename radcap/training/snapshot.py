"""From a run to a checkpoint and back."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

from radcap.errors import RadcapError, first_line
from radcap.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from radcap.training.loop import Run


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
            "owed": run.owed,
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
