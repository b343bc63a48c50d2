"""Whatever a person has a picture in -> uint8 [3, 224, 224], by the model card's transform."""

from __future__ import annotations

import errno
import warnings
from os import PathLike
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from radcap.data.images import (
    ImageError,
    array_pixels,
    check_size,
    decode_image,
    decoding,
    image_pixels,
)
from radcap.errors import RadcapError
from radcap.reading import read_bytes
from radcap.serving.dicom import is_dicom, read_dicom

Picture: TypeAlias = "str | PathLike[str] | Image.Image | np.ndarray"

_MAX_BYTES = 2 << 30
_IN_WORDS = {
    "empty": "the file is empty",
    "undecodable": "not a picture that radcap can read",
    "truncated": "the picture ends too early",
    "too large": "more pixels than radcap decodes",
}


class PictureError(RadcapError):
    """A picture that cannot be captioned; the message names it.

    Attributes:
        reason: the message without the name.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.reason = reason


def read_picture(picture: Picture, *, frame: int = 0) -> np.ndarray:
    """Read one picture: uint8 [3, 224, 224].

    Args:
        picture: a file (PNG, JPEG, TIFF, WebP, BMP, GIF, JPEG 2000, PPM, DICOM), told by what is
            in it and not by its name; a PIL image; or an array, see
            `radcap.data.images.array_pixels`.
        frame: of a file with several, counted from 0.

    Raises:
        PictureError: it cannot be read.
        TypeError: something else.
    """
    try:
        if isinstance(picture, Image.Image):
            with decoding():
                check_size(*picture.size)
                return image_pixels(picture)
        if isinstance(picture, np.ndarray):
            return array_pixels(picture)
        if isinstance(picture, str | PathLike):
            return _read_file(Path(picture), frame)
    except ImageError as error:
        reason = _IN_WORDS.get(error.reason, error.reason)
        raise PictureError(_name_of(picture), reason) from None
    except MemoryError:
        reason = "more than the memory here can hold"
        raise PictureError(_name_of(picture), reason) from None
    raise TypeError(f"a picture is a path, a PIL image or an array, not {type(picture).__name__}")


def _name_of(picture: Picture) -> str:
    if isinstance(picture, str | PathLike):
        return str(picture)
    return str(getattr(picture, "filename", "") or type(picture).__name__)


def _read_file(path: Path, frame: int) -> np.ndarray:
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
            return array_pixels(read_dicom(data, frame=frame))
        return decode_image(data, frame=frame)
