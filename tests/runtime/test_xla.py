"""The TPU's program on virtual CPU devices, each time in a process of its own.

Nothing is replaced: the model, the training step, the runtime and the compiler are the real ones.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from programs import QUICK_XLA

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch_xla") is None, reason="torch_xla is not installed"
)


@pytest.fixture(scope="module")
def pieces(run_program: Callable[..., Any]) -> dict[str, Any]:
    return run_program("pieces", CPU_NUM_DEVICES="8")


def test_each_tensor_of_a_batch_is_spread_over_the_devices(pieces: dict[str, Any]) -> None:
    devices = "0,1,2,3,4,5,6,7"
    assert pieces["description"] == "XLA on 8 virtual CPU devices, fp32"
    images, tokens = f"{{devices=[8,1,1,1]{devices}}}", f"{{devices=[8,1]{devices}}}"
    assert pieces["shards"] == [images, tokens, images]  # and images alone
    assert pieces["wire"] == ["torch.uint8", "torch.int32"]
    assert pieces["same"] == [True] * 3


def test_a_loaders_error_comes_after_the_batches_before_it(pieces: dict[str, Any]) -> None:
    assert pieces["failure"] == [3, "'row 17'"]


def test_a_loader_left_early_leaves_no_thread(pieces: dict[str, Any]) -> None:
    assert pieces["threads_end"]


def test_a_batch_that_does_not_divide_is_refused_in_words(pieces: dict[str, Any]) -> None:
    assert pieces["indivisible"] == ["data.batch_size=6 does not divide by 8 devices; 8 does"] * 2


def test_random_numbers_are_seeded_kept_and_undisturbed_by_validation(
    pieces: dict[str, Any],
) -> None:
    assert pieces["random"] == [True] * 4


def test_a_changing_rate_keeps_the_graph_and_a_new_shape_is_told(pieces: dict[str, Any]) -> None:
    assert max(pieces["adam"]) < 1e-6
    assert pieces["graphs"] == 1
    assert pieces["new_graph"] == (
        "step 41 compiled a new training graph (number 2): its batch was uint8 [16, 3, 96, 96] "
        "and int32 [16, 9], the first one uint8 [8, 3, 96, 96] and int32 [8, 9]"
    )


def test_queued_scalars_come_in_one_read(pieces: dict[str, Any]) -> None:
    assert pieces["fetched"] == [{"a": 1.5, "b": 7.0}, {"a": 2.5, "b": 7.0}]
    assert (pieces["reads"], pieces["graphs_of_a_read"]) == (1, 0)


def test_a_read_between_log_intervals_is_counted(pieces: dict[str, Any]) -> None:
    """Of three reads one is the log's and one is validation's."""
    assert pieces["read_in_passing"] == 1.5
    assert pieces["stray_reads"] == 1


@pytest.mark.slow
def test_steps_on_eight_devices_are_those_of_plain_torch_and_a_program_each(
    tmp_path: Path, run_program: Callable[..., Any]
) -> None:
    """tests/test_runtimes.py has twenty steps, and runs that move from 8 devices to others."""
    expected = run_program("curve", "cpu", 1, 0, 5, tmp_path / "native.pt", 0)["losses"]
    found = run_program("curve", "xla_cpu", 8, 0, 5, tmp_path / "eight.pt", 0)
    assert found["losses"] == pytest.approx(expected, rel=1e-3)
    assert found["graphs"]["train"] == 1
    assert found["reads"] == 1
    assert found["executions"] == 5


@pytest.mark.slow
def test_a_plain_model_has_the_losses_of_its_forms(
    tmp_path: Path, run_program: Callable[..., Any]
) -> None:
    listed = run_program("curve", "xla_cpu", 1, 0, 5, tmp_path / "listed.pt", 0)["losses"]
    plain = run_program("curve", "xla_cpu", 1, 0, 5, tmp_path / "plain.pt", 0, "plain")["losses"]
    assert plain == pytest.approx(listed, rel=1e-5)
    assert plain != listed  # other programs


@pytest.mark.slow
def test_batch_norm_statistics_are_those_of_plain_torch(
    tmp_path: Path, run_program: Callable[..., Any]
) -> None:
    for name, devices in (("cpu", 1), ("xla_cpu", 4)):
        run_program("curve", name, devices, 0, 1, tmp_path / f"{name}.pt", 0)
    native, found = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True)["model"]
        for name in ("cpu", "xla_cpu")
    )
    variances = [key for key in native if key.endswith("running_var")]
    assert len(variances) == 34
    for key in variances:
        # The biased variance of 8 x 3 x 3 values would be off by 1e-3.
        assert torch.allclose(native[key], found[key], rtol=2e-4, atol=1e-7), key
        mean = key.replace("running_var", "running_mean")
        assert torch.allclose(native[mean], found[mean], rtol=1e-3, atol=1e-4), mean


@pytest.mark.slow
def test_a_bad_step_moves_nothing_and_captions_share_their_graphs(
    run_program: Callable[..., Any],
) -> None:
    found = run_program("bad_step_then_captions")
    assert not math.isfinite(found["loss"])
    assert found["moved"] == []
    assert found["graphs"] == {"train": 1, "validate": 1, "generate": 2}
    for sums, wanted in zip(found["sums"], found["wanted"], strict=True):
        assert sums == pytest.approx(wanted, rel=1e-5)
    assert found["captions_equal"]  # of rows spread over the devices
    assert found["widths"] > 1


@pytest.mark.slow
def test_bf16_keeps_weights_and_state_in_float32(run_program: Callable[..., Any]) -> None:
    found = run_program("bf16")
    assert found["logits"] == "torch.bfloat16"
    assert found["kept"] == ["torch.float32"]
    assert found["graphs"] == 1
    assert all(abs(loss) < 10 for loss in found["losses"])
    assert sum(found["losses"][-3:]) < sum(found["losses"][:3])


@pytest.mark.slow
def test_no_device_gathers_the_batch(tmp_path: Path, run_program: Callable[..., Any]) -> None:
    """The text that the partitioner leaves, of a step with dropout and two micro-batches."""
    flags = f"{QUICK_XLA['XLA_FLAGS']} --xla_dump_to={tmp_path} --xla_dump_hlo_as_text"
    found = run_program("one_step", 2, XLA_FLAGS=flags)
    text = max(tmp_path.glob("*after_optimizations.txt"), key=lambda f: f.stat().st_size)
    hlo = text.read_text()
    entry = hlo[hlo.index("\nENTRY ") :].splitlines()[1]
    assert found["loss"] > 0
    assert not re.findall(r" (?:all-gather|all-to-all|collective-permute)(?:-start)?\(", hlo)
    assert "all-reduce(" in hlo
    assert "u8[2,3,96,96]" in entry and "s32[2,9]" in entry  # 16 rows on 8 devices
    # Weights and both moments are updated where they lie.
    aliases = re.search(r"input_output_alias=\{(.*?)\}, entry_computation_layout", hlo)
    assert aliases and aliases[1].count("may-alias") >= 3 * found["tensors"]
