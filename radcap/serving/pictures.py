"""Whatever a person has a picture in -> uint8 [3, 224, 224], by the model card's transform."""

from __future__ import annotations

import errno
import warnings
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from radcap.data.dicom.pixels import is_dicom, read_dicom_frame
from radcap.data.image.decode import (
    ImageError,
    array_pixels,
    check_size,
    decode_image,
    decoding,
    has_several_frames,
    image_pixels,
)
from radcap.errors import RadcapError
from radcap.files.reading import LFS_POINTER, read_bytes

Picture: TypeAlias = "str | PathLike[str] | Image.Image | np.ndarray"

_MAX_BYTES = 2 << 30
_IN_WORDS = {
    "empty": "the file is empty",
    "undecodable": "not a picture that radcap can read",
    "truncated": "the picture ends too early",
    "too large": "more pixels than radcap decodes",
    "git-lfs pointer": LFS_POINTER,
}


class PictureError(RadcapError):
    """A picture that cannot be captioned; the message names it.

    Attributes:
        reason: the message without the name.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class Frame:
    """A picture that has been read.

    Attributes:
        pixels: uint8 [3, 224, 224].
        num_frames: of the file that it comes from; None for several of unknown number.
    """

    pixels: np.ndarray
    num_frames: int | None = 1

    @property
    def others(self) -> str:
        """What is to be said of a file's other frames; empty where it has none."""
        if self.num_frames == 1:
            return ""
        count = "several" if self.num_frames is None else f"{self.num_frames:,}"
        return f"the file holds {count} frames"


def read_picture(picture: Picture) -> np.ndarray:
    """Read one picture, of several frames the first: uint8 [3, 224, 224].

    Args:
        picture: a file (PNG, JPEG, TIFF, WebP, BMP, GIF, JPEG 2000, PPM, DICOM), told by what is
            in it and not by its name; a PIL image; or an array, see
            `radcap.data.image.decode.array_pixels`.

    Raises:
        PictureError: it cannot be read.
        TypeError: something else.
    """
    return read_frame(picture).pixels


def read_frame(picture: Picture, *, frame: int = 0) -> Frame:
    """As `read_picture`, one frame of several, counted from 0, and whether there are others."""
    try:
        if isinstance(picture, Image.Image):
            with decoding():
                check_size(*picture.size)
                return Frame(image_pixels(picture))
        if isinstance(picture, np.ndarray):
            return Frame(array_pixels(picture))
        if isinstance(picture, str | PathLike):
            return _read_file(Path(picture), frame)
    except ImageError as error:
        reason = _IN_WORDS.get(error.reason, error.reason)
        raise PictureError(_name_of(picture), reason) from None
    except MemoryError:
        reason = "more than the memory here can hold"
        raise PictureError(_name_of(picture), reason) from None
    raise not_a_picture(picture)


def not_a_picture(value: object) -> TypeError:
    """The error for what is no picture, with how to make one of it where that is known."""
    hint = ""
    if isinstance(value, bytes | bytearray | memoryview):
        hint = "; Image.open(io.BytesIO(data)) makes a PIL image of a file's bytes"
    elif hasattr(value, "permute") and hasattr(value, "numpy"):  # torch is not imported for it
        hint = "; tensor.permute(1, 2, 0).cpu().numpy() makes an array of one of [C, H, W]"
    kind = type(value).__name__
    return TypeError(f"a picture is a path, a PIL image or an array, not {kind}{hint}")


def _name_of(picture: Picture) -> str:
    if isinstance(picture, str | PathLike):
        return str(picture)
    return str(getattr(picture, "filename", "") or type(picture).__name__)


def _read_file(path: Path, frame: int) -> Frame:
    try:
        data = read_bytes(path, most=_MAX_BYTES)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise ImageError(f"more than {_MAX_BYTES >> 30} GiB") from None
        raise ImageError(error.strerror or type(error).__name__) from None
    except ValueError:  # a null byte in the name
        raise ImageError("no such file") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of decoders, about files that then decode or do not
        if is_dicom(data):
            shown, num_frames = read_dicom_frame(data, frame=frame)
            return Frame(array_pixels(shown), num_frames)
        pixels = decode_image(data, frame=frame)
        # Counting the frames of some formats takes as long as reading all of the file.
        return Frame(pixels, None if has_several_frames(data) else 1)
