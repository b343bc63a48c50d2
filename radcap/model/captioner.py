"""The captioner: image encoder, ring of image tokens, Transformer decoder.

Shape legend: B batch, T tokens, L memory tokens (49), D width, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from radcap.config.schema import MAX_POSITIONS
from radcap.model.beam import beam_search
from radcap.model.decoder import TransformerDecoder
from radcap.model.encoder import NUM_CHANNELS, ImageEncoder
from radcap.model.generate import Hypotheses, greedy_search
from radcap.model.graph import GraphPropagationLayer
from radcap.model.loss import OutputLayer

if TYPE_CHECKING:
    from collections.abc import Callable

FEEDFORWARD_DIM = 1024


class ImageCaptioningModel(nn.Module):
    """Writes a caption for an image, one word piece after the other.

    MobileNetV3-Small gives 49 image tokens, which exchange messages on a ring and become the
    memory of a post-norm Transformer decoder. The constructor draws random weights and downloads
    nothing; see `radcap.model.weights` for trained ones.

    Args:
        vocab_size: word pieces V.
        embed_dim: width D.
        num_layers: decoder layers.
        num_heads: attention heads; must divide D.
        dropout: probability, in the decoder alone.
        batch_norm_momentum: see `ImageEncoder`.
        graph_steps: steps of message passing among the image tokens.

    Raises:
        ValueError: a size or probability out of range.
    """

    def __init__(
        self,
        vocab_size: int,
        embed_dim: int = 512,
        num_layers: int = 5,
        num_heads: int = 8,
        *,
        dropout: float = 0.1,
        batch_norm_momentum: float = 0.01,
        graph_steps: int = 3,
    ) -> None:
        super().__init__()
        for name, size in (
            ("vocab_size", vocab_size),
            ("embed_dim", embed_dim),
            ("num_layers", num_layers),
            ("num_heads", num_heads),
        ):
            if size < 1:
                raise ValueError(f"{name} must be at least 1, not {size}")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), not {dropout}")
        self.vocab_size = vocab_size
        self.encoder = ImageEncoder(batch_norm_momentum)
        self.vis_proj = nn.Linear(NUM_CHANNELS, embed_dim)
        self.graph_layer = GraphPropagationLayer(embed_dim, max_steps=graph_steps)
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.pos_encoder = nn.Parameter(torch.empty(1, MAX_POSITIONS, embed_dim))
        self.decoder = TransformerDecoder(
            num_layers, embed_dim, num_heads, FEEDFORWARD_DIM, dropout
        )
        self.fc_out = OutputLayer(embed_dim, vocab_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the position vectors; every submodule draws its own parameters."""
        nn.init.normal_(self.pos_encoder)

    def image_parameters(self) -> list[nn.Parameter]:
        """The parameters between the image and the memory: encoder, projection, graph layer."""
        modules = (self.encoder, self.vis_proj, self.graph_layer)
        return [parameter for module in modules for parameter in module.parameters()]

    def encode_images(self, images: Tensor) -> Tensor:
        """Map images [B, 3, 224, 224] to the decoder's memory [B, 49, D], row-major.

        Args:
            images: raw uint8 RGB, or floats normalised with ImageNet's mean and standard deviation.
        """
        features = self.encoder(images)
        return self.graph_layer(self.vis_proj(features.flatten(2).transpose(1, 2)))

    def decode(self, memory: Tensor, tokens: Tensor) -> Tensor:
        """Map memory [B, L, D] and int token ids [B, T] to hidden states [B, T, D].

        The hidden state at t depends on tokens 0 to t alone, so ids padded on the right need no
        mask of their own. ValueError when T exceeds the 2,000 learned positions.
        """
        return self.decoder(self.embed(tokens), memory)

    def embed(self, tokens: Tensor) -> Tensor:
        """Map int token ids [B, T] to their vectors plus those of their positions, [B, T, D].

        ValueError when T exceeds the 2,000 learned positions.
        """
        num_tokens = tokens.shape[1]
        if num_tokens > MAX_POSITIONS:
            raise ValueError(f"{num_tokens} tokens exceed the model's {MAX_POSITIONS} positions")
        words = self.embedding(tokens)
        return words + self.pos_encoder[:, :num_tokens].to(words.dtype)

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Map images and int token ids [B, T] to logits [B, T, V] of each following token.

        Training takes the loss of hidden states: see `OutputLayer.loss_sum`.
        """
        return self.fc_out(self.decode(self.encode_images(images), tokens))

    def generate(
        self,
        images: Tensor,
        max_len: int = 80,
        tokenizer: Any = None,
        *,
        num_beams: int = 1,
        start_id: int = 101,
        end_id: int = 102,
        pad_id: int = 0,
        step_boundary: Callable[[], None] | None = None,
        read_every: int = 1,
    ) -> Tensor:
        """Caption images [B, 3, 224, 224].

        Args:
            images: as for `encode_images`.
            max_len: new tokens at most; the start token is not counted.
            tokenizer: takes the place of the three ids with its `cls_token_id`, `sep_token_id`
                and `pad_token_id`.
            num_beams: 1 takes the likeliest token at every step; more keep so many of the
                likeliest beginnings and return the likeliest whole caption among them.
            start_id, end_id, pad_id: [CLS], [SEP] and [PAD] of bert-base-uncased.
            step_boundary: called after every token: for a device that records operations, the
                function that runs what was recorded so far (else the whole caption becomes one
                large graph).
            read_every: tokens between looks at whether all captions have ended. An accelerator
                has to be waited for at each, and loses less by a few tokens too many.

        Returns:
            int64 ids on the CPU, as wide as the longest row, at most [B, 1 + max_len]. A row
            begins with the start token; the end token is not in it; [PAD] follows.

        Raises:
            ValueError: `max_len` or `num_beams` out of range, or an id outside the vocabulary.
        """
        if tokenizer is not None:
            start_id = tokenizer.cls_token_id
            end_id = tokenizer.sep_token_id
            pad_id = tokenizer.pad_token_id
        found = self.search(
            images,
            max_len,
            num_beams=num_beams,
            start_id=start_id,
            end_id=end_id,
            pad_id=pad_id,
            step_boundary=step_boundary,
            read_every=read_every,
        )
        best = found.ids[:, 0]
        return best[:, : 1 + int(found.lengths[:, 0].max())] if len(best) else best

    def search(
        self,
        images: Tensor,
        max_len: int = 80,
        *,
        num_beams: int = 1,
        start_id: int = 101,
        end_id: int = 102,
        pad_id: int = 0,
        step_boundary: Callable[[], None] | None = None,
        read_every: int = 1,
    ) -> Hypotheses:
        """As `generate`, with every caption kept and their log-probabilities."""
        options: dict[str, Any] = {
            "start_id": start_id,
            "end_id": end_id,
            "pad_id": pad_id,
            "step_boundary": step_boundary,
            "read_every": read_every,
        }
        if num_beams == 1:
            return greedy_search(self, images, max_len, **options)
        return beam_search(self, images, max_len, num_beams=num_beams, **options)
