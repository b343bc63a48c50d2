"""`python -m radcap.train`: train the captioner from a Hydra configuration."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from radcap.errors import EXIT_DONE
from radcap.host.console import heartbeat, mute, run_command, say

USAGE = """
usage: python -m radcap.train [-m] [OVERRIDE ...] [--config-dir FOLDER] [--show-config]

Train the captioner. Without arguments it trains a small model on the built-in phantom data set, on
whatever device is there, without network or token. The same command again goes on where an
interrupted run stopped.

overrides:
  +experiment=NAME      a whole experiment: epoch1 (the model card's run), smoke (seconds), epoch3,
                        frozen_encoder, large_decoder, v5e-8, v3-32
  GROUP=OPTION          data=phantom|radimagenet_vqa|rocov2  model=card|small|tiny
                        runtime=auto|tpu|cuda|cpu|xla_cpu  schedule=constant|cosine
                        debug=overfit|limit|profile
  KEY=VALUE             trainer.max_steps=100  data.path=FOLDER  optimizer.lr=1e-4  seed=1
                        run.name=NAME  run.fresh=true

options:
  -m, --multirun        a sweep: a run for each combination of the values that options are given,
                        as seed=1,2  model=small,tiny  seed='range(1,5)'  model='glob(*)'; each in
                        a folder of its own in runs/NAME-sweep, with a table of results at the end
  --config-dir FOLDER   a folder of your own with experiment/NAME.yaml and the like
  --show-config         print the whole configuration and stop
  -h, --help            print this and stop

exit status:
  0 done   1 failed   2 wrong configuration   75 stopped by a signal after saving: run it again

  129, 130, 143 ended by a closed terminal, Ctrl-C or SIGTERM before training began

examples:
  python -m radcap.train
  python -m radcap.train +experiment=smoke
  python -m radcap.train +experiment=epoch1
  python -m radcap.train data.path=my_data run.name=mine trainer.max_steps=500
  python -m radcap.train -m optimizer.lr=1e-3,4e-3 seed=1,2
"""


def main(words: Sequence[str]) -> int:
    """Check everything that needs no torch, then train.

    Returns:
        The exit status.
    """
    start = time.monotonic()
    from radcap.config.checks import check_encoder_start
    from radcap.config.compose import read_command_line, split_options
    from radcap.files.mappings import number_in

    overrides, options = split_options(words)
    if options.multirun:
        from radcap.sweep.run import sweep

        return sweep(overrides, options)
    config = read_command_line(words)
    if config is None:
        return EXIT_DONE

    from radcap.runtime.launch import check_batch_size, find_launch
    from radcap.training.run.folder import RunFolder

    launch = find_launch(config.runtime)
    check_batch_size(config.data.batch_size, launch.num_processes, config.trainer.accumulate)
    if not launch.is_first:
        mute()
    mirror = None
    if config.run.mirror is not None and launch.is_first:
        from radcap.training.run.mirror import Mirror

        with heartbeat(f"looking at {config.run.mirror}"):
            mirror = Mirror(config.run.mirror)
            if config.run.fresh:
                mirror.refuse_a_run()
            else:
                mirror.restore(Path(config.run.dir))
    folder = RunFolder(config, is_ours=launch.is_first)
    try:
        if folder.finished:
            summary = folder.summary()
            loss, steps = number_in(summary, "val_loss"), number_in(summary, "steps")
            reached = "unknown" if loss is None else f"{loss:.4f}"
            done = "unknown" if steps is None else f"{steps:.0f}"
            say(f"{folder.path} is finished: {done} steps, validation loss {reached}")
            say("a longer trainer.max_steps goes on from there, run.fresh=true starts anew")
            return EXIT_DONE
        if not folder.resumed:
            check_encoder_start(config.model.encoder_weights, may_be_gone=False)
        if mirror is not None:
            with heartbeat(f"writing a small file to {mirror.address}"):
                mirror.check_writable()
        from radcap.training.inputs import Inputs

        pinned = None if config.data.accept_revision else folder.versions.get("data_revision")
        inputs = Inputs(config, revision=pinned, launch=launch)
        folder.pin_data_revision(inputs.revision)
        data_opened = time.monotonic()
        say(
            f"data:   {inputs.describe()}, {inputs.num_train_rows:,} training and "
            f"{inputs.num_val_rows:,} validation rows"
        )
        with heartbeat("loading torch"):
            from radcap.training.log.clock import Clock
            from radcap.training.loop import TrainingLoop

        imported = time.monotonic()
        clock = Clock({"data": data_opened - start, "import": imported - data_opened})
        return TrainingLoop(config, folder, inputs, clock, mirror).go()
    finally:
        folder.close()


if __name__ == "__main__":
    _ON_FULL_DISK = "free some space, and the same command goes on from the last checkpoint"
    sys.exit(run_command(main, USAGE, on_full_disk=_ON_FULL_DISK))
