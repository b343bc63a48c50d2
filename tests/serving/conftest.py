"""A small captioner with the real vocabulary, as every kind of source that holds weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from radcap.model.captioner import ImageCaptioningModel

SIZES = {"vocab_size": 30_522, "embed_dim": 16, "num_layers": 2}
HEADS = 4


@pytest.fixture(scope="session")
def small_model() -> ImageCaptioningModel:
    torch.manual_seed(0)
    model = ImageCaptioningModel(**SIZES, num_heads=HEADS)
    with torch.no_grad():  # sharper attention, so that another number of heads is another caption
        for layer in model.decoder.layers:
            layer.self_attn.in_proj_weight *= 4
            layer.multihead_attn.in_proj_weight *= 4
    return model.eval()


@pytest.fixture(scope="session")
def weights_file(
    small_model: ImageCaptioningModel, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A bare pytorch_model.bin."""
    path = tmp_path_factory.mktemp("weights") / "pytorch_model.bin"
    torch.save(small_model.state_dict(), path)
    return path
