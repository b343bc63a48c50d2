"""A post-norm Transformer decoder whose tensors keep the batch axis to themselves.

It computes what `torch.nn.TransformerDecoderLayer` computes with its default settings, under the
same parameter names. That module folds batch and heads into one axis; on a mesh that shards the
batch, the compiler then gathers the whole batch on every core. Here attention works on
[B, H, T, d] from the start.

Shape legend: B batch, T tokens, L memory tokens, S cached positions, D width, H heads, d = D / H.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radcap.autocast import autocast_dtype
from radcap.model.dropout import Dropout
from radcap.model.dropout import dropout as drop

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class KeyValue(NamedTuple):
    """Keys and values of one attention, each [B, H, L, d]."""

    key: Tensor
    value: Tensor


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    visible: Tensor | None = None,
    is_causal: bool = False,
    dropout: float = 0.0,
) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017, arXiv:1706.03762, equation 1).

    Args:
        query: [B, H, T, d].
        key, value: [B, H, L, d].
        visible: bool, broadcast to [B, H, T, L]; True where a query may look.
        is_causal: let query t see keys 0 to t only (T = L); not together with `visible`.
        dropout: probability of dropping an attention weight.

    Returns:
        [B, H, T, d].
    """
    assert visible is None or not is_causal
    # torch's own on a CPU, given a dropout, is no faster than what follows, and its draws are slow.
    if query.device.type != "xla" and not (dropout and query.device.type == "cpu"):
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=visible, dropout_p=dropout, is_causal=is_causal
        )
    # torch's own decomposition goes through bmm over a folded [B * H, ...]; an einsum reaches
    # XLA as one dot with two batch axes.
    scores = torch.einsum("bhtd,bhld->bhtl", query / math.sqrt(query.shape[-1]), key)
    if is_causal:
        steps = torch.arange(query.shape[2], device=query.device)
        visible = steps[:, None] >= steps[None, :]
    if visible is not None:
        scores = scores.masked_fill(~visible, float("-inf"))
    weights = drop(scores.softmax(dim=-1), dropout)
    return torch.einsum("bhtl,bhld->bhtd", weights, value)


