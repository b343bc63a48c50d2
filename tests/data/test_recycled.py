from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from radcap.data.recycled import Recycled


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_is_used_again_once_the_array_has_gone() -> None:
    recycled = Recycled((4, 3, 8, 8))
    first = recycled.take()
    assert first.shape == (4, 3, 8, 8) and first.dtype == np.uint8 and first.flags.writeable
    was = address(first)
    second = recycled.take()
    assert address(second) != was
    del first
    assert address(recycled.take()) == was


@pytest.mark.parametrize(
    "share",
    [
        lambda array: array[1:],
        lambda array: array.reshape(-1)[::2],
        lambda array: torch.from_numpy(array),
        lambda array: torch.from_numpy(array)[1].view(-1),
        lambda array: torch.from_numpy(array)[2].numpy(),
        lambda array: memoryview(array),
    ],
)
def test_memory_that_is_shared_stays(share: Callable[[np.ndarray], object]) -> None:
    recycled = Recycled((4, 3, 8, 8))
    array = recycled.take()
    was = address(array)
    shared = share(array)
    del array
    other = recycled.take()
    assert address(other) != was
    del shared
    assert address(recycled.take()) == was
