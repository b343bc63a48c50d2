"""Any image file -> uint8 [3, 224, 224], by the model card's transform.

The card resizes to 256 x 256 (bilinear) and crops the middle 224 x 224. Both together are one
resize of the box from 16/256 to 240/256 of each side: Pillow lets the filter look outside of the
box, so the result is the same (difference 0) for every size of image.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageChops, UnidentifiedImageError

IMAGE_SIZE = 224
MAX_PIXELS = 50_000_000

_RESIZE = 256
_MARGIN = (_RESIZE - IMAGE_SIZE) / 2 / _RESIZE
# A side of this length bounds the first pass of the resize (224 x side) to 15 million pixels.
_MAX_SIDE = 65_535
# Named, so that no other reader of Pillow's is tried: some start a program (EPS: Ghostscript).
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000", "PPM", "MPO")
_ORIENTATION = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's readers are known to raise on damaged files.
_DECODE_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    EOFError,
    ArithmeticError,
    NotImplementedError,
    MemoryError,
    struct.error,
    zlib.error,
)


class ImageError(ValueError):
    """An image that cannot be used. `reason` is one of "empty", "undecodable", "truncated",
    "too large"."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode, orient (EXIF), turn into RGB, resize and crop: uint8 [3, 224, 224].

    Transparent pixels are laid on black. Greys of more than 8 bits are scaled from their real
    range (least to greatest finite value) to 0..255. Of several frames the first is taken.

    Raises ImageError; the size is checked from the header, before any pixel is decoded.
    """
    if not data:
        raise ImageError("empty")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels or max(width, height) > _MAX_SIDE:
                raise ImageError("too large")
            if image.format == "JPEG":
                # Lets the JPEG decoder halve the picture while it stays twice the final size.
                image.draft(image.mode, (2 * _RESIZE, 2 * _RESIZE))
            image.load()
            return _transform(image)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("too large") from error
    except UnidentifiedImageError as error:
        raise ImageError("undecodable") from error
    except _DECODE_FAULTS as error:
        raise ImageError("truncated" if "truncated" in str(error) else "undecodable") from error


def _transform(image: Image.Image) -> np.ndarray:
    orientation = image.getexif().get(_ORIENTATION, 1)
    flat = _to_grey_or_rgb(image)
    width, height = flat.size
    box = (_MARGIN * width, _MARGIN * height, (1 - _MARGIN) * width, (1 - _MARGIN) * height)
    small = flat.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR, box=box)
    if orientation in _TRANSPOSE:  # box and target are symmetric: it may come after the resize
        small = small.transpose(_TRANSPOSE[orientation])
    pixels = np.asarray(small)
    if pixels.ndim == 2:
        return np.broadcast_to(pixels, (3, IMAGE_SIZE, IMAGE_SIZE))
    return pixels.transpose(2, 0, 1)


def _to_grey_or_rgb(image: Image.Image) -> Image.Image:
    """The same picture in mode "L" or "RGB"."""
    if image.mode.startswith("I") or image.mode == "F":
        return _scale_grey(image)
    if image.has_transparency_data:
        visible = image.convert("RGBA")
        black = Image.new("RGBA", visible.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, visible).convert("RGB")
    if image.mode == "1":
        return image.convert("L")
    if image.mode == "L":
        return image
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    # Radiology is mostly grey stored as RGB: one channel resized instead of three, same result.
    red, green, blue = rgb.split()
    grey = _same(red, green) and _same(red, blue)
    return red if grey else rgb


def _same(one: Image.Image, other: Image.Image) -> bool:
    return ImageChops.difference(one, other).getbbox() is None


def _scale_grey(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        raise ImageError("undecodable")
    least, greatest = values[finite].min(), values[finite].max()
    scale = 255.0 / (greatest - least) if greatest > least else 0.0
    grey = (np.clip(np.nan_to_num(values, nan=least), least, greatest) - least) * scale
    return Image.fromarray(np.rint(grey).astype(np.uint8))
