"""From what the compiler says to what people ask: does it fit, how much work, how fast at best."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from radcap.aot.chips import Topology
from radcap.aot.hlo import OTHER, HloModule, fingerprint, module_of

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
LISTED = 10  # buffers and operations
# Of a v3 core's memory, what the compiler says it keeps for the system.
RESERVED_BYTES = 530 * 2**20


@dataclass(frozen=True)
class Compiled:
    """What the compiler gave for one program.

    Attributes:
        name: train, eval, start or token.
        runs: how often one global batch runs it.
        figures: see `radcap.aot.compile.compile_program`.
        hlo: optimised HLO; empty where the program was refused.
        stablehlo: the program as it was recorded.
    """

    name: str
    runs: int
    figures: Mapping[str, Any]
    hlo: str
    stablehlo: str


def program_figures(compiled: Compiled, topology: Topology) -> dict[str, Any]:
    """The figures of one run of one program.

    Where it was refused, those of the compiled program are None.
    """
    names = ["hlo_fingerprint", "flops", "bytes", "hbm_bytes", "collectives", "floor"]
    names += ["estimated_ms", "estimated_cycles", "cycles_by_module", "costliest_operations"]
    base = {
        "runs": compiled.runs,
        "stablehlo_fingerprint": fingerprint(compiled.stablehlo),
        "compile_s": round(compiled.figures["compile_s"], 1),
        "memory": memory(compiled.figures, topology),
    }
    if "refused" in compiled.figures:
        return base | dict.fromkeys(names) | {"largest_buffers": _refused_buffers(compiled.figures)}
    module = HloModule.parse(compiled.hlo)
    collectives = module.collectives()
    clock = topology.chip.clock_hz
    cycles = module.cycles()
    # The compiler's count includes the core's fast memory, and knows which operands are read in
    # part; neither count can be too small for a floor.
    hbm_bytes = min(compiled.figures["bytes_accessed"], module.hbm_bytes())
    return base | {
        "hlo_fingerprint": fingerprint(compiled.hlo),
        "flops": compiled.figures["flops"] * topology.num_devices,
        "bytes": compiled.figures["bytes_accessed"] * topology.num_devices,
        "collectives": collectives,
        "hbm_bytes": hbm_bytes * topology.num_devices,
        "floor": floor(compiled.figures["flops"], hbm_bytes, collectives, topology),
        "estimated_ms": 1e3 * cycles / clock if clock else None,
        "estimated_cycles": cycles,
        "cycles_by_module": module.cycles_by_module(),
        "largest_buffers": module.largest_buffers(LISTED),
        "costliest_operations": module.costliest(LISTED),
    }


def memory(figures: Mapping[str, Any], topology: Topology) -> dict[str, Any]:
    """Bytes of one device's memory: what is needed, what there is, what is left over."""
    capacity = topology.hbm_bytes
    if "refused" in figures:
        needed, usable = _refused_sizes(figures["refused"])
        usable = usable or capacity
        return {
            "fits": False,
            "needed": needed,
            "capacity": capacity,
            "usable": usable,
            "margin": usable - needed if needed is not None else None,
            "compiler": figures["refused"].strip().splitlines()[0],
        }
    parts = {name: figures[name] for name in ("arguments", "temporaries", "code")}
    parts["outputs"] = figures["outputs"] - figures["aliased"]  # the rest lies in the arguments
    needed = sum(parts.values())
    return {
        "fits": needed <= capacity - RESERVED_BYTES,
        "needed": needed,
        "capacity": capacity,
        "usable": capacity - RESERVED_BYTES,
        "margin": capacity - RESERVED_BYTES - needed,
        **parts,
    }


