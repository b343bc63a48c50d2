"""The model card's way of doing it, from its description, with torch's own modules.

What `scripts/bench.py` measures radcap against. Eager float32, the card's sizes.

Shape legend: B batch, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_small

VOCAB_SIZE, WIDTH, LAYERS, HEADS, FEEDFORWARD, POSITIONS = 30_522, 512, 5, 8, 1024, 2000
PAD_ID = 0  # of bert-base-uncased, whose word pieces the card has


class CardGraphLayer(nn.Module):
    """Three steps of messages on a ring of tokens, clipped by Hardtanh."""

    def __init__(self) -> None:
        super().__init__()
        self.msg_linear = nn.Linear(WIDTH, WIDTH)
        self.activation = nn.Hardtanh()

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            mean = (x + torch.roll(x, 1, dims=1) + torch.roll(x, -1, dims=1)) / 3
            x = self.activation(x + self.msg_linear(mean))
        return x


class CardModel(nn.Module):
    """The captioner made of `nn.TransformerDecoderLayer` and torchvision's encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = mobilenet_v3_small(weights=None).features
        self.vis_proj = nn.Linear(576, WIDTH)
        self.graph_layer = CardGraphLayer()
        self.embedding = nn.Embedding(VOCAB_SIZE, WIDTH)
        self.pos_encoder = nn.Parameter(torch.randn(1, POSITIONS, WIDTH))
        layer = nn.TransformerDecoderLayer(
            WIDTH, HEADS, dim_feedforward=FEEDFORWARD, batch_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, LAYERS)
        self.fc_out = nn.Linear(WIDTH, VOCAB_SIZE)

    def encode_images(self, images: Tensor) -> Tensor:
        """Normalised floats [B, 3, 224, 224] -> memory [B, 49, D]."""
        features = self.encoder(images)
        return self.graph_layer(self.vis_proj(features.flatten(2).permute(0, 2, 1)))

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Images and int64 tokens [B, T] -> logits [B, T, V]."""
        return self.fc_out(self.decode(self.encode_images(images), tokens))

    def decode(self, memory: Tensor, tokens: Tensor) -> Tensor:
        """Memory and int64 tokens [B, T] -> hidden states [B, T, D]."""
        length = tokens.shape[1]
        x = self.embedding(tokens) + self.pos_encoder[:, :length]
        mask = torch.full((length, length), float("-inf"), device=x.device).triu(1)
        return self.decoder(x, memory, tgt_mask=mask)


def card_step(
    model: CardModel, optimizer: torch.optim.Optimizer, images: Tensor, tokens: Tensor
) -> Tensor:
    """One training step on normalised floats and int64 tokens [B, T + 1]; the loss."""
    optimizer.zero_grad()
    logits = model(images, tokens[:, :-1])
    loss = nn.functional.cross_entropy(
        logits.reshape(-1, VOCAB_SIZE), tokens[:, 1:].reshape(-1), ignore_index=PAD_ID
    )
    loss.backward()
    optimizer.step()
    return loss.detach()
