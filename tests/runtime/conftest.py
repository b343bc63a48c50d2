"""Runs parts of runtime_program.py, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from waiting import PATIENCE_S

PROGRAM = Path(__file__).with_name("runtime_program.py")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def run_program() -> Callable[..., Any]:
    """`run_program(part, *words, processes=1, **environment)`: what that part found.

    A training graph after the first step is an error there.
    """

    def run(part: str, *words: object, processes: int = 1, **environment: str) -> Any:
        launcher = [sys.executable]
        if processes > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone"]
            launcher += [f"--nproc-per-node={processes}"]
        settings = {
            "PYTHONPATH": str(ROOT),
            "RADCAP_STRICT_GRAPHS": "1",
            "OMP_NUM_THREADS": "1",
            "TF_CPP_MIN_LOG_LEVEL": "2",
        }
        done = subprocess.run(
            [*launcher, str(PROGRAM), part, *map(str, words)],
            env=os.environ | settings | environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run
