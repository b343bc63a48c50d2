"""Attention by products of four axes, and the dropout of its weights.

Shape legend: B batch, T tokens, L memory tokens, D width, H heads, d = D / H.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from radcap.forms.dropout import dropout_by_draws, dropout_by_hash
from radcap.forms.dtypes import autocast_dtype
from radcap.model.decoder import KeyValue, MultiHeadAttention


class DrawnDropoutAttention(MultiHeadAttention):
    """Attention with a CPU's dropout: torch's own is no faster given one, and draws slowly."""

    def attention(
        self, query: Tensor, kv: KeyValue, visible: Tensor | None, is_causal: bool
    ) -> Tensor:
        """As the plain one."""
        if not (self.dropout and self.training):
            return super().attention(query, kv, visible, is_causal)
        return _attention(query, kv, visible, is_causal, dropout_by_draws, self.dropout)


class HeadsApartAttention(MultiHeadAttention):
    """Attention whose heads are apart from the start, and stay so.

    torch's own goes through products over a folded axis [B * H, ...]. On a mesh that shards the
    batch, the compiler then gathers the whole batch on every core; an einsum reaches XLA as one
    product with two batch axes.
    """

    def project_parts(self, x: Tensor, parts: slice) -> list[Tensor]:
        """XLA's product writes the heads where attention reads them.

        The parts of one product of all would be copied once more.
        """
        return [self._project(x, part) for part in range(parts.start, parts.stop)]

    def _project(self, x: Tensor, part: int) -> Tensor:
        dtype = autocast_dtype(x)
        weight = _Third.apply(self.in_proj_weight, part, dtype).unflatten(0, (self.num_heads, -1))
        bias = _Third.apply(self.in_proj_bias, part, dtype).unflatten(0, (self.num_heads, 1, -1))
        return torch.einsum("btc,hdc->bhtd", x, weight) + bias

    def attention(
        self, query: Tensor, kv: KeyValue, visible: Tensor | None, is_causal: bool
    ) -> Tensor:
        """As the plain one."""
        dropout = self.dropout if self.training else 0.0
        return _attention(query, kv, visible, is_causal, dropout_by_hash, dropout)

    def join_heads(self, heads: Tensor) -> Tensor:
        """As the plain one, without moving the heads next to each other."""
        weight = self.out_proj.weight.unflatten(1, (self.num_heads, -1))
        return torch.einsum("bhtd,chd->btc", heads, weight) + self.out_proj.bias.to(heads.dtype)


def _attention(
    query: Tensor,
    kv: KeyValue,
    visible: Tensor | None,
    is_causal: bool,
    drop: Callable[[Tensor, float], Tensor],
    dropout: float,
) -> Tensor:
    """`MultiHeadAttention.attention` of four axes, its weights dropped by `drop(weights, p)`."""
    scores = torch.einsum("bhtd,bhld->bhtl", query / math.sqrt(query.shape[-1]), kv.key)
    if is_causal:
        steps = torch.arange(query.shape[2], device=query.device)
        visible = steps[:, None] >= steps[None, :]
    if visible is not None:
        scores = scores.masked_fill(~visible, float("-inf"))
    return torch.einsum("bhtl,bhld->bhtd", drop(scores.softmax(dim=-1), dropout), kv.value)


class _Third(torch.autograd.Function):
    """A third of the rows of a parameter, cast; its gradient is widened last.

    Narrow gradients of parts stay apart until the optimizer reads them. Those of a slice and a
    cast, as torch writes them, are added up in float32 and written to memory first.
    """

    @staticmethod
    def forward(ctx: Any, whole: Tensor, part: int, dtype: torch.dtype) -> Tensor:
        ctx.part, ctx.dtype = part, whole.dtype
        return whole.chunk(3)[part].to(dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        rows = len(gradients[0])
        around = (0, 0) * (gradients[0].ndim - 1) + (ctx.part * rows, (2 - ctx.part) * rows)
        return F.pad(gradients[0], around).to(ctx.dtype), None, None
