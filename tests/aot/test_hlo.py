# ruff: noqa: E501
from __future__ import annotations

from radcap.aot.hlo import HloModule, fingerprint

TEXT = """HloModule IrToHlo.7, is_scheduled=true, entry_computation_layout={(f32[8,512]{1,0})->f32[8]}

%add.1 (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(256)} parameter(0)
  %b = f32[]{:T(256)} parameter(1)
  ROOT %sum = f32[]{:T(256)} add(%a, %b)
}

%body (p: (s32[], f32[16])) -> (s32[], f32[16]) {
  %all-gather-start.1 = (f32[4]{0:T(128)}, f32[16]{0:T(128)}) all-gather-start(%x), dimensions={0}
}

ENTRY %main.9_spmd (param.0: f32[8,512]) -> f32[8,512] {
  %param.0 = f32[8,512]{1,0:T(8,128)} parameter(0), metadata={op_name="optimizer.4/xla__device_data"}
  %fusion.1 = (f32[10]{0:T(256)}, bf16[42,3,5,100]{0,1,3,2:T(8,128)(2,1)}) fusion(%param.0), kind=kLoop, metadata={op_name="loss.1/decoder.6/decoder.layers.0.1/aten__mm" source_file="/a/b.py" source_line=3}, backend_config={"window_config":{"estimated_cycles":"700"}}
  %gte.0 = f32[10]{0:T(256)} get-tuple-element(%fusion.1), index=0
  %fast.1 = f32[1000,1000]{1,0:T(8,128)S(1)} copy(%gte.0), metadata={op_name="aten__mul.5/aten__mul"}, backend_config={"window_config":{"estimated_cycles":"200"}}
  %all-reduce.1 = (f32[16]{0:T(256)}, f32[4]{0:T(256)}) all-reduce(%gte.0, %gte.0), to_apply=%add.1, metadata={op_name="reduce.1"}
  %new.1 = f32[8,512]{1,0:T(8,128)} fusion(%param.0, %fast.1), kind=kLoop, metadata={op_name="optimizer.4/aten__add.2/aten__add"}, backend_config={"window_config":{"estimated_cycles":"100"}}
  ROOT %tuple.1 = (f32[8,512]{1,0:T(8,128)}) tuple(%new.1)
}
"""


def test_collectives_are_counted_in_all_computations_by_their_results() -> None:
    found = HloModule.parse(TEXT).collectives()
    assert found["all-reduce"] == {"count": 1, "bytes": 80}
    assert found["all-gather"] == {"count": 1, "bytes": 64}  # not what goes in
    assert found["reduce-scatter"] == {"count": 0, "bytes": 0}


def test_buffers_are_measured_in_whole_tiles_of_their_layout() -> None:
    rows = HloModule.parse(TEXT).largest_buffers(10)
    by_name = {(row["name"], row["shape"]): row for row in rows}
    argument = by_name["param.0", "f32[8,512]"]
    assert argument["bytes"] == 8 * 512 * 4
    assert argument["module"] == "optimizer (argument)"
    # Fastest axes in memory: 42, in tiles of 128, and 3, in tiles of 8.
    picture = by_name["fusion.1", "bf16[42,3,5,100]"]
    assert picture["bytes"] == 128 * 8 * 5 * 100 * 2
    assert picture["unpadded_bytes"] == 42 * 3 * 5 * 100 * 2
    assert picture["module"] == "decoder.layers.0"
    # Fast memory is no HBM; a result in an argument's place is not counted twice.
    assert not {"fast.1", "new.1", "gte.0", "tuple.1"} & {str(row["name"]) for row in rows}
    assert [row["bytes"] for row in rows] == sorted((row["bytes"] for row in rows), reverse=True)


def test_traffic_with_hbm_leaves_fast_memory_out() -> None:
    # Read: the argument, twice; gte.0 three times. Written: all but fast.1.
    big, small, picture = 8 * 512 * 4, 10 * 4, 42 * 3 * 5 * 100 * 2
    written = big + small + picture + 80
    assert HloModule.parse(TEXT).hbm_bytes() == written + 2 * big + 3 * small


def test_costs_are_the_compilers_cycles_by_module() -> None:
    module = HloModule.parse(TEXT)
    assert module.cycles() == 1000
    assert [row["cycles"] for row in module.costliest(2)] == [700, 200]
    assert module.cycles_by_module() == {"decoder.layers": 700, "step": 200, "optimizer": 100}


def test_the_fingerprint_sees_the_program_and_no_source_files() -> None:
    moved = TEXT.replace("/a/b.py", "/c/d.py").replace("source_line=3", "source_line=4")
    moved = moved.replace("IrToHlo.7", "IrToHlo.8")
    assert fingerprint(moved) == fingerprint(TEXT)
    assert fingerprint(TEXT.replace("kind=kLoop", "kind=kInput", 1)) != fingerprint(TEXT)
