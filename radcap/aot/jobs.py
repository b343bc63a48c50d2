"""Runs the two programs that record and compile, each in a process of its own.

torch_xla and JAX read their environments when they are loaded and bring a runtime each; apart,
neither sees the other's, and the command itself loads none.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from radcap.aot.chips import Topology
from radcap.aot.figures import Compiled
from radcap.config.compose import to_yaml
from radcap.config.schema import Config
from radcap.errors import ConfigError, RadcapError
from radcap.host.console import heartbeat

INSTALL = "pip install 'radcap[preflight]'"

LOWER_ENVIRONMENT = {
    "PJRT_DEVICE": "CPU",
    "CPU_NUM_DEVICES": "1",
    "XLA_IR_DEBUG": "1",  # names operations after the open scopes
    "XLA_HLO_DEBUG": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}
# libtpu would else ask the metadata server of a TPU VM, and wait.
_COMPILE_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v3-8",  # any; the topology is given by name
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chip is opened: several may compile side by side
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TPU_MIN_LOG_LEVEL": "2",
}


def check_installed() -> None:
    """Look for what compiling needs, without loading it.

    Raises:
        RadcapError: something is missing.
    """
    missing = [n for n in ("torch_xla", "libtpu", "jax") if importlib.util.find_spec(n) is None]
    if missing:
        raise RadcapError(f"preflight needs {' and '.join(missing)}, not installed here: {INSTALL}")


def versions() -> dict[str, str]:
    """Of the packages that decide what the compiler makes."""
    return {name: metadata.version(name) for name in ("torch", "torch_xla", "jax", "libtpu")}


def lower(config: Config, topology: Topology, batch_sizes: Sequence[int], folder: Path) -> None:
    """Record the programs of every batch size into files of `folder`.

    Raises:
        RadcapError: it failed; the message names a file with all of the output.
    """
    file = folder / "config.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    words = ["-m", "radcap.aot.lower", str(file), str(topology.num_devices), str(folder)]
    run_job([*words, *map(str, batch_sizes)], LOWER_ENVIRONMENT, folder, "recording")


def compile_all(
    topology: Topology, batch_size: int, max_length: int, folder: Path
) -> Iterator[Compiled]:
    """Compile what was recorded for one batch size.

    Args:
        topology: for which TPU.
        batch_size: of the files to take.
        max_length: tokens of a caption, each a run of the program `token`.
        folder: where `lower` wrote.

    Raises:
        RadcapError: as in `lower`.
    """
    for file in sorted(folder.glob(f"{batch_size}-*.bytecode")):
        words = ["-m", "radcap.aot.compile", topology.raw, str(file.with_suffix(""))]
        name = file.stem.removeprefix(f"{batch_size}-")
        run_job(words, _COMPILE_ENVIRONMENT, folder, f"compiling {name}, batch {batch_size}")
        yield Compiled(
            name=name,
            runs=max_length if name == "token" else 1,
            figures=json.loads(file.with_suffix(".figures").read_text(encoding="utf-8")),
            hlo=file.with_suffix(".hlo").read_text(encoding="utf-8"),
            stablehlo=file.with_suffix(".stablehlo").read_text(encoding="utf-8"),
        )


def run_job(words: Sequence[str], environment: Mapping[str, str], folder: Path, what: str) -> None:
    """Run a program of Python to its end, with signs of life.

    Args:
        words: `-m` and a module, or a file, with its arguments.
        environment: on top of this process's own.
        folder: for the program's output.
        what: it does, for the signs of life.

    Raises:
        ConfigError: libtpu knows no such slice.
        RadcapError: it failed; the message names a file with all of the output.
    """
    name = (words[1] if words[0] == "-m" else Path(words[0]).stem).rpartition(".")[2]
    log = folder / f"{name}.log"
    with log.open("wb") as output, heartbeat(what):
        done = subprocess.run(
            [sys.executable, *words],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
        )
    if done.returncode == 0:
        return
    output_text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in output_text.splitlines() if line.strip()]
    if (said := re.search(r"INVALID_ARGUMENT: (Topology.*)", "\n".join(lines))) is not None:
        raise ConfigError(f"preflight.topology: libtpu has no such slice: {said[1]}")
    how = f"ended with status {done.returncode}"
    if done.returncode < 0:
        how = f"was killed by {signal.Signals(-done.returncode).name}"
        if -done.returncode == signal.SIGKILL:
            how += " (out of memory?)"
    telling = [line for line in lines if "Check failed" in line or "Error: " in line]
    cause = f": {(telling or lines)[-1][:200]}" if lines else ""
    kept = Path(tempfile.mkstemp(prefix=f"radcap-{name}-", suffix=".log")[1])
    kept.write_text("\n".join(lines) + "\n", encoding="utf-8")
    raise RadcapError(f"{name} {how}{cause} (all of its output: {kept})")
