"""Where the decoder looks: the weights of its cross-attention.

Decoding itself uses fused attention, which keeps no weights. They are computed anew for tokens that
are already written, all positions at once.

Shape legend: B batch, T tokens, L memory tokens, D width, H heads, N layers, d = D / H.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from radcap.model.decoder import DecoderLayer, KeyValue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from radcap.model.captioner import ImageCaptioningModel


def cross_attention(model: ImageCaptioningModel, memory: Tensor, tokens: Tensor) -> Tensor:
    """How much each token's query takes from each memory token, in every head of every layer.

    softmax(q k^T / sqrt(d)), Vaswani et al. 2017 (arXiv:1706.03762), equation 1. The query at t
    reads tokens 0 to t and goes into the choice of token t + 1.

    Args:
        model: in evaluation mode.
        memory: [B, L, D], of `model.encode_images`.
        tokens: int ids [B, T], the start token first; right padding changes no earlier position.

    Returns:
        Floating [N, B, H, T, L], not negative; each [L] sums to 1.
    """
    x = model.embed(tokens)
    weights = []
    for layer in cast("Sequence[DecoderLayer]", model.decoder.layers):
        query, key, value = layer.self_attn.project(x)
        attended = layer.self_attn.attend(query, KeyValue(key, value), is_causal=True)
        asked = layer.multihead_attn.project_query(layer.norm1(x + attended))
        keys = layer.multihead_attn.project_key_value(memory).key
        scores = torch.einsum("bhtd,bhld->bhtl", asked / math.sqrt(asked.shape[-1]), keys)
        weights.append(scores.softmax(dim=-1))
        x = layer(x, memory)
    return torch.stack(weights)
