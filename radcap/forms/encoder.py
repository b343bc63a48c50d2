"""The image encoder as a CPU likes it, and as a chip does that computes in wide lanes.

A TPU keeps the rows of a batch in 128 lanes while images have few channels. 42 images a core fill
a third of them, and every byte of the largest activations costs three. Cut into an upper and a
lower tile, they are 84 smaller images, and cost half. A tile begins as many rows higher as the
strided convolutions below see beyond it, so nothing has to be exchanged between tiles, and the
result is that of the whole images: rows computed twice count once in the batch statistics, and
rows beyond the image are zeros, as the convolutions' own padding is.

Shape legend: B images, G groups of images, S tiles of an image (2), N = S B, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radcap.forms.spread import Spread
from radcap.model.encoder import ImageEncoder

_NUM_BLOCKS = 3  # of MobileNetV3-Small's features: down to 28 x 28, where channels fill the lanes
# Rows above a tile, from the image down to the last convolution that looks beyond it: a 3 x 3
# convolution of stride 2 with h rows above its output's tile needs 2 h + 1 above its input's.
_IMAGE_HALO, _FIRST_HALO, _SECOND_HALO = 7, 3, 1
_TILES = 2


class Float32Encoder(ImageEncoder):
    """`ImageEncoder` outside of autocast: a CPU's depthwise convolutions in bf16 are slow."""

    def compute(self, images: Tensor) -> Tensor:
        """As the plain one: in bf16 they take two to five times as long."""
        with torch.autocast(images.device.type, enabled=False):
            return super().compute(images)


class TiledEncoder(ImageEncoder):
    """`ImageEncoder` whose first blocks see halves of images, in training.

    Its batch norms are `GlobalBatchNorm`.
    """

    spread: Spread

    def compute(self, images: Tensor) -> Tensor:
        """As the plain one; `spread.num_groups` divides B."""
        if not self.training:
            return super().compute(images)
        x = _blocks_on_tiles(self.features, images, self.normalise, self.spread.num_groups)
        return self.features[_NUM_BLOCKS:](x)


def _blocks_on_tiles(
    features: nn.Sequential, images: Tensor, normalise: Callable[[Tensor], Tensor], groups: int
) -> Tensor:
    """What the first `_NUM_BLOCKS` blocks make of images, in training.

    Args:
        features: of torchvision's MobileNetV3-Small; its batch norms take the number of rows at
            the top of every tile that their statistics leave out.
        images: [B, 3, 224, 224].
        normalise: makes of images [..., 3, H, W] what the first block expects.
        groups: G, divides B: the images of a group keep together. With as many as there are
            devices, all tiles of a device's images are its own.

    Returns:
        [B, 24, 28, 28].
    """
    first, second, third = (_layers(features[0]), _layers(features[1]), _layers(features[2]))
    tiles = _inside(normalise(_cut(images, groups)), _IMAGE_HALO, groups)
    x = _inside(_block(first, tiles, _FIRST_HALO), _FIRST_HALO, groups)
    depthwise, squeeze, project = second
    x = _block(depthwise, x, _SECOND_HALO)
    x = _block(project, x * _squeeze(squeeze, x, _SECOND_HALO, groups), _SECOND_HALO)
    expand, depthwise, project = third
    x = _inside(_block(expand, x, _SECOND_HALO), _SECOND_HALO, groups)
    x = _conv(project[0], _block(depthwise, x, 0)).unflatten(0, (groups, _TILES, -1))
    # The last norm comes after the tiles are joined: its gradient is float32, twice the bytes.
    return project[1](torch.cat(x.unbind(1), dim=-2).flatten(0, 1))


def _cut(images: Tensor, groups: int) -> Tensor:
    """[B, C, H, W] -> [N, C, halo + H / S, W]: of every group its upper, then its lower tiles."""
    images = images.unflatten(0, (groups, -1))
    height = images.shape[-2] // _TILES
    upper = F.pad(images[..., :height, :], (0, 0, _IMAGE_HALO, 0))
    lower = images[..., height - _IMAGE_HALO :, :]
    # A choice, not a concatenation: XLA would carry that out on normalised images, in float32.
    is_lower = torch.arange(_TILES, device=images.device)[:, None, None, None, None] > 0
    return torch.where(is_lower, lower[:, None], upper[:, None]).flatten(0, 2)


def _inside(tiles: Tensor, halo: int, groups: int) -> Tensor:
    """Zero the rows of upper tiles [N, C, H, W] that lie above their image."""
    num_tiles, device = len(tiles), tiles.device
    counted = torch.arange(tiles.shape[2], device=device) >= halo
    number = torch.arange(num_tiles, device=device) // (num_tiles // (groups * _TILES))
    inside = (number % _TILES > 0)[:, None] | counted
    return torch.where(inside[:, None, :, None], tiles, 0.0)


def _layers(block: nn.Module) -> Any:
    """What a block of torchvision's runs one after the other."""
    return getattr(block, "block", block)


def _block(block: Iterable[nn.Module], tiles: Tensor, halo: int) -> Tensor:
    """Convolution, batch norm and activation of tiles [N, C, H, W].

    Args:
        halo: rows above the tiles of the result.
    """
    conv, norm, *activation = block
    x = norm(_conv(conv, tiles), halo)
    return activation[0](x) if activation else x


def _conv(conv: nn.Module, tiles: Tensor) -> Tensor:
    """Convolution with padding at the sides alone."""
    assert isinstance(conv, nn.Conv2d) and conv.bias is None
    padding = (0, int(conv.padding[1]))
    return F.conv2d(tiles, conv.weight, None, conv.stride, padding, 1, conv.groups)


def _squeeze(layer: Any, tiles: Tensor, halo: int, groups: int) -> Tensor:
    """The squeeze-and-excitation scale [N, C, 1, 1]: of an image, the same for its tiles."""
    counted = tiles[:, :, halo:].unflatten(0, (groups, _TILES, -1))
    x = counted.mean((1, 4, 5)).flatten(0, 1)[:, :, None, None]
    x = layer.scale_activation(layer.fc2(layer.activation(layer.fc1(x))))
    x = x.unflatten(0, (groups, 1, -1)).expand(-1, _TILES, -1, -1, -1, -1)
    return x.flatten(0, 2)
