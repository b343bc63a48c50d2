"""Word vectors whose gradient is as narrow as the arithmetic around them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radcap.forms.dtypes import autocast_dtype
from radcap.forms.spread import Spread


class AutocastEmbedding(nn.Embedding):
    """`nn.Embedding` that gives autocast's dtype.

    The gradient of a table has all of its rows, few of which were looked up. Zeroed, added to,
    summed over devices and read by the optimizer, it is moved five times in a step: in float32,
    as torch's own autocast has it, that is the widest gradient of all.

    The rows of ids are parted into as many groups as there are devices, which keeps the sums below
    on each device.
    """

    spread: Spread

    @staticmethod
    def fits(plain: nn.Module) -> bool:
        """Whether every row of a table is looked up as it stands, and learns."""
        assert isinstance(plain, nn.Embedding)
        options = (plain.padding_idx, plain.max_norm)
        return options == (None, None) and not plain.scale_grad_by_freq and not plain.sparse

    def forward(self, input: Tensor) -> Tensor:
        """Map int ids [B, T] to vectors [B, T, D], in autocast's dtype, else the table's.

        `spread.num_groups` divides B.
        """
        vectors: Tensor = _Embedding.apply(
            input, self.weight, autocast_dtype(self.weight), self.spread.num_groups
        )
        return vectors


class _Embedding(torch.autograd.Function):
    """Shape legend: G groups, R rows of a group, T positions, D width."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, table: Tensor, dtype: torch.dtype, groups: int) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.rows, ctx.dtype, ctx.groups = len(table), table.dtype, groups
        return F.embedding(ids, table).to(dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None, None]:
        (ids,) = ctx.saved_tensors
        gradient = gradients[0]
        if gradient.dtype != ctx.dtype:
            gradient = _sum_repeats(ids, gradient, ctx.groups)
        to_table = torch.ops.aten.embedding_dense_backward(gradient, ids, ctx.rows, -1, False)
        return None, to_table.to(ctx.dtype), None, None


def _sum_repeats(ids: Tensor, gradient: Tensor, groups: int) -> Tensor:
    """Gradients [B, T, D] with those of one word at one position summed, in the first of its rows.

    Captions begin alike: hundreds of rows add to the same few words. Added to a narrow table one
    by one, a sum would stand still as soon as it is some hundred times its next term. A product
    with a matrix of zeros and ones adds them in float32 and rounds once; what is left to the table
    are as many terms as a word has positions.
    """
    grouped = ids.unflatten(0, (groups, -1))  # [G, R, T]
    same = grouped[:, :, None] == grouped[:, None]  # [G, R, R, T]
    row = torch.arange(grouped.shape[1], device=ids.device)
    is_earlier = (row[None, :] < row[:, None])[None, :, :, None]
    is_first = ~(same & is_earlier).any(dim=2)  # [G, R, T]
    takes = (same & is_first[:, :, None]).to(gradient.dtype)
    summed = torch.einsum("grst,gstd->grtd", takes, gradient.unflatten(0, (groups, -1)))
    return summed.flatten(0, 1)
