"""Inputs the captioner accepts and refuses, its start values, the decoder against torch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from radcap.model.captioner import ImageCaptioningModel
from radcap.model.decoder import DecoderLayer
from radcap.model.graph import GraphPropagationLayer


def tiny_model(**settings: Any) -> ImageCaptioningModel:
    torch.manual_seed(0)
    return ImageCaptioningModel(30, embed_dim=16, num_layers=2, num_heads=4, **settings)


def test_raw_bytes_are_normalised_inside() -> None:
    model = tiny_model().eval()
    raw = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    normalised = (raw / 255.0 - mean) / std
    torch.testing.assert_close(model.encode_images(raw), model.encode_images(normalised))


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(3, 224, 224),
        torch.zeros(1, 1, 224, 224),
        torch.zeros(1, 3, 256, 256),
        torch.zeros(1, 224, 224, 3, dtype=torch.uint8),
        torch.zeros(1, 3, 224, 224, dtype=torch.int32),
    ],
)
def test_other_images_are_refused(images: Tensor) -> None:
    with pytest.raises(ValueError, match="images must be"):
        tiny_model().encode_images(images)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocab_size": 0}, "vocab_size"),
        ({"embed_dim": 30, "num_heads": 4}, "num_heads"),
        ({"num_layers": 0}, "num_layers"),
        ({"num_heads": 0}, "num_heads"),
        ({"dropout": 1.0}, "dropout"),
        ({"batch_norm_momentum": 0.0}, "batch_norm_momentum"),
        ({"graph_steps": -1}, "max_steps"),
    ],
)
def test_sizes_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    small: dict[str, Any] = {"vocab_size": 10, "embed_dim": 16, "num_layers": 1, "num_heads": 2}
    with pytest.raises(ValueError, match=message):
        ImageCaptioningModel(**(small | settings))


def test_more_tokens_than_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="2000 positions"):
        tiny_model().decode(torch.zeros(1, 49, 16), torch.ones(1, 2001, dtype=torch.int64))


def test_batch_norm_momentum_reaches_every_batch_norm() -> None:
    model = tiny_model(batch_norm_momentum=0.1)
    momenta = {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)}
    assert momenta == {0.1}


def test_a_hidden_state_sees_no_later_token() -> None:
    model = tiny_model().eval()
    memory = torch.randn(2, 49, 16)
    tokens = torch.randint(1, 30, (2, 9))
    hidden = model.decode(memory, tokens)
    for cut in (1, 4, 8):
        changed = tokens.clone()
        changed[:, cut:] = torch.randint(1, 30, (2, 9 - cut))
        torch.testing.assert_close(model.decode(memory, changed)[:, :cut], hidden[:, :cut])


def test_a_row_of_padding_gives_no_nan() -> None:
    model = tiny_model()
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    tokens = torch.tensor([[1, 5, 6, 2, 0], [0, 0, 0, 0, 0]])
    hidden = model.decode(model.encode_images(images), tokens[:, :-1])
    loss = model.fc_out.loss_sum(hidden, tokens[:, 1:], 0)
    loss.backward()
    assert hidden.isfinite().all()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def torch_layer_like(layer: DecoderLayer) -> nn.TransformerDecoderLayer:
    twin = nn.TransformerDecoderLayer(16, 4, 64, layer.dropout.p, batch_first=True)
    twin.load_state_dict(layer.state_dict())  # strict: the names are torch's
    return twin.double()


def test_decoder_layer_equals_torchs() -> None:
    torch.manual_seed(0)
    layer = DecoderLayer(16, 4, 64, dropout=0.3).double()
    twin = torch_layer_like(layer).eval()
    layer.eval()
    x = torch.randn(3, 7, 16, dtype=torch.float64)
    memory = torch.randn(3, 11, 16, dtype=torch.float64)
    causal = nn.Transformer.generate_square_subsequent_mask(7, dtype=torch.float64)
    torch.testing.assert_close(layer(x, memory), twin(x, memory, tgt_mask=causal))


def test_dropout_has_torchs_strength() -> None:
    """Same mean and spread over many draws as torch's layer, which drops in five places."""
    torch.manual_seed(0)
    layer = DecoderLayer(16, 4, 64, dropout=0.5).double().train()
    twin = torch_layer_like(layer).train()
    x = torch.randn(1, 5, 16, dtype=torch.float64).expand(4000, 5, 16)
    memory = torch.randn(1, 6, 16, dtype=torch.float64).expand(4000, 6, 16)
    causal = nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
    with torch.no_grad():
        ours, theirs = layer(x, memory), twin(x, memory, tgt_mask=causal)
    torch.testing.assert_close(ours.mean(0), theirs.mean(0), atol=0.08, rtol=0)
    torch.testing.assert_close(ours.std(0), theirs.std(0), atol=0.05, rtol=0)


@pytest.mark.parametrize(("length", "window_size", "max_steps"), [(49, 3, 3), (7, 5, 2), (3, 3, 1)])
def test_graph_layer_equals_a_loop_over_the_ring(
    length: int, window_size: int, max_steps: int
) -> None:
    torch.manual_seed(0)
    layer = GraphPropagationLayer(8, window_size, max_steps).double()
    x = torch.randn(2, length, 8, dtype=torch.float64)
    expected = x
    for _ in range(max_steps):
        following = torch.empty_like(expected)
        for i in range(length):
            window = range(i - window_size // 2, i + window_size // 2 + 1)
            mean = sum(expected[:, j % length] for j in window) / window_size
            following[:, i] = (expected[:, i] + layer.msg_linear(mean)).clamp(-1.0, 1.0)
        expected = following
    torch.testing.assert_close(layer(x), expected)


def test_graph_layer_refuses_bad_windows() -> None:
    with pytest.raises(ValueError, match="odd"):
        GraphPropagationLayer(8, window_size=4)
    with pytest.raises(ValueError, match="shorter"):
        GraphPropagationLayer(8, window_size=5)(torch.zeros(1, 4, 8))
