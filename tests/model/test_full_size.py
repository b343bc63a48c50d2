"""Greedy captions of 64 images at the card's full size are those of recomputed prefixes."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import PATIENCE_S

# One thread: on a busy machine two wait for each other at every small step.
VARIABLES = {
    "OMP_NUM_THREADS": "1",
    "PJRT_DEVICE": "CPU",
    "PYTHONPATH": str(Path(__file__).parents[2]),
}


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", "xla"])
def test_full_size_captions_are_those_of_recomputed_prefixes(device: str) -> None:
    if device == "xla" and importlib.util.find_spec("torch_xla") is None:
        pytest.skip("torch_xla is not installed")
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("full_size.py")), device],
        env=os.environ | VARIABLES,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["captions"] > 16
    assert found["lengths"] > 3
    assert (found["different_16"], found["different_1"]) == (0, 0)
    if device == "xla":
        assert found["graphs"] <= 4  # two for each batch size
