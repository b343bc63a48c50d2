"""The image encoder: the convolutional part of torchvision's MobileNetV3-Small.

Shape legend: B batch.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_small

IMAGE_SIZE = 224
NUM_CHANNELS = 576  # of the last feature map
IMAGE_GRID = 7  # squares a side: the encoder's stride is 32
NUM_IMAGE_TOKENS = IMAGE_GRID**2

# Of the images torchvision's ImageNet weights were trained on, RGB in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageEncoder(nn.Module):
    """MobileNetV3-Small up to its last feature map, with random weights.

    Searching for MobileNetV3, Howard et al. 2019, arXiv:1905.02244. Its state dict is that of
    `torchvision.models.mobilenet_v3_small` without the `classifier.*` entries.

    Args:
        batch_norm_momentum: weight of the newest batch in the running statistics. torchvision's
            0.01 suits trained weights; from random ones it lags for hundreds of steps (use 0.1).

    Raises:
        ValueError: a momentum outside (0, 1].
    """

    pixel_scale: Tensor
    pixel_shift: Tensor

    def __init__(self, batch_norm_momentum: float = 0.01) -> None:
        super().__init__()
        self.frozen = False
        if not 0.0 < batch_norm_momentum <= 1.0:
            raise ValueError(f"batch_norm_momentum must be in (0, 1], not {batch_norm_momentum}")
        norm_layer = partial(nn.BatchNorm2d, eps=0.001, momentum=batch_norm_momentum)
        self.features = mobilenet_v3_small(weights=None, norm_layer=norm_layer).features
        mean = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
        std = torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
        # Buffers, so that they move with the model; not persistent, so that the state dict stays
        # the published one.
        self.register_buffer("pixel_scale", 1.0 / (255.0 * std), persistent=False)
        self.register_buffer("pixel_shift", -mean / std, persistent=False)

    def reset_parameters(self) -> None:
        """Draw the convolutions as torchvision does; batch norms reset themselves."""
        for module in self.features.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def freeze(self) -> None:
        """Keep the weights and the running statistics as they are, in training too."""
        self.frozen = True
        self.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> ImageEncoder:
        """As of any module; a frozen encoder stays in evaluation mode."""
        super().train(mode and not self.frozen)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Map images [B, 3, 224, 224] to feature maps [B, 576, 7, 7].

        Args:
            images: uint8 RGB, scaled and normalised here with ImageNet's mean and standard
                deviation, or floats that already are.

        Raises:
            ValueError: another shape or dtype.
        """
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, IMAGE_SIZE, IMAGE_SIZE):
            raise ValueError(
                f"images must be [B, 3, {IMAGE_SIZE}, {IMAGE_SIZE}], not {list(images.shape)}"
            )
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise ValueError(f"images must be uint8 or normalised floats, not {images.dtype}")
        return self.compute(images)

    def compute(self, images: Tensor) -> Tensor:
        """`forward` of images that are known to be right."""
        return self.features(self.normalise(images))

    def normalise(self, images: Tensor) -> Tensor:
        """Floats of uint8 [..., 3, H, W], as the network expects them; floats as they are."""
        if images.dtype != torch.uint8:
            return images
        return images.to(self.pixel_scale.dtype) * self.pixel_scale + self.pixel_shift
