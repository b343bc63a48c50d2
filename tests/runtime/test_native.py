"""Several processes of plain torch train as one: launched by torchrun, gloo between them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from radcap.config.schema import RuntimeConfig
from radcap.errors import ConfigError
from radcap.runtime import select
from radcap.runtime.launch import check_devices
from radcap.runtime.native import NativeRuntime, without_padding


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


@pytest.mark.parametrize(("multiple", "width"), [(1, 6), (4, 9), (8, 9), (32, 13)])
@pytest.mark.parametrize("pad_id", [0, 9])
def test_padding_that_all_rows_share_is_cut(multiple: int, width: int, pad_id: int) -> None:
    """Targets are counted: 5, rounded up; as many as there are where that is less."""
    tokens = torch.full((3, 13), pad_id, dtype=torch.int32)
    tokens[0, :4], tokens[1, :6] = 7, 0 if pad_id else 8
    cut = without_padding(tokens, pad_id, multiple)
    assert torch.equal(cut, tokens[:, :width])
    padding = torch.full_like(tokens, pad_id)
    assert without_padding(padding, pad_id).shape == (3, 2)  # one target at least
    assert without_padding(torch.ones_like(tokens), pad_id, multiple).shape == tokens.shape


def test_images_come_alone_as_they_do_with_tokens() -> None:
    runtime = NativeRuntime("cpu", precision="fp32", threads=1)
    images = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    alone = runtime.upload_rows(images)
    assert torch.equal(alone, images)
    assert alone.is_contiguous(memory_format=torch.channels_last)
    tokens = torch.zeros(2, 5, dtype=torch.int32)
    assert runtime.upload_rows(tokens) is tokens


@pytest.mark.parametrize(
    ("flags", "most", "precision"),
    [
        ("fpu avx512f avx512_bf16 amx_tile", None, "bf16"),
        ("fpu avx512f avx512_bf16 amx_tile", "avx512_core_bf16", "bf16"),
        ("fpu avx512f avx512_bf16 amx_tile", "AVX2", "fp32"),  # it would be emulated
        ("fpu avx512f avx512_bf16 amx_tile", "AVX512_CORE", "fp32"),
        ("fpu avx512f", None, "fp32"),
        (None, None, "fp32"),
    ],
)
def test_a_cpu_trains_in_bf16_where_it_multiplies_it_and_scores_in_float32(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    flags: str | None,
    most: str | None,
    precision: str,
) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if most is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", most)
    cpuinfo = tmp_path / "cpuinfo"
    if flags is not None:
        cpuinfo.write_text(f"processor : 0\nflags : {flags}\n\n")
    monkeypatch.setattr(select, "_CPU_INFO", cpuinfo)
    for asked, training, scoring in (
        (None, precision, "fp32"),
        ("fp32", "fp32", "fp32"),
        ("bf16", "bf16", "bf16"),
    ):
        config = RuntimeConfig("cpu", None, asked, 1, 2, False)
        runtime = select.open_runtime(config, threads=1)
        assert isinstance(runtime, NativeRuntime)
        assert (runtime.training_precision, runtime.precision) == (training, scoring)
        for context, wanted in (
            (runtime.training_arithmetic(), training),
            (runtime.arithmetic(), scoring),
        ):
            with context:
                product = torch.ones(2, 2) @ torch.ones(2, 2)
            assert product.dtype == {"bf16": torch.bfloat16, "fp32": torch.float32}[wanted]
        assert runtime.describe().endswith(scoring)
        told = runtime.describe(training=True)
        assert told.endswith(scoring if training == scoring else "fp32, bf16 in training")
