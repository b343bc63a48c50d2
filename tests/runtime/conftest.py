"""Runs parts of runtime_program.py, each in a process of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import programs
import pytest

PROGRAM = Path(__file__).with_name("runtime_program.py")


@pytest.fixture(scope="session")
def run_program() -> Callable[..., Any]:
    """`run_program(part, *words, processes=1, **environment)`: what that part found.

    A training graph after the first step is an error there.
    """

    def run(part: str, *words: object, processes: int = 1, **environment: str) -> Any:
        line = [str(PROGRAM), part, *map(str, words)]
        settings = {"RADCAP_STRICT_GRAPHS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
        env = os.environ | programs.QUICK_XLA | settings | environment
        done = programs.run(programs.launched(line, processes, env), env=env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run
