"""`python -m radcap.evaluate`: score trained weights on a split."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from radcap.errors import EXIT_DONE, ConfigError
from radcap.host.console import heartbeat, mute, run_command

USAGE = """
usage: python -m radcap.evaluate run=RUN [OVERRIDE ...] [--config-dir FOLDER] [--show-config]

Score trained weights on a split: loss and perplexity over all target tokens, and of the captions
BLEU, ROUGE-L, CIDEr-D and how often they state the right modality, location and pathology, with
95 % bootstrap intervals. Writes results.json, results.md and worst.html (the worst captions with
their images). Stopped and started again, it goes on where it was. Not for diagnosis.

overrides:
  run=RUN               a run folder: its best checkpoint, on the validation split it was trained
                        beside, with its own data settings
  evaluate.weights=W    other weights: a run, a checkpoint, an exported folder, a weights file
                        (.safetensors .bin .pt .pth), or a Hub id; without run=RUN on the
                        configured data
  evaluate.split=NAME   the split (default data.val_split)
  evaluate.rows=N       score N rows from all over the split (default all)
  evaluate.captions=N   caption N of them, spread evenly (default all)
  evaluate.beams=N      beam search (default 1, greedy); +experiment=beam takes 4
  evaluate.worst=N      captions shown in worst.html (default 50)
  evaluate.out=FOLDER   where the results go (default RUN/evaluation/step-N-SPLIT)
  evaluate.fresh=true   move earlier results aside and start anew
  data.path=FOLDER      a local folder in the data set's form; data.batch_size, runtime=xla_cpu and
                        the others as for python -m radcap.train

options:
  --config-dir FOLDER   a folder of your own with experiment/NAME.yaml and the like
  --show-config         print the whole configuration and stop
  -h, --help            print this and stop

exit status:
  0 done   1 failed   2 wrong configuration   75 stopped by a signal after saving: run it again

examples:
  python -m radcap.evaluate run=runs/default
  python -m radcap.evaluate run=runs/default evaluate.split=train evaluate.rows=1000
  python -m radcap.evaluate evaluate.weights=pytorch_model.bin data=radimagenet_vqa
"""


def main(words: Sequence[str]) -> int:
    """Check everything that needs no torch, then score.

    Returns:
        The exit status.
    """
    from radcap.config.compose import read_command_line, split_options
    from radcap.evaluation.settings import data_settings, refuse_bare_path, take_run

    run, rest = take_run(words)
    overrides, _ = split_options(rest)
    refuse_bare_path(overrides)
    settings = data_settings(run, overrides) if run is not None else {}
    config = read_command_line(rest, settings=settings)
    if config is None:
        return EXIT_DONE
    if run is None and config.evaluate.weights is None:
        raise ConfigError("name what to score: run=RUN, or evaluate.weights=FILE")

    from radcap.runtime.launch import check_batch_size, find_launch

    launch = find_launch(config.runtime)
    check_batch_size(config.data.batch_size, launch.num_processes)
    if not launch.is_first:
        mute()

    with heartbeat("loading torch"):
        from radcap.evaluation.run import Evaluation

    return Evaluation(config, run, launch).go()


if __name__ == "__main__":
    sys.exit(run_command(main, USAGE))
