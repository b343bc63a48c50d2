# ruff: noqa: E501
from __future__ import annotations

import pytest

from radcap.aot.chips import GIB, find_topology
from radcap.aot.figures import (
    RESERVED_BYTES,
    Compiled,
    batch_figures,
    floor,
    memory,
    program_figures,
)

FIGURES = {
    "flops": 61.5e12 / 100,  # a hundredth of a second of one v3 core
    "bytes_accessed": 450e9 / 50,
    "arguments": 2 * GIB,
    "outputs": 3 * GIB,
    "aliased": 2 * GIB,
    "temporaries": 4 * GIB,
    "code": GIB,
    "compile_s": 1.0,
}
REFUSAL = """RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 37.46G of 15.48G hbm. Exceeded hbm capacity by 21.98G.

  Largest program allocations in hbm:

  1. Size: 6.13G
     Operator: op_name="loss.1/fc_out.7/aten__mm" source_file="linear.py"
     Shape: bf16[3360,32,30522]{2,1,0:T(8,128)(2,1)}
     ==========================

  2. Size: 840.00M
     Shape: u8[26880,32,1024]{2,1,0:T(8,128)(4,1)}
     ==========================
"""


def none_of(kinds: str = "all-reduce all-gather reduce-scatter") -> dict[str, dict[str, int]]:
    return {kind: {"count": 0, "bytes": 0} for kind in kinds.split()}


def test_the_floor_is_the_slowest_of_three_limits() -> None:
    topology = find_topology("v3-8")
    work = (FIGURES["flops"], FIGURES["bytes_accessed"])
    found = floor(*work, none_of(), topology)
    assert found["compute_ms"] == pytest.approx(10)
    assert found["hbm_ms"] == pytest.approx(20)
    assert (found["ms"], found["binds"]) == (pytest.approx(20), "hbm")

    # An all-reduce over 4 chips sends 1.5 times its bytes, at 328 GB/s; a gather half of that.
    counts = none_of()
    counts["all-reduce"] = {"count": 1, "bytes": 328 * 10**7}
    counts["all-gather"] = {"count": 1, "bytes": 328 * 10**7}
    counts["reduce-scatter"] = {"count": 1, "bytes": 328 * 10**7 // 8}
    found = floor(*work, counts, topology)
    assert found["interconnect_ms"] == pytest.approx(15 + 7.5 + 7.5)
    assert found["binds"] == "interconnect"


def test_memory_counts_what_is_written_in_place_once() -> None:
    found = memory(FIGURES, find_topology("v3-8"))
    assert found["needed"] == (2 + 4 + 1 + 1) * GIB
    assert found["margin"] == 8 * GIB - RESERVED_BYTES and found["fits"]
    assert not memory(FIGURES | {"temporaries": 13 * GIB}, find_topology("v3-8"))["fits"]


def test_a_refusal_is_reported_with_its_numbers() -> None:
    topology = find_topology("v3-8")
    compiled = Compiled("train", 1, {"refused": REFUSAL, "compile_s": 2.0}, "", "module")
    program = program_figures(compiled, topology)
    assert program["memory"]["needed"] == pytest.approx(37.46 * GIB, abs=1)
    assert program["memory"]["usable"] == pytest.approx(15.48 * GIB, abs=1)
    first, second = program["largest_buffers"]
    assert first == {
        "bytes": int(6.13 * GIB),
        "shape": "bf16[3360,32,30522]",
        "module": "fc_out",
    }
    assert (second["bytes"], second["module"]) == (840 * 2**20, "step")
    whole = batch_figures({"train": program}, 26_880, topology)
    assert not whole["fits"]
    assert whole["floor_ms"] is None and whole["images_per_s"] is None


def test_a_single_array_that_is_too_large_is_a_refusal_too() -> None:
    words = (
        "RESOURCE_EXHAUSTED: Allocation (size=12331253760) would exceed memory (size=8589934592)"
    )
    found = memory({"refused": words, "compile_s": 1.0}, find_topology("v2-8"))
    assert (found["needed"], found["usable"]) == (12_331_253_760, 8 * GIB)
    assert not found["fits"]


def test_a_batch_sums_its_programs_by_how_often_they_run() -> None:
    topology = find_topology("v3-8")
    text = 'ENTRY %main () -> f32[] {\n  ROOT %r = f32[]{:T(256)} constant(1), metadata={op_name="a"}\n}'
    programs = {
        "start": program_figures(Compiled("start", 1, FIGURES, text, "module"), topology),
        "token": program_figures(Compiled("token", 32, FIGURES, text, "module"), topology),
    }
    whole = batch_figures(programs, 336, topology)
    assert whole["flops"] == pytest.approx(33 * 8 * FIGURES["flops"])
    assert whole["bytes_per_image"] == pytest.approx(33 * 8 * FIGURES["bytes_accessed"] / 336)
    # These programs touch 4 bytes of memory: arithmetic alone binds them.
    assert whole["floor_ms"] == pytest.approx(33 * 10)
    assert whole["images_per_s"] == pytest.approx(336 / 0.33)
