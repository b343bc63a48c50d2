"""Word vectors whose gradient is as narrow as the arithmetic around them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radcap.autocast import autocast_dtype


class NarrowEmbedding(nn.Embedding):
    """`nn.Embedding` that gives autocast's dtype.

    The gradient of a table has all of its rows, few of which were looked up. Zeroed, added to,
    summed over devices and read by the optimizer, it is moved five times in a step: in float32,
    as torch's own autocast has it, that is the widest gradient of all.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map int ids [...] to vectors [..., D], in autocast's dtype, else the table's."""
        vectors: Tensor = _Embedding.apply(input, self.weight, autocast_dtype(self.weight))
        return vectors


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, table: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.rows, ctx.dtype = len(table), table.dtype
        return F.embedding(ids, table).to(dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None]:
        (ids,) = ctx.saved_tensors
        to_table = torch.ops.aten.embedding_dense_backward(gradients[0], ids, ctx.rows, -1, False)
        return None, to_table.to(ctx.dtype), None


def narrow_embeddings(model: nn.Module) -> None:
    """Make every embedding of a model a `NarrowEmbedding`, in place."""
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            assert module.padding_idx is None and module.max_norm is None
            module.__class__ = NarrowEmbedding
