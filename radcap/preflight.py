"""`python -m radcap.preflight`: compile for a TPU that is not here, and say what to expect."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radcap.errors import EXIT_DOES_NOT_FIT, EXIT_DONE, ConfigError, RadcapError
from radcap.files.atomic import write_atomically
from radcap.files.mappings import MOST_BYTES, parse_json
from radcap.files.reading import read_bytes
from radcap.host.console import heartbeat, run_command, say
from radcap.host.places import temporary_folder

if TYPE_CHECKING:
    from radcap.aot.chips import Topology
    from radcap.config.schema import Config

WRITTEN_BY = "radcap.preflight"

USAGE = """
usage: python -m radcap.preflight [OVERRIDE ...] [--config-dir FOLDER] [--show-config]

Compile the trainer's own step for a TPU that need not be here, with the TPU's own compiler, and
report: does it fit, how much work is it, which collectives, how fast at best. Needs no TPU, no
network, no data and no weights. Takes one to two minutes on two cores.

overrides: those of python -m radcap.train, and
  preflight.topology=NAME   v2-8 v3-8 v3-32 v4-8 v5e-4 v5e-8 v5p-8 v6e-4 v6e-8, or v3:4x8
  preflight.graph=NAME      train (a training step), eval (a validation step), generate (captions)
  preflight.batch_sizes=[168,336]   several global batches; which is the largest that fits?
  preflight.out=FILE        the figures as JSON (default preflight.json)
  preflight.compare=FILE    an earlier such file: show what changed
  preflight.keep=FOLDER     keep the programs, as recorded (StableHLO) and as compiled (HLO)

options:
  --config-dir FOLDER   a folder of your own with experiment/NAME.yaml and the like
  --show-config         print the whole configuration and stop
  -h, --help            print this and stop

exit status:
  0 fits (of several batch sizes, at least one)   1 failed   2 wrong configuration
  3 does not fit

examples:
  python -m radcap.preflight +experiment=epoch1 preflight.topology=v3-8
  python -m radcap.preflight +experiment=epoch1 preflight.batch_sizes=[168,336,672,1344]
  python -m radcap.preflight +experiment=epoch1 preflight.topology=v5e-8 preflight.graph=generate
