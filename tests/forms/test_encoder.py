"""The encoder on tiles computes what torchvision's blocks compute on whole images."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from radcap.forms.encoder import TiledEncoder
from radcap.forms.lists import XLA, convert
from radcap.forms.spread import Spread
from radcap.model.encoder import ImageEncoder


def encoders(groups: int) -> tuple[ImageEncoder, ImageEncoder]:
    """One that sees whole images, and one that sees tiles, with the same weights, in float64."""
    torch.manual_seed(0)
    whole = ImageEncoder(batch_norm_momentum=0.3).double()
    for parameter in whole.parameters():
        if parameter.ndim == 1:  # norms that do something
            torch.nn.init.normal_(parameter, 0.5, 0.5)
    tiles = copy.deepcopy(whole)
    convert(tiles, XLA, Spread(num_groups=groups))
    assert isinstance(tiles, TiledEncoder)
    return whole, tiles


def run(encoder: ImageEncoder, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Feature maps and the gradients of a sum that weighs every element differently."""
    features = encoder(images)
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    (features * weights).sum().backward()
    return features.detach(), {
        n: p.grad for n, p in encoder.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize(
    ("groups", "dtype"), [(1, torch.uint8), (2, torch.uint8), (4, torch.float)]
)
def test_tiles_give_features_gradients_and_statistics_of_whole_images(
    groups: int, dtype: torch.dtype
) -> None:
    whole, tiles = encoders(groups)
    generator = torch.Generator().manual_seed(2)
    if dtype == torch.uint8:
        images = torch.randint(0, 256, (4, 3, 224, 224), generator=generator, dtype=torch.uint8)
    else:
        images = torch.randn(4, 3, 224, 224, generator=generator).double()
    # Nothing symmetric: a tile too many or a row too low would show.
    images[:, :, :112] //= 2
    expected, wanted = run(whole, images)
    found, gradients = run(tiles, images)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert gradients.keys() == wanted.keys()
    for name, gradient in wanted.items():
        scale = gradient.abs().max()
        assert (gradients[name] - gradient).abs().max() <= 1e-10 * max(scale, 1.0), name
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(tiles.state_dict()[name], value, rtol=1e-10, atol=1e-10)


def test_evaluation_sees_whole_images() -> None:
    """Its norms need no batch, and captions are made one image at a time."""
    whole, tiles = encoders(8)
    image = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    found, expected = tiles.eval()(image), whole.eval()(image)
    torch.testing.assert_close(found, expected)
