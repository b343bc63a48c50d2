"""`python -m radcap.export`: trained weights as a folder that others can use."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from radcap.errors import EXIT_DONE, ConfigError
from radcap.host.console import Arguments, heartbeat, run_command, say

USAGE = """
usage: python -m radcap.export WEIGHTS FOLDER [--space] [--push OWNER/NAME] [--private]

Write trained weights as a folder that plain PyTorch, the model card's own script and the Hub can
use: weights, sizes, tokenizer, preprocessing, a model card filled from the run, and the model as
torch.export'ed programs that run without radcap. What is written is read back and compared before
it takes its place. Not for diagnosis.

arguments:
  WEIGHTS               a run folder, a checkpoint, a weights file (.safetensors .bin .pt .pth), an
                        exported folder, or a Hub id
  FOLDER                where to; an earlier export there is moved aside, anything else refused

options:
  --space               with FOLDER/space, which is ready to be a Space of Hugging Face: the page of
                        radcap.demo with these weights and a copy of radcap
  --push OWNER/NAME     upload the folder to this model repository of the Hub, with HF_TOKEN; with
                        --space, FOLDER/space to the Space of this name, and nothing else
  --private             in a private repository; one that is there and public is refused
  -h, --help            print this and stop

exit status:
  0 done   1 failed   2 wrong arguments

examples:
  python -m radcap.export runs/default exported
  python -m radcap.export runs/epoch1 exported --push me/my-captioner --private
  python -m radcap.export runs/epoch1 exported --space --push me/my-page
"""


def main(words: Sequence[str]) -> int:
    """Check the words, export, upload.

    Returns:
        The exit status.
    """
    parser = Arguments()
    parser.add_argument("weights", metavar="WEIGHTS")
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("--space", action="store_true")
    parser.add_argument("--push", metavar="OWNER/NAME")
    parser.add_argument("--private", action="store_true")
    options = parser.parse_intermixed_args(list(words))
    if options.private and not options.push:
        raise ConfigError("--private: has no effect without --push OWNER/NAME")

    from radcap.serving.package import check_target, export
    from radcap.serving.pretrained import load_pretrained
    from radcap.serving.space import SPACE
    from radcap.serving.upload import check_repository, upload

    if options.push:
        check_repository(options.push)
    check_target(options.folder)
    with heartbeat("loading the weights"):
        pretrained = load_pretrained(options.weights)
    say(f"weights: {pretrained.origin}")
    here = options.folder.resolve().name
    name = options.push or here
    space = name if options.space else None  # which --push names then, and not the model
    export(pretrained, options.folder, name=here if space else name, say=say, space=space)
    say(f"exported to {options.folder}; its README.md is the model card, not for diagnosis")
    folder = options.folder / SPACE if options.space else options.folder
    if options.space:
        say(f"the Space: {folder}; python {folder / 'app.py'} tries it here")
    if options.push:
        say(f"uploading to {options.push}")
        with heartbeat("uploading"):
            address = upload(folder, options.push, private=options.private, space=options.space)
        say(f"uploaded: {address}")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(run_command(main, USAGE))
