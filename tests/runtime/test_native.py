"""Several processes of plain torch train as one: launched by torchrun, gloo between them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from radcap.errors import ConfigError
from radcap.runtime.launch import check_devices
from radcap.runtime.native import NativeRuntime


@pytest.mark.slow
def test_two_processes_have_the_curve_and_the_statistics_of_one(
    tmp_path: Path, run_program: Callable[..., Any]
) -> None:
    """Rows with unequal numbers of tokens, so that a mean of the processes' means would differ."""
    one = run_program("curve", "cpu", 1, 0, 20, tmp_path / "one.pt", 0)
    two = run_program("curve", "cpu", 2, 0, 20, tmp_path / "two.pt", 0, processes=2)
    assert two["device"].startswith("2 processes, each CPU")
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-3)
    paths = []
    for processes in (1, 2):
        paths.append(tmp_path / f"first{processes}.pt")
        run_program("curve", "cpu", processes, 0, 1, paths[-1], 0, processes=processes)
    alone, together = (torch.load(path, weights_only=True)["model"] for path in paths)
    variances = [key for key in alone if key.endswith("running_var")]
    assert len(variances) == 34
    for key in variances:
        assert torch.allclose(alone[key], together[key], rtol=2e-4, atol=1e-7), key
        mean = key.replace("running_var", "running_mean")
        assert torch.allclose(alone[mean], together[mean], rtol=1e-3, atol=1e-4), mean


@pytest.mark.slow
def test_two_processes_resume_with_dropout_bit_for_bit(
    tmp_path: Path, run_program: Callable[..., Any]
) -> None:
    whole = run_program("curve", "cpu", 2, 0, 4, tmp_path / "whole.pt", 0.3, processes=2)
    parts = [
        run_program("curve", "cpu", 2, first, last, tmp_path / "parts.pt", 0.3, processes=2)
        for first, last in ((0, 2), (2, 4))
    ]
    assert parts[0]["losses"] + parts[1]["losses"] == whole["losses"]


def test_devices_are_the_processes_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    check_devices("cpu", 1)
    with pytest.raises(ConfigError, match="torchrun --nproc-per-node=4"):
        check_devices("cpu", 4)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    check_devices("cpu", 4)
    check_devices("cpu", None)
    with pytest.raises(ConfigError, match=r"runtime\.devices=1"):
        check_devices("cpu", 1)


@pytest.mark.parametrize(
    ("devices", "batch_size", "accumulate", "fits"),
    [(8, 336, 1, None), (8, 336, 6, None), (8, 340, 1, "336 or 344"), (32, 16, 2, "64")],
)
def test_a_global_batch_divides_by_devices_and_micro_batches(
    devices: int, batch_size: int, accumulate: int, fits: str | None
) -> None:
    runtime = NativeRuntime("cpu", precision="fp32", threads=1)
    runtime.num_devices = devices
    if fits is None:
        runtime.check_batch_size(batch_size, accumulate)
    else:
        with pytest.raises(ConfigError, match=f"data.batch_size={batch_size}.* {fits} does"):
            runtime.check_batch_size(batch_size, accumulate)
