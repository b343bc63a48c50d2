"""How a global batch is spread, for the forms that add up over all of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


def itself(value: Tensor) -> Tensor:
    """The sum over one process."""
    return value


class Spread(NamedTuple):
    """How a global batch is spread over devices; by default not at all.

    Attributes:
        num_groups: devices that the rows of one tensor are spread over.
        num_processes: processes whose rows are added, each with as many.
        total: adds a tensor over these processes.
    """

    num_groups: int = 1
    num_processes: int = 1
    total: Callable[[Tensor], Tensor] = itself
