"""Any image file -> uint8 [3, 224, 224], by the model card's transform."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageChops, UnidentifiedImageError

from radcap.data.image.deep import DeepGrey, correct_tiles, grey_values, read_deep
from radcap.data.image.jpeg import essential_jpeg
from radcap.data.image.png import essential_png, repack_png
from radcap.data.image.resize import IMAGE_SIZE, RESIZED, resize_and_crop
from radcap.files.reading import is_lfs_pointer

MAX_PIXELS = 50_000_000

# A side of this length bounds the first pass of the resize (224 x side) to 15 million pixels.
_MAX_SIDE = 65_535
# Named, so that no other reader of Pillow's is tried: some start a program (EPS: Ghostscript).
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000", "PPM", "MPO")
# Of these, all frames before the one that is asked for are decoded too.
_PLAYED = ("GIF", "WEBP", "PNG")
_MAX_PLAYED = 4  # times the pixels of the largest picture
_DEEP = ("PNG", "TIFF")  # may hold 16 bits in each of several channels
_ORIENTATION = 0x0112
_BLOCK = 1 << 20  # numbers computed with at a time
# What makes a stored picture [..., H, W] upright, by EXIF's orientation.
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[..., ::-1],
    3: lambda pixels: pixels[..., ::-1, ::-1],
    4: lambda pixels: pixels[..., ::-1, :],
    5: lambda pixels: pixels.swapaxes(-2, -1),
    6: lambda pixels: pixels.swapaxes(-2, -1)[..., ::-1],
    7: lambda pixels: pixels[..., ::-1, ::-1].swapaxes(-2, -1),
    8: lambda pixels: pixels.swapaxes(-2, -1)[..., ::-1, :],
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
    "too large", "git-lfs pointer", or tells of a frame that cannot be had."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS, frame: int = 0) -> np.ndarray:
    """Decode, orient (EXIF), turn into RGB, resize and crop: uint8 [3, 224, 224].

    Transparent pixels are laid on black. Greys of more than 8 bits are scaled from their real
    range (least to greatest finite value) to 0..255, also where they are stored as three equal
    colours. Of several frames one is taken, counted from 0.

    Raises ImageError; the size is checked from the header, before any pixel is decoded.
    """
    if not data:
        raise ImageError("empty")
    if is_lfs_pointer(data):
        raise ImageError("git-lfs pointer")
    packed = data if frame else repack_png(data, max_pixels=max_pixels)
    try:
        return _decode(packed, max_pixels, frame)
    except ImageError as error:
        if error.reason not in ("undecodable", "truncated"):
            raise
        # Pillow refuses a whole picture for a damaged text or colour profile.
        plain = essential_jpeg(essential_png(data))
        if plain == data:
            raise
    return _decode(plain, max_pixels, frame)


def has_several_frames(data: bytes) -> bool:
    """Whether an image file holds more than one frame; by its header, without decoding one."""
    try:
        with decoding(), Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            return bool(getattr(image, "is_animated", False))
    except ImageError:
        return False


def _decode(data: bytes, max_pixels: int, frame: int) -> np.ndarray:
    with _opened(data, max_pixels, frame) as image:
        if image.format == "JPEG":
            # Lets the JPEG decoder halve the picture while it stays twice the final size.
            image.draft(image.mode, (2 * RESIZED, 2 * RESIZED))
        if image.format in _DEEP:
            correct_tiles(image)
            deep = read_deep(image, lambda: _opened(data, max_pixels, frame))
            if deep is not None:
                return _prepare(Image.fromarray(_lay_on_black(deep)), _orientation(image))
        return image_pixels(image)


@contextmanager
def _opened(data: bytes, max_pixels: int, frame: int) -> Iterator[Image.Image]:
    with decoding(), Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        check_size(*image.size, max_pixels=max_pixels)
        if frame:  # it may have another size than the first
            check_frame(frame, getattr(image, "n_frames", 1))
            played = frame * image.width * image.height if image.format in _PLAYED else 0
            if played > _MAX_PLAYED * max_pixels:
                raise ImageError(f"frame {frame} comes after more pixels than radcap decodes")
            image.seek(frame)
            check_size(*image.size, max_pixels=max_pixels)
        yield image


@contextmanager
def decoding() -> Iterator[None]:
    """Turn what Pillow raises for a damaged picture into an ImageError."""
    try:
        yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("too large") from error
    except UnidentifiedImageError as error:
        raise ImageError("undecodable") from error
    except _DECODE_FAULTS as error:
        raise ImageError("truncated" if "truncated" in str(error) else "undecodable") from error


def check_size(width: int, height: int, *, max_pixels: int = MAX_PIXELS) -> None:
    """Raise ImageError for a picture without pixels, or one that is too large to decode."""
    if width < 1 or height < 1:
        raise ImageError("undecodable")
    if width * height > max_pixels or max(width, height) > _MAX_SIDE:
        raise ImageError("too large")


def check_frame(frame: int, count: int) -> None:
    """Raise ImageError for a frame that a file of `count` frames does not have."""
    if not 0 <= frame < count:
        raise ImageError(
            f"no frame {frame}: the frames are 0 to {count - 1}"
            if count > 1
            else f"no frame {frame}: there is a single one, 0"
        )


def array_pixels(array: np.ndarray) -> np.ndarray:
    """An array as if it came from a file: uint8 [3, 224, 224].

    Args:
        array: grey [H, W] or [H, W, 1], RGB [H, W, 3] or RGBA [H, W, 4]. uint8 is taken as it is;
            any other number is scaled from its real range (least to greatest finite value).
            Opacity is not: it ends at the largest whole number of the type, or at 1.

    Raises:
        ImageError: no such array, or too large.
    """
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        raise ImageError(
            f"an array of shape {list(array.shape)}: not [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]"
            f"{_other_order(array.shape)}"
        )
    if array.dtype.kind not in "buif" or array.size == 0:
        raise ImageError("an array without numbers")
    check_size(array.shape[1], array.shape[0])
    grey = array if array.dtype == np.uint8 else _array_to_bytes(array)
    return image_pixels(Image.fromarray(np.ascontiguousarray(grey)))


def _other_order(shape: tuple[int, ...]) -> str:
    """What to do with an array of channels first, or of several pictures."""
    if len(shape) == 3 and shape[0] in (1, 3, 4):
        return "; array.transpose(1, 2, 0) puts its channels last"
    return "; list(array) gives its pictures one by one" if len(shape) == 4 else ""


def _array_to_bytes(array: np.ndarray) -> np.ndarray:
    """Numbers but uint8 as uint8 of the same shape, [H, W] or [H, W, 3 or 4]."""
    if array.ndim == 2 or array.shape[2] == 3:
        return scale_to_bytes(array)
    opaque = float(np.iinfo(array.dtype).max) if array.dtype.kind in "ui" else 1.0
    colours, alpha = scale_to_bytes(array[..., :3]), scale_to_bytes(array[..., 3], 0, opaque)
    return np.concatenate([colours, alpha[..., None]], axis=2)


def image_pixels(image: Image.Image) -> np.ndarray:
    """A picture, loaded, oriented (EXIF), as RGB, resized and cropped: uint8 [3, 224, 224]."""
    image.load()
    return _prepare(_to_grey_or_rgb(image), _orientation(image))


def _prepare(image: Image.Image, orientation: object) -> np.ndarray:
    """A picture of mode "L" or "RGB" as the model sees it: uint8 [3, 224, 224]."""
    pixels = resize_and_crop(image)
    upright = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    if upright is not None:  # box and target are symmetric: it may come after the resize
        pixels = upright(pixels)
    return np.broadcast_to(pixels, (3, IMAGE_SIZE, IMAGE_SIZE))


def _orientation(image: Image.Image) -> object:
    """EXIF's; None where there is none, or no telling: the picture is good without."""
    try:
        return image.getexif().get(_ORIENTATION)
    except _DECODE_FAULTS:
        return None


