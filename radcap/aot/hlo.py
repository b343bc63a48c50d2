"""Reads the optimised HLO that the TPU compiler prints: collectives, buffers, costs, modules."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from dataclasses import dataclass, field

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "collective-permute",
    "all-to-all",
)
OTHER = "step"  # what belongs to no module: loss, clipping, casts between them

_INSTRUCTION = re.compile(r"\s+(ROOT )?%(\S+) = (\(.*?\)|\S+) ([a-z][a-z0-9\-]*)\((.*)")
_ARRAY = re.compile(r"([a-z]+\d*[a-z0-9]*)\[([\d,]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")
_TILE = re.compile(r"^T\(([\d,]+)\)")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
# Names of an array that another instruction made.
_VIEWS = {"bitcast", "get-tuple-element", "tuple", "copy-done", "slice-done", "constant"}


@dataclass(frozen=True)
class Array:
    """An array in memory.

    Attributes:
        text: dtype and shape, `bf16[42,32,512]`.
        size: bytes without padding.
        padded_size: bytes as it lies in memory, in whole tiles.
        in_hbm: False for the core's own fast memory.
    """

    text: str
    size: int
    padded_size: int
    in_hbm: bool


@dataclass(frozen=True)
class Instruction:
    """An instruction of a computation.

    Attributes:
        arrays: what it makes.
        module: the module of the model that it comes from.
        cycles: the compiler's own estimate; 0 where it makes none, as for collectives.
        operands: the rest of the line, from the operands on.
    """

    name: str
    opcode: str
    arrays: list[Array]
    module: str
    cycles: int
    operands: str
    is_root: bool

    @property
    def made(self) -> list[Array]:
        """What it makes, without the operands that an asynchronous start repeats."""
        first = self.opcode in ("copy-start", "slice-start")
        return self.arrays[:1] if first else self.arrays


@dataclass
class HloModule:
    """A compiled module.

    Attributes:
        entry: instructions of the entry computation, in the order they run.
        others: those of all computations it calls.
    """

    entry: list[Instruction] = field(default_factory=list)
    others: list[Instruction] = field(default_factory=list)

    @classmethod
    def parse(cls, text: str) -> HloModule:
        """Read the compiler's text."""
        module = cls()
        into = module.others
        for line in text.splitlines():
            if not line.startswith(" "):
                into = module.entry if line.startswith("ENTRY") else module.others
            elif (match := _INSTRUCTION.match(line)) is not None:
                into.append(_instruction(match))
        return module

    def collectives(self) -> dict[str, dict[str, int]]:
        """Kind -> `count` and `bytes` of the results on one device."""
        found = {kind: {"count": 0, "bytes": 0} for kind in COLLECTIVES}
        for instruction in self.entry + self.others:
            kind = instruction.opcode.removesuffix("-start")
            if kind in found:
                arrays = instruction.arrays
                if instruction.opcode != kind and kind in ("all-gather", "collective-permute"):
                    arrays = arrays[len(arrays) // 2 :]  # after the operands
                found[kind]["count"] += 1
                found[kind]["bytes"] += sum(array.size for array in arrays)
        return found

    def hbm_bytes(self) -> int:
        """Bytes that the entry computation's instructions read from and write to HBM.

        Operands count as a whole, and what lies in the core's fast memory does not.
        """
        made = {i.name: i.made for i in self.entry}
        total = 0
        for instruction in self.entry:
            if instruction.opcode in _VIEWS or instruction.opcode == "parameter":
                continue
            names = re.findall(r"%([^\s,)]+)", instruction.operands.split("), ")[0])
            arrays = [array for name in names for array in made.get(name, [])]
            total += sum(a.size for a in (*instruction.made, *arrays) if a.in_hbm)
        return total

    def largest_buffers(self, count: int) -> list[dict[str, object]]:
        """The arrays in HBM that take most bytes, arguments among them, each with its module.

        Results that take an argument's place are counted once, as the argument.
        """
        results = self._results()
        rows = []
        for instruction in self.entry:
            if instruction.opcode in _VIEWS:
                continue
            for number, array in enumerate(instruction.made):
                if array.in_hbm and (instruction.name, number) not in results:
                    module = instruction.module
                    if instruction.opcode == "parameter":
                        module += " (argument)"
                    rows.append(
                        {
                            "bytes": array.padded_size,
                            "unpadded_bytes": array.size,
                            "shape": array.text,
                            "module": module,
                            "name": instruction.name,
                        }
                    )
        return sorted(rows, key=lambda row: -int(str(row["bytes"])))[:count]

    def _results(self) -> set[tuple[str, int]]:
        """Instruction and number of every array that the program returns."""
        parts: dict[str, tuple[str, int]] = {}
        for instruction in self.entry:
            if instruction.opcode == "get-tuple-element":
                whole = re.match(r"%([^\s,)]+)", instruction.operands)
                index = re.search(r"index=(\d+)", instruction.operands)
                if whole and index:
                    parts[instruction.name] = (whole[1], int(index[1]))
        roots = [i for i in self.entry if i.is_root]
        names = re.findall(r"%([^\s,)]+)", roots[0].operands) if roots else []
        return {parts.get(name, (name, 0)) for name in names}

    def cycles(self) -> int:
        """The compiler's estimate for all of the entry computation, collectives left out."""
        return sum(instruction.cycles for instruction in self.entry)

    def costliest(self, count: int) -> list[dict[str, object]]:
        """The instructions with most cycles, each with its module."""
        ranked = sorted(self.entry, key=lambda instruction: -instruction.cycles)[:count]
        return [
            {
                "cycles": i.cycles,
                "opcode": i.opcode,
                "makes": ", ".join(array.text for array in i.arrays[:3]),
                "module": i.module,
                "name": i.name,
            }
            for i in ranked
            if i.cycles
        ]

    def cycles_by_module(self) -> dict[str, int]:
        """Cycles of the parts of the model, by the first two components of their modules' names,
        the costliest first."""
        total: Counter[str] = Counter()
        for instruction in self.entry:
            total[".".join(instruction.module.split(".")[:2])] += instruction.cycles
        return {name: cycles for name, cycles in total.most_common() if cycles}


def fingerprint(text: str) -> str:
    """A hash of a program's text, HLO or StableHLO, without its name and source lines."""
    lines = [line for line in text.splitlines() if not line.startswith(("HloModule", "module @"))]
    kept = re.sub(r", metadata=\{[^}]*\}", "", "\n".join(lines))
    return hashlib.sha256(kept.encode()).hexdigest()[:16]


def _instruction(match: re.Match[str]) -> Instruction:
    root, name, made, opcode, rest = match.groups()
    op_name = _OP_NAME.search(rest)
    cycles = _CYCLES.search(rest)
    return Instruction(
        name=name,
        opcode=opcode,
        arrays=[_array(found) for found in _ARRAY.finditer(made)],
        module=module_of(op_name[1]) if op_name else OTHER,
        cycles=int(cycles[1]) if cycles else 0,
        operands=rest,
        is_root=bool(root),
    )


def module_of(op_name: str) -> str:
    """The module that an operation comes from.

    `loss.1/decoder.6/decoder.layers.0.1/aten__mm` -> `decoder.layers.0`.

    torch_xla joins the open scopes, each with a running number, and the operation. Operations that
    are made of others open scopes too.
    """
    scopes = [part for part in op_name.split("/")[:-1] if not part.startswith(("aten__", "xla__"))]
    return re.sub(r"\.\d+$", "", scopes[-1]) if scopes else OTHER


def _array(match: re.Match[str]) -> Array:
    dtype, dimensions, minor_to_major, notes = match.groups()
    shape = [int(size) for size in dimensions.split(",")] if dimensions else []
    tile = _TILE.match(notes or "")
    padded = list(shape)
    if tile and minor_to_major:
        # The last number of a tile belongs to the axis that changes fastest in memory.
        order = [int(axis) for axis in minor_to_major.split(",")]
        for axis, side in zip(order, reversed([int(s) for s in tile[1].split(",")]), strict=False):
            padded[axis] = math.ceil(shape[axis] / side) * side
    bits = _bits(dtype)
    return Array(
        text=f"{dtype}[{dimensions}]",
        size=math.prod(shape) * bits // 8,
        padded_size=math.prod(padded) * bits // 8,
        in_hbm=not re.search(r"S\([1-9]\d*\)", notes or ""),
    )


def _bits(dtype: str) -> int:
    if dtype == "pred":
        return 8
    digits = re.search(r"\d+", dtype)
    return int(digits[0]) if digits else 0  # token, opaque
