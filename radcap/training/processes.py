"""Processes that train together: they start from one place and stop and save at the same step."""

from __future__ import annotations

import hashlib
from pathlib import Path

from radcap.config.compose import to_yaml
from radcap.config.schema import Config
from radcap.errors import RadcapError
from radcap.runtime.base import Runtime
from radcap.runtime.launch import Launch


def check_same_start(
    runtime: Runtime,
    launch: Launch,
    config: Config,
    *,
    step: int,
    revision: str,
    folder: Path,
    weights: str | None = None,
) -> None:
    """Make sure that all processes do the same, each with a share of its own. All call this.

    Args:
        runtime: the opened device.
        launch: which process this one was taken for before its device was opened.
        config: what this process was told.
        step, revision: what it found in the run folder, and as its data.
        folder: the run folder.
        weights: fingerprint of the weights that it loaded, where they do not lie in the folder.

    Raises:
        RadcapError: some of them see another folder, other data, weights or settings; all raise it.
    """
    told = hashlib.sha256(to_yaml(config).encode()).hexdigest()
    states = runtime.gather((launch, told, weights, step, revision))
    # A TPU numbers its hosts in an order of its own; what counts is that no share is dealt twice.
    shares = {launch for launch, *_ in states}
    if shares != {Launch(index, len(states)) for index in range(len(states))}:
        counted = ", ".join(f"{s.process_index} of {s.num_processes}" for s in sorted(shares))
        raise RadcapError(
            f"{len(states)} processes train together, and they take themselves for {counted}; "
            "start them all by one launcher, or all hosts of one TPU slice"
        )
    if len({told for _, told, *_ in states}) > 1:
        raise RadcapError("the processes were given different settings; give all the same command")
    if len({weights for _, _, weights, *_ in states}) > 1:
        raise RadcapError(
            "the processes loaded different weights; they need the same files, on every host"
        )
    if len({(step, revision) for *_, step, revision in states}) > 1:
        found = ", ".join(f"step {step} of data {revision[:12]}" for *_, step, revision in states)
        raise RadcapError(
            f"the processes would go on from different places ({found}); they need the same data, "
            f"and {folder} on a disk that all of them see"
        )


def decide(runtime: Runtime, *, stop: bool, save: bool) -> tuple[bool, bool]:
    """Whether to stop and whether to save after a step, decided alike by all processes.

    Signals and clocks differ between processes, and what only some of them begin would hang. What
    one wants all do. They meet on the host; the device is not waited for.

    Args:
        stop: a signal has come to this process.
        save: by this process's clock, a checkpoint is due.
    """
    words = runtime.gather((stop, save))
    return any(stop for stop, _ in words), any(save for _, save in words)


def finish_together(runtime: Runtime, error: RadcapError | None) -> None:
    """Wait until the first process has done what it does for all, and fail with it.

    Args:
        error: what went wrong in this process, None for nothing.

    Raises:
        RadcapError: `error`, or that another process failed.
    """
    errors = runtime.gather(None if error is None else str(error))
    if error is not None:
        raise error
    for told in errors:
        if told is not None:
            raise RadcapError(told)
