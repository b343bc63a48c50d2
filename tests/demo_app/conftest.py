"""`python -m radcap.demo` in a process of its own, which tells where it connects to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import ROOT
from evaluation.known import looking_model, save

# Python runs a module of this name when it starts.
_WATCH = """
import os, sys

def watch(event, words):
    if event in ("socket.connect", "socket.getaddrinfo"):
        where = words[1] if event == "socket.connect" else words[0]
        with open(os.environ["RADCAP_TEST_CALLS"], "a") as calls:
            print(where, file=calls)

sys.addaudithook(watch)
"""


@dataclass(frozen=True)
class Demo:
    """A page that is served.

    Attributes:
        address: of the page.
        process: the command.
        temporary: the folder that it takes for all of its temporary files.
        calls: a line for every address that it has asked for.
        output: what it printed before the page stood, but for the signs of life of a slow machine.
    """

    address: str
    process: subprocess.Popen[str]
    temporary: Path
    calls: Path
    output: str

    def uploads(self) -> list[Path]:
        """Files that were uploaded and are there still."""
        return [
            file
            for file in self.temporary.glob("radcap-demo-*/**/*")
            if file.is_file() and "vibe_edit_history" not in file.parts
        ]


@pytest.fixture(scope="session")
def looking_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file whose captions depend on the picture."""
    return save(looking_model(1, 8), tmp_path_factory.mktemp("weights") / "look.safetensors")


@contextmanager
def serving_demo(folder: Path, *words: str | Path, app: Path | None = None) -> Iterator[Demo]:
    """The command on a free port, or the app of a Space; it is ended with the block."""
    (folder / "watch").mkdir()
    (folder / "watch" / "sitecustomize.py").write_text(_WATCH)
    (folder / "tmp").mkdir()
    program = ["-m", "radcap.demo"] if app is None else [app]
    process = subprocess.Popen(
        [sys.executable, *program, *words, "--port", "0", "--device", "cpu"],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": f"{folder / 'watch'}{f':{ROOT}' if app is None else ''}",
            "RADCAP_TEST_CALLS": str(folder / "calls"),
            "TMPDIR": str(folder / "tmp"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    output = ""
    for line in process.stdout:
        output += "" if line.startswith("loading the weights") else line
        if line.startswith("page:"):
            address = line.split()[1]
            break
    else:
        raise AssertionError(process.communicate())
    try:
        yield Demo(address, process, folder / "tmp", folder / "calls", output)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.communicate()


@pytest.fixture(scope="session")
def demo(looking_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """One page for all tests that do not end it."""
    with serving_demo(tmp_path_factory.mktemp("demo"), looking_weights) as demo:
        yield demo
