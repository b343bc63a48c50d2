"""The model on an XLA device (virtual, on the CPU), each time in a fresh process."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import programs
import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch_xla") is None, reason="torch_xla is not installed"
)


def run_on_xla(part: str) -> dict[str, Any]:
    done = programs.run(
        [Path(__file__).with_name("xla_program.py"), part],
        env=os.environ | programs.QUICK_XLA | {"PJRT_DEVICE": "CPU"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_attention_keeps_the_batch_axis_to_itself() -> None:
    found = run_on_xla("attention")
    assert found["loss"] < 1e-5
    assert found["gradient"] < 1e-5
    assert found["folded"] == 0
    # Two layers, two attentions each: 2 dots forward, 4 backward.
    assert found["batched_dots"] == 24
    assert found["gathers_of_logits"] == 0


@pytest.mark.slow
def test_whole_model_agrees_and_captions_share_their_graphs() -> None:
    found = run_on_xla("whole_model")
    assert found["loss"] < 1e-4
    assert found["gradient"] < 1e-3
    assert found["captions_equal"]
    assert found["widths"] > 1
    assert found["generation_graphs"] <= 2
    assert found["beams_equal"]
    assert found["log_probs"] < 1e-3
    assert found["beam_graphs"] <= 2