class MultiHeadAttention(nn.Module):
    """Multi-head attention with the parameters of `torch.nn.MultiheadAttention`.

    Args:
        embed_dim: width D.
        num_heads: heads H; must divide D.
        dropout: probability of dropping an attention weight in training.
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        if num_heads < 1 or embed_dim % num_heads:
            raise ValueError(f"num_heads ({num_heads}) must divide embed_dim ({embed_dim})")
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        # Query, key and value projections, one below the other.
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the start values of `torch.nn.MultiheadAttention`; `out_proj.weight` draws its own.

        The three projections are drawn as one matrix, as torch does.
        """
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.in_proj_bias)
        nn.init.zeros_(self.out_proj.bias)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, each [B, H, T, d], of tokens [B, T, D]."""
        query, key, value = self._project(x, slice(0, 3))
        return query, key, value

    def project_query(self, x: Tensor) -> Tensor:
        """Query [B, H, T, d] of tokens [B, T, D]."""
        return self._project(x, slice(0, 1))[0]

    def project_key_value(self, memory: Tensor) -> KeyValue:
        """Keys and values, each [B, H, L, d], of memory [B, L, D]."""
        return KeyValue(*self._project(memory, slice(1, 3)))

    def _project(self, x: Tensor, parts: slice) -> list[Tensor]:
        """Some of query, key and value (0, 1, 2), each [B, H, T, d], of x [B, T, D]."""
        if x.device.type == "xla":
            return [self._project_heads(x, part) for part in range(parts.start, parts.stop)]
        rows = slice(parts.start * self.embed_dim, parts.stop * self.embed_dim)
        projected = F.linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows])
        return [
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in projected.chunk(parts.stop - parts.start, dim=-1)
        ]

    def _project_heads(self, x: Tensor, part: int) -> Tensor:
        """Heads from the start: XLA's product writes them where attention reads them.

        The parts of one product of all would be copied once more.
        """
        dtype = autocast_dtype(x)
        weight = _Third.apply(self.in_proj_weight, part, dtype).unflatten(0, (self.num_heads, -1))
        bias = _Third.apply(self.in_proj_bias, part, dtype).unflatten(0, (self.num_heads, 1, -1))
        return torch.einsum("btc,hdc->bhtd", x, weight) + bias

    def attend(
        self, query: Tensor, kv: KeyValue, *, visible: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Attend with projected tensors and project the heads' answers back to [B, T, D]."""
        dropout = self.dropout if self.training else 0.0
        heads = attention(
            query, kv.key, kv.value, visible=visible, is_causal=is_causal, dropout=dropout
        )
        if heads.device.type != "xla":
            return self.out_proj(heads.transpose(1, 2).flatten(2))
        weight = self.out_proj.weight.unflatten(1, (self.num_heads, -1))
        return torch.einsum("bhtd,chd->btc", heads, weight) + self.out_proj.bias.to(heads.dtype)


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


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention to the memory, feed-forward; each with post-norm.

    Args:
        embed_dim: width D.
        num_heads: heads H; must divide D.
        feedforward_dim: width of the ReLU layer.
        dropout: probability, for attention weights, the ReLU's output and all three branches.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, feedforward_dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.self_attn = MultiHeadAttention(embed_dim, num_heads, dropout)
        self.multihead_attn = MultiHeadAttention(embed_dim, num_heads, dropout)
        self.linear1 = nn.Linear(embed_dim, feedforward_dim)
        self.linear2 = nn.Linear(feedforward_dim, embed_dim)
        self.norm1 = nn.LayerNorm(embed_dim)
        self.norm2 = nn.LayerNorm(embed_dim)
        self.norm3 = nn.LayerNorm(embed_dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """Map tokens [B, T, D] and memory [B, L, D] to tokens [B, T, D]; token t sees 0 to t."""
        query, key, value = self.self_attn.project(x)
        attended = self.self_attn.attend(query, KeyValue(key, value), is_causal=True)
        return self._finish(x, attended, self.multihead_attn.project_key_value(memory))

    def step(
        self, x: Tensor, memory_kv: KeyValue, cache: KeyValue, position: Tensor, visible: Tensor
    ) -> Tensor:
        """Map one token a row, [B, 1, D], to [B, 1, D] and write its key and value to `cache`.

        Args:
            x: the tokens at `position`.
            memory_kv: this layer's projected memory, [B, H, L, d].
            cache: this layer's earlier keys and values, [B, H, S, d]; changed in place.
            position: int64 [1].
            visible: bool [1, S], True up to and including `position`.
        """
        query, key, value = self.self_attn.project(x)
        cache.key.index_copy_(2, position, key)
        cache.value.index_copy_(2, position, value)
        attended = self.self_attn.attend(query, cache, visible=visible)
        return self._finish(x, attended, memory_kv)

    def _finish(self, x: Tensor, attended: Tensor, memory_kv: KeyValue) -> Tensor:
        """All that follows self-attention: its residual, cross-attention, feed-forward."""
        x = self.norm1(x + self.dropout(attended))
        query = self.multihead_attn.project_query(x)
        x = self.norm2(x + self.dropout(self.multihead_attn.attend(query, memory_kv)))
        hidden = self.dropout(F.relu(self.linear1(x)))
        return self.norm3(x + self.dropout(self.linear2(hidden)))


class TransformerDecoder(nn.Module):
    """A stack of decoder layers without a final norm.

    Args:
        num_layers: number of layers, at least 1.
        embed_dim, num_heads, feedforward_dim, dropout: see `DecoderLayer`.
    """

    def __init__(
        self, num_layers: int, embed_dim: int, num_heads: int, feedforward_dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(embed_dim, num_heads, feedforward_dim, dropout) for _ in range(num_layers)
        )

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """Map embedded tokens [B, T, D] and memory [B, L, D] to hidden states [B, T, D]."""
        for layer in self.layers:
            x = layer(x, memory)
        return x

    def project_memory(self, memory: Tensor) -> list[KeyValue]:
        """The memory's keys and values for every layer's cross-attention, [B, H, L, d] each."""
        return [layer.multihead_attn.project_key_value(memory) for layer in self._typed_layers()]

    def step(
        self,
        x: Tensor,
        memory_kv: Sequence[KeyValue],
        cache: Sequence[KeyValue],
        position: Tensor,
    ) -> Tensor:
        """Map one embedded token a row, [B, 1, D], to its hidden state [B, 1, D].

        Args:
            x: the tokens at `position`.
            memory_kv: from `project_memory`.
            cache: keys and values [B, H, S, d] of all earlier tokens, one pair a layer; those of
                `position` are written in place.
            position: int64 [1]; a tensor, so that every position runs the same XLA graph.
        """
        num_positions = cache[0].key.shape[2]
        visible = torch.arange(num_positions, device=x.device)[None, :] <= position
        for layer, layer_memory, layer_cache in zip(
            self._typed_layers(), memory_kv, cache, strict=True
        ):
            x = layer.step(x, layer_memory, layer_cache, position, visible)
        return x

    def _typed_layers(self) -> Iterator[DecoderLayer]:
        for layer in self.layers:
            assert isinstance(layer, DecoderLayer)
            yield layer
