"""TPU chips and slices: published figures, and the names people use for them.

Sources: "Cloud TPU documentation", https://cloud.google.com/tpu/docs/v3 (v4, v5e, v5p, v6e
likewise), read in November 2026; Jouppi et al., "A Domain-Specific Supercomputer for Training Deep
Neural Networks", Communications of the ACM 63(7), 2020, for v2 and for the links and clocks of v2
and v3; Jouppi et al., "TPU v4", ISCA 2023, arXiv:2304.01433, for the clock of v4.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from radcap.config.nearest import nearest
from radcap.errors import ConfigError

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One chip.

    Attributes:
        flops: multiplications and additions a second in bf16, the peak. (Dots of float32 are
            carried out in bf16 too, unless a program asks for more.)
        hbm_bytes: memory.
        hbm_bytes_per_s: its bandwidth.
        link_bytes_per_s: what all links to other chips send together, in one direction; where only
            a pod's bandwidth for all-reduce is published, that of one chip.
        devices: what a program sees of it: two cores, or one (v4 and v5p join their two cores).
        clock_hz: None where it is not published.
        cores: tensor cores, by which a TPU's time is counted.
    """

    flops: float
    hbm_bytes: int
    hbm_bytes_per_s: float
    link_bytes_per_s: float
    devices: int
    clock_hz: float | None
    cores: int


CHIPS = {
    # Four links of 496 and 656 Gbit/s a direction.
    "v2": Chip(46e12, 16 * GIB, 700e9, 4 * 496e9 / 8, 2, 700e6, 2),
    "v3": Chip(123e12, 32 * GIB, 900e9, 4 * 656e9 / 8, 2, 940e6, 2),
    # 1.1 PB/s of all-reduce over a pod of 4,096 chips.
    "v4": Chip(275e12, 32 * GIB, 1200e9, 1.1e15 / 4096, 1, 1050e6, 2),
    # 51.2 TB/s over 256 chips.
    "v5e": Chip(197e12, 16 * GIB, 819e9, 51.2e12 / 256, 1, None, 1),
    # 4,800 Gbit/s between chips.
    "v5p": Chip(459e12, 95 * GIB, 2765e9, 4800e9 / 8, 1, None, 2),
    # 102.4 TB/s over 256 chips.
    "v6e": Chip(918e12, 32 * GIB, 1638e9, 102.4e12 / 256, 1, None, 1),
}

SLICES = {
    "v2-8": "v2:2x2",
    "v3-8": "v3:2x2",
    "v3-32": "v3:4x4",
    "v4-8": "v4:2x2x1",
    "v5e-4": "v5e:2x2",
    "v5e-8": "v5e:2x4",
    "v5p-8": "v5p:2x2x1",
    "v6e-4": "v6e:2x2",
    "v6e-8": "v6e:2x4",
}


@dataclass(frozen=True)
class Topology:
    """A slice of a TPU pod.

    Attributes:
        name: as given.
        raw: as libtpu names it, `v3:2x2`.
        chip: the figures of one chip.
        num_chips: chips.
        num_devices: devices that a program is spread over.
    """

    name: str
    raw: str
    chip: Chip
    num_chips: int
    num_devices: int

    @property
    def hbm_bytes(self) -> int:
        """Memory of one device."""
        return self.chip.hbm_bytes // self.chip.devices


def find_topology(name: str) -> Topology:
    """Look up a slice by its name (`v3-8`) or its chips (`v3:2x2`).

    Raises:
        ConfigError: there is none of that name.
    """
    raw = SLICES.get(name, name)
    match = re.fullmatch(r"(v\w+):(\d+(?:x\d+){1,2})", raw)
    if match is None or match[1] not in CHIPS:
        near = nearest(name, [*SLICES, *SLICES.values()])
        hint = f" (nearest: {near})" if near else ""
        raise ConfigError(
            f"preflight.topology={name}: there are {', '.join(SLICES)}, or chips as in v3:4x8{hint}"
        )
    chip = CHIPS[match[1]]
    num_chips = math.prod(int(side) for side in match[2].split("x"))
    if num_chips == 0:
        raise ConfigError(f"preflight.topology={name}: a slice without chips")
    return Topology(name, raw, chip, num_chips, num_chips * chip.devices)
