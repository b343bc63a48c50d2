"""Dropout masks from a hash: as good as independent draws, by every count that could tell."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from radcap.model.dropout import Dropout, dropout, hash_positions

ROWS, COLUMNS, DROPPED = (21, 32), 512, 0.1


def mask(key: int, shape: tuple[int, ...] = (*ROWS, COLUMNS)) -> Tensor:
    """Kept elements as standardised numbers [rows, columns]: mean 0, variance 1 if independent."""
    bound = round((1 - DROPPED) * 2**32) - 2**31
    kept = hash_positions(torch.Size(shape), torch.tensor(key, dtype=torch.int32)) < bound
    deviation = math.sqrt(DROPPED * (1 - DROPPED))
    return (kept.flatten(0, -2).double() - (1 - DROPPED)) / deviation


KEYS = [0, 1, -1, 2**31 - 1, -(2**31), 123_456_789]


@pytest.mark.parametrize("key", KEYS)
def test_every_row_and_column_loses_its_share(key: int) -> None:
    x = mask(key)
    assert abs(x.mean()) * math.sqrt(x.numel()) < 4.5
    # Means of rows scatter as those of independent draws: no row or column is favoured.
    for axis in (0, 1):
        scatter = x.mean(axis).std() * math.sqrt(x.shape[axis])
        assert 0.8 < scatter < 1.2
        assert x.mean(axis).abs().max() * math.sqrt(x.shape[axis]) < 5.5


@pytest.mark.parametrize("key", KEYS)
def test_no_two_rows_and_no_two_columns_are_related(key: int) -> None:
    x = mask(key)
    for rows in (x, x.T):
        products = rows @ rows.T / math.sqrt(rows.shape[1])
        off = products[~torch.eye(len(rows), dtype=torch.bool)]
        assert abs(off.mean()) < 0.05
        assert 0.95 < off.std() < 1.05
        assert off.abs().max() < 8


@pytest.mark.parametrize("key", KEYS)
def test_there_is_no_structure_of_low_rank(key: int) -> None:
    """The greatest singular value is that of noise (Marchenko and Pastur, 1967)."""
    x = mask(key)
    assert torch.linalg.svdvals(x)[0] < 1.05 * (math.sqrt(x.shape[0]) + math.sqrt(x.shape[1]))


def test_keys_give_unrelated_masks() -> None:
    masks = torch.stack([mask(key).flatten() for key in KEYS])
    products = masks @ masks.T / math.sqrt(masks.shape[1])
    assert products[~torch.eye(len(KEYS), dtype=torch.bool)].abs().max() < 4.5


def test_attention_weights_of_all_heads_differ() -> None:
    heads = mask(7, (6, 8, 32, 49)).unflatten(0, (48, 32)).flatten(1)
    products = heads @ heads.T / math.sqrt(heads.shape[1])
    assert products[~torch.eye(48, dtype=torch.bool)].abs().max() < 6


def test_a_vector_has_a_mask_too() -> None:
    assert abs(mask(3, (1, 10_000)).mean()) < 0.05


def test_a_probability_of_0_and_evaluation_change_nothing() -> None:
    x = torch.randn(3, 4)
    assert dropout(x, 0.0) is x
    assert Dropout(0.5).eval()(x) is x
