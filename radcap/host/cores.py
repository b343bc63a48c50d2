"""How many cores this process may use: those of the machine, or fewer."""

from __future__ import annotations

import math
import os
from pathlib import Path

from radcap.host.cgroups import cpu_quota

_ROOT = Path("/")


def num_cores(root: Path = _ROOT) -> int:
    """The cores that it may run on, or as many as its share of their time is worth, rounded up.

    A container of one core's time on a machine of 64 sees all 64; as many threads would be stopped
    together for most of each tenth of a second.
    """
    quota = cpu_quota(root)
    there = len(os.sched_getaffinity(0))
    return there if quota is None else max(1, min(there, math.ceil(quota)))