def floor(
    flops: float,
    hbm_bytes: float,
    collectives: Mapping[str, Mapping[str, int]],
    topology: Topology,
) -> dict[str, Any]:
    """The least milliseconds of one run, by each of the machine's limits; the largest one binds.

    Nothing can be faster than the peak of one limit while the others cost nothing; real steps are
    slower. Links: an all-reduce of n bytes over c chips sends at least 2 (c - 1) / c n bytes from
    every chip; gathering and scattering are its halves (Patarasuk and Yuan, "Bandwidth optimal
    all-reduce algorithms", 2009). The cores of a chip share its links and reduce among themselves
    first.

    Args:
        flops, hbm_bytes: of one device.
        collectives: kind -> count and bytes of the results on one device.
        topology: the slice.
    """
    chip = topology.chip
    share = (topology.num_chips - 1) / topology.num_chips
    factors = {
        "all-reduce": 2 * share,
        "all-gather": share,
        "reduce-scatter": share * topology.num_devices,  # its result is one device's part
        "all-to-all": share,
        "collective-permute": 1.0,
    }
    sent = sum(factors[kind] * found["bytes"] for kind, found in collectives.items())
    limits = {
        "compute_ms": 1e3 * flops * chip.devices / chip.flops,
        "hbm_ms": 1e3 * hbm_bytes * chip.devices / chip.hbm_bytes_per_s,
        "interconnect_ms": 1e3 * sent / chip.link_bytes_per_s,
    }
    binds = max(limits, key=lambda name: limits[name])
    return {"ms": limits[binds], "binds": binds.removesuffix("_ms"), **limits}


def batch_figures(
    programs: Mapping[str, dict[str, Any]], batch_size: int, topology: Topology
) -> dict[str, Any]:
    """The figures of one global batch from those of its programs."""
    rows = programs.values()
    refused = any(row["flops"] is None for row in rows)
    fits = all(row["memory"]["fits"] for row in rows)
    tightest = min(rows, key=lambda row: row["memory"]["margin"] or float("-inf"))
    figures: dict[str, Any] = {
        "batch_size": batch_size,
        "rows_per_device": batch_size // topology.num_devices,
        "fits": fits,
        "memory": tightest["memory"],
        "programs": dict(programs),
    }
    if refused:
        names = ["flops", "bytes", "flops_per_image", "bytes_per_image", "collectives"]
        names += ["floor_ms", "floor_binds", "images_per_s", "estimated_ms"]
        return figures | dict.fromkeys(names)
    flops, bytes_ = (sum(row["runs"] * row[name] for row in rows) for name in ("flops", "bytes"))
    floor_ms = sum(row["runs"] * row["floor"]["ms"] for row in rows)
    longest = max(rows, key=lambda row: row["runs"] * row["floor"]["ms"])
    clocked = all(row["estimated_ms"] is not None for row in rows)
    return figures | {
        "flops": flops,
        "bytes": bytes_,
        "flops_per_image": flops / batch_size,
        "bytes_per_image": bytes_ / batch_size,
        "collectives": _sum_collectives(list(rows)),
        "floor_ms": floor_ms,
        "floor_binds": longest["floor"]["binds"],
        "images_per_s": 1e3 * batch_size / floor_ms,
        "estimated_ms": (
            sum(row["runs"] * row["estimated_ms"] for row in rows) if clocked else None
        ),
    }


def _sum_collectives(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    total: dict[str, dict[str, int]] = {}
    for row in rows:
        for kind, found in row["collectives"].items():
            sums = total.setdefault(kind, {"count": 0, "bytes": 0})
            for name in sums:
                sums[name] += row["runs"] * found[name]
    return total


def _refused_sizes(words: str) -> tuple[int | None, int | None]:
    """Bytes that a refused program needs, at least, and bytes that there are."""
    if said := re.search(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) \w+", words):
        return _bytes(said[1], said[2]), _bytes(said[3], said[4])
    if said := re.search(r"\(size=(\d+)\) would exceed memory \(size=(\d+)\)", words):
        return int(said[1]), int(said[2])  # of one array that alone is too large
    return None, None


def _refused_buffers(figures: Mapping[str, Any]) -> list[dict[str, object]]:
    """The largest allocations that the compiler lists when it refuses."""
    rows = []
    for entry in re.split(r"\n\s+\d+\. Size: ", figures["refused"])[1:]:
        size = re.match(r"([\d.]+)([KMGT]?)", entry)
        shape = re.search(r"Shape: (\S+\])", entry)
        op_name = re.search(r'op_name="([^"]*)"', entry)
        if size and shape:
            rows.append(
                {
                    "bytes": _bytes(size[1], size[2]),
                    "shape": shape[1],
                    "module": module_of(op_name[1]) if op_name else OTHER,
                }
            )
    return rows[:LISTED]


def _bytes(number: str, unit: str) -> int:
    return int(float(number) * _UNITS[unit])
