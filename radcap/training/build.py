"""From the configuration to a model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from radcap.config.schema import ModelConfig
from radcap.model.captioner import ImageCaptioningModel
from radcap.model.weights import load_encoder_weights, load_strictly


def make_model(config: ModelConfig, *, vocab_size: int) -> ImageCaptioningModel:
    """Make the configured captioner on the host, its weights from torch's random generator.

    Args:
        config: sizes and dropout.
        vocab_size: word pieces.
    """
    momentum = config.batch_norm_momentum
    if momentum is None:
        momentum = 0.1 if config.encoder_weights == "none" else 0.01
    model = ImageCaptioningModel(
        vocab_size,
        config.embed_dim,
        config.num_layers,
        config.num_heads,
        dropout=config.dropout,
        batch_norm_momentum=momentum,
    )
    if not config.train_encoder:
        model.encoder.freeze()
    return model


def build_model(
    config: ModelConfig, *, vocab_size: int, weights: Mapping[str, Tensor] | None = None
) -> ImageCaptioningModel:
    """Make the configured captioner on the host, with its weights.

    Args:
        config: sizes, dropout and the start of the encoder.
        vocab_size: word pieces.
        weights: a whole state dict to go on from; without one the encoder starts from
            `config.encoder_weights` and the rest is drawn from torch's random generator.

    Raises:
        WeightsError: the weights are out of reach or do not fit.
    """
    model = make_model(config, vocab_size=vocab_size)
    if weights is not None:
        load_strictly(model, weights, "the checkpoint")
    elif config.encoder_weights != "none":
        load_encoder_weights(model, config.encoder_weights)
    return model


def num_parameters(config: ModelConfig, *, vocab_size: int) -> int:
    """Parameters of the configured captioner, of which none is made."""
    with torch.device("meta"):
        model = make_model(config, vocab_size=vocab_size)
    return sum(parameter.numel() for parameter in model.parameters())