def _lay_on_black(grey: DeepGrey) -> np.ndarray:
    """As uint8 [H, W], by the range of what is to be seen."""
    values, opacity = grey
    if opacity is None:
        return scale_to_bytes(values)
    seen = values[opacity > 0]
    if not seen.size:
        return np.zeros(values.shape, np.uint8)
    least, greatest = finite_range(blocks(seen))
    return np.rint(scale_to_bytes(values, least, greatest) * opacity).astype(np.uint8)


def _to_grey_or_rgb(image: Image.Image) -> Image.Image:
    """The same picture in mode "L" or "RGB"."""
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_lay_on_black(grey_values(image)))
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


def scale_to_bytes(
    values: np.ndarray, least: float | None = None, greatest: float | None = None
) -> np.ndarray:
    """Numbers of any kind as uint8 of the same shape.

    Args:
        values: what is not finite counts as `least`.
        least, greatest: become 0 and 255; None for the least and greatest finite value.

    Raises:
        ImageError: no finite value, where its range is asked for.
    """
    if least is None or greatest is None:
        low, high = finite_range(blocks(values))
        least, greatest = low if least is None else least, high if greatest is None else greatest
    # By a power of two, so that neither a range nor its inverse overflows.
    unit = 0.25 if np.isinf(greatest - least) else 2.0**200 if greatest - least < 1e-200 else 1.0
    least, greatest = unit * least, unit * greatest
    scale = 255.0 / (greatest - least) if greatest > least else 0.0
    scaled = np.empty(values.shape, np.uint8)
    for block, out in zip(blocks(values), blocks(scaled), strict=True):
        numbers = unit * block.astype(np.float64)
        numbers[~np.isfinite(numbers)] = least
        out[...] = np.rint((np.clip(numbers, least, greatest) - least) * scale)
    return scaled


def finite_range(parts: Iterable[np.ndarray]) -> tuple[float, float]:
    """The least and the greatest finite number of some arrays.

    Raises:
        ImageError: there is none.
    """
    finite = (part[np.isfinite(part)] for part in parts)
    ends = [(float(part.min()), float(part.max())) for part in finite if part.size]
    if not ends:
        raise ImageError("undecodable")
    return min(least for least, _ in ends), max(greatest for _, greatest in ends)


def blocks(values: np.ndarray) -> Iterator[np.ndarray]:
    """Views of an array's rows, about a million numbers each.

    To compute with copies in float64 that are much larger than what they are copies of.
    """
    rows = max(1, _BLOCK * len(values) // max(values.size, 1))
    for start in range(0, len(values), rows):
        yield values[start : start + rows]
