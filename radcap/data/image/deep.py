"""Greys of more than 8 bits, with all their bits.

Pillow keeps them where a picture has one channel; of 16 bits in several channels it drops the lower
half. Of a TIFF it tells neither that white is zero nor that 32 bits are unsigned, and it lacks some
kinds that its decoders could read.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFile
from PIL import TiffImagePlugin as tiff

_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3  # TIFF's sample formats
# Byte order, photometric interpretation (0: white is zero), sample format, order of bits in a byte,
# bits of each sample, extra samples -> Pillow's mode, and how its decoders call the stored one.
for _order, _end in ((tiff.II, ""), (tiff.MM, "B")):
    for _photometric in (0, 1):
        for _format, _bits, _kind in (
            (_UNSIGNED, 12, ("I;16", "I;12")),
            (_UNSIGNED, 16, (f"I;16{_end}", f"I;16{_end}")),
            (_SIGNED, 16, ("I", f"I;16{_end}S")),
            (_UNSIGNED, 32, ("I", f"I;32{_end}S")),
            (_SIGNED, 32, ("I", f"I;32{_end}S")),
            (_FLOAT, 32, ("F", f"F;32{_end}F")),
        ):
            tiff.OPEN_INFO.setdefault((_order, _photometric, (_format,), 1, (_bits,), ()), _kind)

# libtiff hands over numbers in this machine's byte order, whichever the file has. Pillow heeds that
# for unsigned 16 bits alone.
_FROM_LIBTIFF = re.compile(r"([IF];(?:16|32))B?([SF])")
_COLOURS = re.compile(r"(RGB[AX]?;16)([BLN])")  # the stored form: big, little endian, native
# The other byte order's high byte is this one's low byte.
_LOWER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


class DeepGrey(NamedTuple):
    """A grey picture.

    values: [H, W], numbers of any kind; the larger, the brighter.
    opacity: float32 [H, W], 0 to 1; None where all of it is opaque.
    """

    values: np.ndarray
    opacity: np.ndarray | None = None


def correct_tiles(image: Image.Image) -> None:
    """Let a TIFF that is opened, and not loaded yet, be read in the right byte order."""
    if not isinstance(image, tiff.TiffImageFile):
        return
    for number, tile in enumerate(image.tile):
        found = _FROM_LIBTIFF.fullmatch(_stored_form(tile))
        if tile[0] == "libtiff" and found:
            image.tile[number] = _with_form(tile, f"{found[1]}N{found[2]}")


def read_deep(
    image: Image.Image, open_again: Callable[[], AbstractContextManager[Image.Image]]
) -> DeepGrey | None:
    """Read a picture of 16 bits in each of several channels that is grey; None for any other.

    Args:
        image: opened, and not loaded yet. It is loaded in its usual mode where None comes back
            for a picture that has colours, else unusable but for what its header says.
        open_again: opens the same picture once more.
    """
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    forms = {_stored_form(tile) for tile in tiles}
    is_animation = image.format == "PNG" and getattr(image, "is_animated", False)
    if len(forms) != 1 or is_animation or "transparency" in image.info:
        return None
    [form] = forms
    if form == "LA;16B":
        # Four bytes a pixel like RGBA's, and the mode is that already.
        grey = _load_as(image, "RGBA").view(">u2")
        return DeepGrey(grey[..., 0], _opacity(grey[..., 1]))
    found = _COLOURS.fullmatch(form)
    if found is None:
        return None
    upper = np.asarray(image)
    with open_again() as other:
        lower = _load_as(other, found[1] + _LOWER[found[2]])
    opacity = None if upper.shape[2] == 3 else _opacity(_joined(upper, lower, 3))
    seen = slice(None) if opacity is None else opacity > 0
    for half in (upper, lower):
        if any((half[seen][..., 0] != half[seen][..., other]).any() for other in (1, 2)):
            return None
    return DeepGrey(_joined(upper, lower, 0), opacity)


def grey_values(image: Image.Image) -> DeepGrey:
    """The numbers of a picture of mode I, I;16 or F."""
    values = np.asarray(image)
    if isinstance(image, tiff.TiffImageFile):
        tags = image.tag_v2
        is_unsigned = tags.get(tiff.SAMPLEFORMAT, (_UNSIGNED,)) == (_UNSIGNED,)
        if is_unsigned and values.dtype == np.int32 and tags.get(tiff.BITSPERSAMPLE) == (32,):
            values = values.view(np.uint32)
        if tags.get(tiff.PHOTOMETRIC_INTERPRETATION) == 0:
            values = -values if values.dtype.kind == "f" else ~values
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return DeepGrey(values)
    return DeepGrey(values, (values != transparent).astype(np.float32))


def _load_as(image: Image.Image, form: str) -> np.ndarray:
    """The pixels, read as if they were stored in another form of the same width."""
    assert isinstance(image, ImageFile.ImageFile)
    image.tile = [_with_form(tile, form) for tile in image.tile]
    return np.asarray(image)


def _stored_form(tile: Any) -> str:
    arguments = tile[3]
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _with_form(tile: Any, form: str) -> Any:
    arguments = tile[3]
    return tile._replace(args=(form, *arguments[1:]) if isinstance(arguments, tuple) else form)


def _joined(upper: np.ndarray, lower: np.ndarray, channel: int) -> np.ndarray:
    return upper[..., channel].astype(np.uint16) << 8 | lower[..., channel]


def _opacity(alpha: np.ndarray) -> np.ndarray:
    return alpha.astype(np.float32) / np.float32(65_535)
