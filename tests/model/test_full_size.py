"""Greedy captions of 64 images at the card's full size are those of recomputed prefixes."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import programs
import pytest


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", "xla"])
def test_full_size_captions_are_those_of_recomputed_prefixes(device: str) -> None:
    if device == "xla" and importlib.util.find_spec("torch_xla") is None:
        pytest.skip("torch_xla is not installed")
    done = programs.run(
        [Path(__file__).with_name("full_size.py"), device],
        env=os.environ | programs.QUICK_XLA | {"PJRT_DEVICE": "CPU"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["captions"] > (16 if device == "cpu" else 8)
    assert found["lengths"] >= 3
    assert (found["different_16"], found["different_1"]) == (0, 0)
    if device == "xla":
        assert found["graphs"] <= 4  # two for each batch size
