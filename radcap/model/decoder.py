"""A post-norm Transformer decoder, and its steps of one token with a cache.

It computes what `torch.nn.TransformerDecoderLayer` computes with its default settings, under the
same parameter names, with attention on [B, H, T, d]: batch and heads keep an axis each.

Shape legend: B batch, T tokens, L memory tokens, S cached positions, D width, H heads, d = D / H.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class KeyValue(NamedTuple):
    """Keys and values of one attention, each [B, H, L, d]."""

    key: Tensor
    value: Tensor


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
        query, key, value = self.project_parts(x, slice(0, 3))
        return query, key, value

    def project_query(self, x: Tensor) -> Tensor:
        """Query [B, H, T, d] of tokens [B, T, D]."""
        return self.project_parts(x, slice(0, 1))[0]

    def project_key_value(self, memory: Tensor) -> KeyValue:
        """Keys and values, each [B, H, L, d], of memory [B, L, D]."""
        return KeyValue(*self.project_parts(memory, slice(1, 3)))

    def project_parts(self, x: Tensor, parts: slice) -> list[Tensor]:
        """Some of query, key and value (0, 1, 2), each [B, H, T, d], of x [B, T, D]."""
        rows = slice(parts.start * self.embed_dim, parts.stop * self.embed_dim)
        projected = F.linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows])
        return [
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in projected.chunk(parts.stop - parts.start, dim=-1)
        ]

    def attend(
        self, query: Tensor, kv: KeyValue, *, visible: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Attend with projected tensors and project the heads' answers back to [B, T, D].

        Args:
            query: [B, H, T, d].
            kv: keys and values [B, H, L, d].
            visible: bool, broadcast to [B, H, T, L]; True where a query may look.
            is_causal: let query t see keys 0 to t only (T = L); not together with `visible`.
        """
        assert visible is None or not is_causal
        return self.join_heads(self.attention(query, kv, visible, is_causal))

    def attention(
        self, query: Tensor, kv: KeyValue, visible: Tensor | None, is_causal: bool
    ) -> Tensor:
        """Scaled dot-product attention (Vaswani et al. 2017, arXiv:1706.03762, equation 1).

        Arguments as for `attend`; [B, H, T, d].
        """
        dropout = self.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(
            query, kv.key, kv.value, attn_mask=visible, dropout_p=dropout, is_causal=is_causal
        )

    def join_heads(self, heads: Tensor) -> Tensor:
        """Project the heads' answers [B, H, T, d] to [B, T, D]."""
        return self.out_proj(heads.transpose(1, 2).flatten(2))


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
        self.dropout = nn.Dropout(dropout)

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
            position: int64 [1]; a tensor, so that every position runs the same compiled graph.
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
