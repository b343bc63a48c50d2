"""A command in a process of its own, that reports at its end what it did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from command_line import ROOT
from waiting import PATIENCE_S

# Python runs a module of this name when it starts.
_WATCH = """
import atexit, json, os, sys

connections = []

def watch(event, words):
    if event == "socket.connect" and isinstance(words[1], tuple):
        connections.append(list(words[1][:2]))

def report(process=os.getpid()):
    if os.getpid() == process:
        with open(os.environ["RADCAP_TEST_REPORT"], "w") as file:
            json.dump({"modules": sorted(sys.modules), "connections": connections}, file)

sys.addaudithook(watch)
atexit.register(report)
"""


@dataclass(frozen=True)
class Watched:
    """A process that has ended, and what it did.

    Attributes:
        done: its status and what it said.
        modules: names of the modules that it had loaded.
        connections: host and port of each connection that it tried to open.
    """

    done: subprocess.CompletedProcess[str]
    modules: set[str]
    connections: list[tuple[str, int]]

    @property
    def heavy(self) -> set[str]:
        """Those of the libraries that take seconds to load which it has loaded."""
        return self.modules & {"torch", "torch_xla", "jax", "transformers", "datasets"}


def watch(cwd: Path, *words: object, variables: Mapping[str, str] = os.environ) -> Watched:
    """Run Python with some words to its end, with radcap to import.

    Args:
        variables: the process's environment.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sitecustomize.py").write_text(_WATCH)
        report = Path(folder) / "report.json"
        paths = {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "RADCAP_TEST_REPORT": str(report)}
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=cwd,
            env={**variables, **paths},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        found = json.loads(report.read_text())
    connections = [(host, port) for host, port in found["connections"]]
    return Watched(done, set(found["modules"]), connections)
