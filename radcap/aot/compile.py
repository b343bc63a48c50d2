"""`python -m radcap.aot.compile`: compile a recorded program for a TPU, in a process of its own.

Needs JAX and libtpu, but no TPU. The environment keeps libtpu from looking for one: see
`radcap.aot.jobs`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.experimental import topologies
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo

# JAX compiles foreign StableHLO only by its inner parts; the versions are pinned to each other.
from jax._src import compiler  # isort: skip
from jax._src.interpreters import mlir  # isort: skip
from jax._src.lib import _jax  # isort: skip

OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"


def compile_program(
    bytecode: bytes, notes: Mapping[str, Any], topology: str
) -> tuple[dict[str, Any], str]:
    """Compile a program for all devices of a TPU slice.

    Args:
        bytecode: a portable artefact of StableHLO with the shapes of the global batch.
        notes: `sharded` and `aliases`, see `radcap.aot.trace.Program`; `devices`, over how many of
            the slice's devices the program is spread.
        topology: as libtpu names it, `v3:2x2`.

    Returns:
        Figures for one device (bytes, FLOPs, seconds), and the optimised HLO as text. Where the
        program needs more memory than there is, the compiler's words as `refused`, and no text.
    """
    devices = _devices(topology, notes["devices"])
    options = compiler.get_compile_options(
        num_replicas=1, num_partitions=len(devices), use_spmd_partitioning=len(devices) > 1
    )
    build = options.executable_build_options
    build.use_shardy_partitioner = False
    build.allow_spmd_sharding_propagation_to_output = [True]
    start = time.monotonic()
    with mlir.make_ir_context():
        module = _deserialize(bytecode)
        _annotate(module, notes["sharded"], notes["aliases"], len(devices))
        annotated = mlir.module_to_bytecode(module)
    try:
        executable = devices[0].client.compile(annotated, _jax.DeviceList(tuple(devices)), options)
    except jax.errors.JaxRuntimeError as error:
        if OUT_OF_MEMORY not in str(error):
            raise
        return {"refused": str(error), "compile_s": time.monotonic() - start}, ""
    memory = executable.get_compiled_memory_stats()
    cost = executable.cost_analysis()
    return {
        "flops": cost["flops"],
        "bytes_accessed": cost["bytes accessed"],
        "arguments": memory.argument_size_in_bytes,
        "outputs": memory.output_size_in_bytes,
        "aliased": memory.alias_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "code": memory.generated_code_size_in_bytes,
        "compile_s": time.monotonic() - start,
    }, executable.hlo_modules()[0].to_string()


def _devices(topology: str, count: int) -> list[Any]:
    """The devices of a slice, all of them, or one for a program of one device."""
    # A program sees a chip of v4 as one device only if it asks for that.
    options = {"chip_config_name": "megacore"} if topology.startswith("v4:") else {}
    found = topologies.get_topology_desc(topology_name=topology, platform="tpu", **options).devices
    assert count in (1, len(found)), f"{topology} has {len(found)} devices, not {count}"
    return list(found[:count])


def stablehlo_text(bytecode: bytes) -> str:
    """A portable artefact of StableHLO for people, without the source lines it came from."""
    with mlir.make_ir_context():
        module = _deserialize(bytecode)
        return module.operation.get_asm(enable_debug_info=False)


def _deserialize(bytecode: bytes) -> Any:
    context = ir.Context.current
    return stablehlo.deserialize_portable_artifact(context, bytecode)  # type: ignore[attr-defined]


def _annotate(
    module: Any, sharded: Sequence[bool], aliases: Mapping[str, int], num_devices: int
) -> None:
    """Say where arguments and results lie, and which results take an argument's place."""
    main = module.body.operations[0]
    everywhere = ir.StringAttr.get("{replicated}")
    attributes = []
    results: dict[int, ir.Attribute] = {}
    for number, (argument, spread) in enumerate(zip(main.arguments, sharded, strict=True)):
        sharding = everywhere
        if spread:
            axes = [num_devices] + [1] * (argument.type.rank - 1)
            sharding = ir.StringAttr.get(
                f"{{devices=[{','.join(map(str, axes))}]<=[{num_devices}]}}"
            )
        entry: dict[str, ir.Attribute] = {"mhlo.sharding": sharding} if num_devices > 1 else {}
        if str(number) in aliases:
            result = aliases[str(number)]
            results[result] = sharding
            entry["tf.aliasing_output"] = ir.IntegerAttr.get(
                ir.IntegerType.get_signless(32), result
            )
        attributes.append(ir.DictAttr.get(entry))
    main.arg_attrs = ir.ArrayAttr.get(attributes)
    if num_devices > 1:
        main.result_attrs = ir.ArrayAttr.get(
            [
                ir.DictAttr.get({"mhlo.sharding": results[i]} if i in results else {})
                for i in range(len(main.type.results))
            ]
        )


def main(words: Sequence[str]) -> None:
    """TOPOLOGY STEM: read STEM.bytecode and .json, write STEM.stablehlo, .figures and .hlo."""
    topology, stem = words[0], Path(words[1])
    notes = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
    bytecode = stem.with_suffix(".bytecode").read_bytes()
    stem.with_suffix(".stablehlo").write_text(stablehlo_text(bytecode), encoding="utf-8")
    figures, text = compile_program(bytecode, notes, topology)
    stem.with_suffix(".figures").write_text(json.dumps(figures), encoding="utf-8")
    stem.with_suffix(".hlo").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
