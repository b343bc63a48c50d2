"""`python -m radcap`, or `radcap` where it is installed: one of the commands, or a list of them."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence

from radcap.config.nearest import did_you_mean, nearest
from radcap.errors import EXIT_DONE, ConfigError
from radcap.host import console

COMMANDS = {
    "train": "train a captioner; the same command again goes on where it stopped",
    "evaluate": "score trained weights on a split of the data",
    "caption": "write captions for picture files, DICOM too",
    "export": "make a folder that plain PyTorch, transformers and the Hub can use",
    "demo": "serve a local web page that captions the picture dropped on it",
    "preflight": "compile for a TPU that is not here: does it fit, how fast could it be",
    "rehearse": "kill a run, start it again, and compare it with an unbroken one",
    "doctor": "say what this machine has and lacks, and the fix for each",
}

_LINES = "\n".join(f"  {name:11} {meaning}" for name, meaning in COMMANDS.items())
USAGE = f"""
usage: python -m radcap COMMAND [ARGUMENT ...]     or: radcap COMMAND [ARGUMENT ...]

commands, each the same as python -m radcap.COMMAND; COMMAND --help says more:
{_LINES}

exit status:
  that of the command; without one 0, and 2 for one that there is not
"""


def main() -> None:
    """Run the command that is named, as `python -m radcap.COMMAND` does; it ends the process."""
    if sys.argv[1:] and sys.argv[1] in COMMANDS:
        del sys.argv[0]
        runpy.run_module(f"radcap.{sys.argv[0]}", run_name="__main__", alter_sys=True)
        return
    sys.exit(console.run_command(_list, USAGE))


def _list(words: Sequence[str]) -> int:
    """Answer where no command is named."""
    if not words:
        console.say(USAGE.strip())
        return EXIT_DONE
    word = words[0]
    if "=" in word:
        raise ConfigError(f"{word}: name the command before it, as in radcap train {word}")
    meant = nearest(word.removeprefix("radcap."), COMMANDS)
    hint = did_you_mean([meant] if meant else []) or f"; there are {', '.join(COMMANDS)}"
    raise ConfigError(f"{word}: no such command{hint}")


if __name__ == "__main__":
    main()