"""


def main(words: Sequence[str]) -> int:
    """Check, record, compile, report.

    Returns:
        The exit status.
    """
    from radcap.config.compose import read_command_line

    config = read_command_line(words)
    if config is None:
        return EXIT_DONE

    from radcap.aot.chips import find_topology
    from radcap.aot.jobs import check_installed
    from radcap.aot.report import change_lines, lines
    from radcap.runtime.launch import check_batch_size

    topology = find_topology(config.preflight.topology)
    batch_sizes = config.preflight.batch_sizes or [config.data.batch_size]
    option = "preflight.batch_sizes" if config.preflight.batch_sizes else "data.batch_size"
    accumulate = config.trainer.accumulate
    for batch_size in batch_sizes:
        check_batch_size(batch_size, topology.num_devices, accumulate, option=option)
    if config.runtime.devices not in (None, topology.num_devices):
        raise ConfigError(
            f"runtime.devices={config.runtime.devices}: {topology.name} has "
            f"{topology.num_devices} devices; leave runtime.devices=null"
        )
    before = _earlier(config.preflight.compare)
    out = _writable(config.preflight.out)
    if config.preflight.keep is not None:
        _make_folder(config.preflight.keep)
    check_installed()

    report = _report(config, topology, sorted(set(batch_sizes)))
    try:
        write_atomically(out, json.dumps(report, indent=2) + "\n", is_shared=True)
    except OSError as error:
        raise RadcapError(f"preflight.out={out}: {error.strerror}") from None
    for line in lines(report):
        say(line)
    if before is not None:
        for line in change_lines(before, report):
            say(line)
    say(f"\nall figures: {out}")
    return EXIT_DONE if report["fits"] else EXIT_DOES_NOT_FIT


def _report(config: Config, topology: Topology, batch_sizes: Sequence[int]) -> dict[str, Any]:
    from radcap.aot import jobs
    from radcap.aot.figures import batch_figures, program_figures

    home = temporary_folder()
    with tempfile.TemporaryDirectory(prefix="radcap-preflight-", dir=home) as name:
        folder = Path(name)
        say(f"recording the {config.preflight.graph} program for {topology.num_devices} devices")
        jobs.lower(config, topology, batch_sizes, folder)
        batches = []
        for batch_size in batch_sizes:
            say(f"compiling batch {batch_size} for {topology.name}, about a minute")
            compiled = jobs.compile_all(topology, batch_size, config.data.max_length, folder)
            programs = {one.name: program_figures(one, topology) for one in compiled}
            batches.append(batch_figures(programs, batch_size, topology))
        if config.preflight.keep:
            shutil.copytree(folder, config.preflight.keep, dirs_exist_ok=True)
    fitting = [batch for batch in batches if batch["fits"]]
    shown = fitting[-1] if fitting else batches[0]
    return {
        "written_by": WRITTEN_BY,
        "topology": topology.name,
        "chips": topology.num_chips,
        "devices": topology.num_devices,
        "graph": config.preflight.graph,
        "precision": config.runtime.precision or "bf16",
        **shown,
        "largest_batch_that_fits": shown["batch_size"] if fitting else None,
        **_use(config, topology, shown),
        "versions": jobs.versions(),
        "batches": batches,
    }


def _use(config: Config, topology: Topology, shown: dict[str, Any]) -> dict[str, Any]:
    """What the floor means for the experiment, and for the host."""
    from radcap.aot.feed import decoding_rate, training_split
    from radcap.optim.schedule import run_length

    split, batch_size = training_split(config.data), config.data.batch_size
    counted = config.trainer.max_epochs is None or split.rows is not None
    images = steps = hours = None
    if counted and config.preflight.graph == "train":
        # One global batch more or less where the rows are not known: only epochs need them.
        steps_per_epoch = -(-(split.rows or batch_size) // batch_size)
        length = run_length(config.trainer, batch_size=batch_size, steps_per_epoch=steps_per_epoch)
        length = min(length, config.debug.limit or length)
        images = length * batch_size
        steps = -(-images // shown["batch_size"])
    rate = shown["images_per_s"]
    if rate and images:
        hours = images / rate / 3600
    with heartbeat("measuring how fast this machine decodes"):
        decode_rate = decoding_rate()
    cores = topology.num_chips * topology.chip.cores
    return {
        "experiment": {
            "images": images,
            "steps": steps,
            "hours": hours,
            "core_hours": hours * cores if hours else None,
        },
        "host": {
            "images_per_s": rate,
            "mb_per_s": rate * split.bytes_per_row / 1e6 if rate and split.bytes_per_row else None,
            "decode_rate": decode_rate,
            "decode_cores": rate / decode_rate if rate else None,
        },
    }


def _earlier(file: str | None) -> dict[str, Any] | None:
    if file is None:
        return None
    try:
        before = parse_json(read_bytes(file, most=MOST_BYTES))
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"preflight.compare={file}: not a readable preflight: {reason}") from None
    except ValueError as error:
        raise ConfigError(f"preflight.compare={file}: not a readable preflight: {error}") from None
    if not isinstance(before, dict) or before.get("written_by") != WRITTEN_BY:
        raise ConfigError(f"preflight.compare={file}: not written by radcap.preflight")
    return before


def _writable(file: str) -> Path:
    out = Path(file).resolve()
    try:
        usable = out.parent.is_dir() and (out.is_file() or not out.exists())
    except OSError:  # a name too long
        usable = False
    if not usable or not os.access(out.parent, os.W_OK):
        raise ConfigError(f"preflight.out={file}: no file can be written there")
    return out


def _make_folder(name: str) -> None:
    try:
        Path(name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"preflight.keep={name}: {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(run_command(main, USAGE))
