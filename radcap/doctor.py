"""`python -m radcap.doctor`: what this machine has and lacks, and the fix for each."""

from __future__ import annotations

import json
import logging
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from importlib import import_module
from typing import TYPE_CHECKING

from radcap.errors import EXIT_DONE, EXIT_FAILED, one_line
from radcap.host.console import heartbeat, run_command, say

if TYPE_CHECKING:
    from radcap.config.schema import Config
    from radcap.diagnosis.check import Check

USAGE = """
usage: python -m radcap.doctor [OVERRIDE ...] [--json] [--config-dir FOLDER] [--show-config]

Look at this machine with the eyes of a run: Python and packages, TPU and GPU, cores, memory, disk,
token, data set. Says what is there, what is wrong, and how to put it right. Takes seconds, trains
nothing, and changes nothing; beside the run folder and at run.mirror it writes a little and
deletes it.

overrides: those of python -m radcap.train; what is looked at is what that run would need

options:
  --json                a list of {name, status, found, fix}, status being ok, warn or fail
  --config-dir FOLDER   a folder of your own with experiment/NAME.yaml and the like
  --show-config         print the whole configuration and stop
  -h, --help            print this and stop

exit status:
  0 fine, perhaps with warnings   1 something fails: the run would not begin
  2 wrong configuration

examples:
  python -m radcap.doctor
  python -m radcap.doctor +experiment=epoch1
  python -m radcap.doctor +experiment=epoch1 run.mirror=gs://BUCKET/runs/epoch1 --json
"""

# Modules of radcap.diagnosis and their functions, in the order of the report.
_PROBES = {
    "software": ("python", "packages", "torch"),
    "devices": ("tpu", "cuda", "runtime"),
    "machine": ("cores", "memory", "shared_memory", "open_files", "clock"),
    "storage": ("run_folder", "file_system", "mirror", "temporary_folder", "cache"),
    "dataset": ("network", "token", "splits", "encoder_weights"),
}

_WIDTH = 100
_NAME_WIDTH = 16


def main(words: Sequence[str]) -> int:
    """Look, and tell.

    Returns:
        The exit status.
    """
    from radcap.config.compose import read_command_line

    as_json = "--json" in words
    config = read_command_line([word for word in words if word != "--json"])
    if config is None:
        return EXIT_DONE

    logging.getLogger("radcap").setLevel(logging.ERROR)  # the checks say it
    checks: list[Check] = []
    # Of JSON nothing else may stand on standard output.
    with nullcontext() if as_json else heartbeat("looking") as go_over_to:
        for check in examine(config, go_over_to):
            checks.append(check)
            if not as_json:
                for line in lines(check):
                    say(line)
    failed = [check for check in checks if check.status == "fail"]
    if as_json:
        say(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        warned = sum(check.status == "warn" for check in checks)
        say(f"\n{len(checks)} checks: {len(failed)} failed, {warned} with a warning")
    return EXIT_FAILED if failed else EXIT_DONE


def examine(config: Config, looking: Callable[[str], None] | None = None) -> Iterator[Check]:
    """Look at everything that a run of this configuration needs, one thing after the other.

    Args:
        config: the checked configuration.
        looking: called before each with what is looked at, in words.
    """
    from radcap.diagnosis.check import FAIL, Check

    for module, names in _PROBES.items():
        for name in names:
            if looking is not None:
                looking(f"looking at {name.replace('_', ' ')}")
            # Imported one by one: where a package is missing, the rest is looked at all the same.
            try:
                yield from getattr(import_module(f"radcap.diagnosis.{module}"), name)(config)
            except (ImportError, OSError) as error:
                reason = one_line(error, names_type=False)
                fix = "the packages that fit together: pip install radcap"
                if not isinstance(error, ImportError):
                    fix = "put this right first"
                yield Check(name.replace("_", " "), FAIL, f"cannot be looked at: {reason}", fix)


def lines(check: Check) -> list[str]:
    """A check for people, at most 100 columns wide."""
    start = f"{check.status:<5} {check.name:<{_NAME_WIDTH}}"
    indent = " " * len(start)
    told = textwrap.wrap(check.found, _WIDTH, initial_indent=start, subsequent_indent=indent)
    if check.fix:
        told += textwrap.wrap(
            f"fix: {check.fix}", _WIDTH, initial_indent=indent, subsequent_indent=indent + "  "
        )
    return told


if __name__ == "__main__":
    sys.exit(run_command(main, USAGE))
