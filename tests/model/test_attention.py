"""Cross-attention weights against torch's own modules, which compute them another way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from radcap.model.attention import cross_attention
from radcap.model.captioner import FEEDFORWARD_DIM, ImageCaptioningModel


def weights_of_torch(model: ImageCaptioningModel, memory: Tensor, tokens: Tensor) -> Tensor:
    """The same by nn.TransformerDecoderLayer, whose nn.MultiheadAttention is asked for them."""
    width, num_tokens = memory.shape[2], tokens.shape[1]
    x = model.embedding(tokens) + model.pos_encoder[:, :num_tokens]
    mask = nn.Transformer.generate_square_subsequent_mask(num_tokens, dtype=x.dtype)
    seen: list[Tensor] = []

    def ask(module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        return args, options | {"need_weights": True, "average_attn_weights": False}

    for ours in model.decoder.layers:
        heads = ours.multihead_attn.num_heads
        theirs = nn.TransformerDecoderLayer(width, heads, FEEDFORWARD_DIM, batch_first=True)
        theirs.to(x.dtype).eval().load_state_dict(ours.state_dict())
        theirs.multihead_attn.register_forward_pre_hook(ask, with_kwargs=True)
        theirs.multihead_attn.register_forward_hook(lambda _, __, out: seen.append(out[1]))
        x = theirs(x, memory, tgt_mask=mask, tgt_is_causal=True)
    return torch.stack(seen)


@torch.no_grad()
def test_the_weights_are_those_of_torchs_multi_head_attention(
    golden_model: ImageCaptioningModel, golden_images: Tensor, golden_tokens: Tensor
) -> None:
    memory = golden_model.encode_images(golden_images)
    found = cross_attention(golden_model, memory, golden_tokens)
    assert found.shape == (2, 2, 4, 7, 49)  # layers, images, heads, tokens, image tokens
    expected = weights_of_torch(golden_model, memory, golden_tokens)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    # They differ between layers, images, heads and tokens, so that no axis can be mistaken.
    for axis in range(4):
        assert (found.amax(axis) - found.amin(axis)).max() > 1e-3


@torch.no_grad()
def test_what_comes_later_changes_nothing_before(
    golden_model: ImageCaptioningModel, golden_images: Tensor, golden_tokens: Tensor
) -> None:
    memory = golden_model.encode_images(golden_images)
    whole = cross_attention(golden_model, memory, golden_tokens)
    cut = cross_attention(golden_model, memory, golden_tokens[:, :4])
    torch.testing.assert_close(whole[..., :4, :], cut, rtol=1e-10, atol=1e-12)
