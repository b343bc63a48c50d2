"""PNG bytes -> uint8 pixels on one core, against the model card's transform."""

from __future__ import annotations

import io
import time

import torch
from bench_pairs import RATES_HEADER, take_in_turn
from bench_split import say_load
from PIL import Image
from torch import Tensor
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

from radcap.data.image.decode import decode_image
from radcap.data.phantom.dataset import sample_pictures
from radcap.host.console import say
from radcap.model.encoder import IMAGENET_MEAN, IMAGENET_STD

_PICTURES, _PAIRS = 256, 9
_CARD = Compose(
    [Resize((256, 256)), CenterCrop(224), ToTensor(), Normalize(IMAGENET_MEAN, IMAGENET_STD)]
)


def bench_image(*, pictures: int = _PICTURES, pairs: int = _PAIRS) -> None:
    """Print images a second of processor time, and how far the pictures are apart.

    Args:
        pictures: phantom pictures, which have the form of the real ones.
        pairs: pairs of timings, each over all pictures.
    """
    torch.set_num_threads(1)
    encoded = sample_pictures(pictures)
    size = sum(map(len, encoded)) / pictures
    say(f"{pictures} phantom pictures, PNG RGB 224 x 224, {size / 1e3:.0f} kB: images/s a core")
    timed = take_in_turn(
        lambda: [_card_pixels(data) for data in encoded],
        lambda: [_own_pixels(data) for data in encoded],
        pairs,
        time.process_time,
    )
    say(RATES_HEADER)
    card_rate, own_rate = pictures / timed.median_theirs, pictures / timed.median_ours
    say(f"{card_rate:10,.0f} {own_rate:10,.0f}  {timed.ratio_text()}")
    apart = torch.stack([(_grey_levels(d) - _own_pixels(d)).abs() for d in encoded])
    say(f"the pictures are {apart.mean():.4f} grey levels of 255 apart, {apart.max():.4f} at most")
    say_load()


def _card_pixels(data: bytes) -> Tensor:
    """The card's input: normalised floats [3, 224, 224]."""
    return _CARD(Image.open(io.BytesIO(data)).convert("RGB"))


def _own_pixels(data: bytes) -> Tensor:
    """radcap's: uint8 [3, 224, 224]; scaled and normalised on the device, by the batch."""
    return torch.from_numpy(decode_image(data).copy())


def _grey_levels(data: bytes) -> Tensor:
    """The card's input as levels from 0 to 255."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return 255 * (_card_pixels(data) * std + mean)
