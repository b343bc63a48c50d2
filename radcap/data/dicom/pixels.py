"""One frame of a DICOM file -> the grey or RGB picture that its own header asks for.

pydicom reads and decodes (extra `dicom`, with pylibjpeg's decoders for compressed files). Patients
are named in DICOM headers: nothing of a header but the name of its compression goes into a message,
and pydicom's own warnings, which quote values, are not shown.
"""

from __future__ import annotations

import io
import logging
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from radcap.data.dicom.codestream import stated_sizes
from radcap.data.dicom.display import PIXEL_DATA, grey_levels, number_of, palette_colours, value_of
from radcap.data.image.decode import MAX_PIXELS, ImageError, check_frame, check_size, scale_to_bytes

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

_PREAMBLE = 128
_MAGIC = b"DICM"
# The first tag of a file without preamble is of group 0002 or 0008, in either byte order.
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")
# Without these nobody can tell what the pixel data mean; of floats the first five.
_REQUIRED = ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated")
_REQUIRED_OF_INTEGERS = ("BitsStored", "PixelRepresentation")
_DECODERS = ("pylibjpeg", "libjpeg", "openjpeg")  # of the extra
_MOST_FRAMES = 1 << 31
_BYTES_A_PIXEL = 8  # of the widest there are
_INFLATED_AT_ONCE = 1 << 20
# Pictures are deflated to a third or a tenth; what grows a hundredfold and is large is none.
_INFLATED_AT_LEAST, _MOST_GROWTH = 32 << 20, 100


def is_dicom(data: bytes) -> bool:
    """Whether a file's bytes are DICOM's, with the preamble or without; the first 132 tell."""
    magic = data[_PREAMBLE : _PREAMBLE + len(_MAGIC)]
    return magic == _MAGIC or data[:2] in _FIRST_GROUPS


def read_dicom(data: bytes, *, frame: int = 0, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode one frame and show it as the header asks: uint8 grey [H, W] or RGB [H, W, 3].

    Stored values are rescaled (modality), then the file's first lookup table or window maps them to
    0..255; without either their real range does. MONOCHROME1 is inverted, padding is black. See
    `radcap.data.dicom.display`.

    Args:
        data: the file.
        frame: counted from 0.
        max_pixels: a larger picture is refused by its header, or by that of its compressed data.

    Raises:
        ImageError: no picture in it, not one that can be decoded, or no extra `dicom` here.
    """
    return read_dicom_frame(data, frame=frame, max_pixels=max_pixels)[0]


def read_dicom_frame(
    data: bytes, *, frame: int = 0, max_pixels: int = MAX_PIXELS
) -> tuple[np.ndarray, int]:
    """As `read_dicom`, and how many frames the file holds."""
    try:
        import pydicom
    except ImportError:
        raise ImageError("a DICOM file, which needs pip install 'radcap[dicom]'") from None
    with _silent():
        try:
            _check_inflated(data, _BYTES_A_PIXEL * max_pixels)
            dataset = pydicom.dcmread(io.BytesIO(data), force=True)
            return _picture(dataset, frame, max_pixels)
        except ImageError:
            raise
        # A damaged header makes pydicom raise anything, and its words may name the patient.
        except Exception:  # noqa: BLE001
            raise ImageError("undecodable") from None


def _picture(dataset: Dataset, frame: int, max_pixels: int) -> tuple[np.ndarray, int]:
    from pydicom.pixels import pixel_array

    count = _complete_header(dataset)
    check_size(int(dataset.Columns), int(dataset.Rows), max_pixels=max_pixels)
    check_frame(frame, count)
    if _is_listed(dataset):
        if dataset.file_meta.TransferSyntaxUID.is_compressed:
            _check_codestream(dataset, frame, count, max_pixels)
        else:
            _check_length(dataset)
    try:
        stored = pixel_array(dataset, index=frame)
    except (RuntimeError, NotImplementedError):
        raise ImageError(
            f"compressed as {_syntax_in_words(dataset)}, which cannot be decoded here: {_remedy()}"
        ) from None
    except (ValueError, TypeError, AttributeError):  # numbers that no picture has, or not this one
        raise ImageError("a DICOM file whose header does not describe its pixels") from None
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        return palette_colours(stored, dataset), count
    if stored.ndim == 3:
        bits = int(dataset.BitsStored)
        is_shown = stored.dtype == np.uint8 and bits == 8
        return (stored if is_shown else scale_to_bytes(stored, 0, 2**bits - 1)), count
    return grey_levels(stored, dataset, frame), count


def _complete_header(dataset: Dataset) -> int:
    """Let what the decoders ask for be there, where the standard or the file itself implies it.

    Returns:
        The number of frames.

    Raises:
        ImageError: no picture, or not what describes one.
    """
    kinds = [name for name in PIXEL_DATA if name in dataset]
    if not kinds:
        raise ImageError("a DICOM file without a picture")
    names = _REQUIRED + (_REQUIRED_OF_INTEGERS if "PixelData" in kinds else ())
    for name in names:
        if value_of(dataset, name) is None:
            raise ImageError(f"a DICOM file that does not say its {name}")
    if not value_of(dataset.file_meta, "TransferSyntaxUID"):
        dataset.file_meta.TransferSyntaxUID = _transfer_syntax(dataset)
    count = _num_frames(dataset)
    dataset.add_new("NumberOfFrames", "IS", count)
    if number_of(dataset, "PlanarConfiguration") not in (0, 1):
        dataset.add_new("PlanarConfiguration", "US", 0)
    return count


def _num_frames(dataset: Dataset) -> int:
    """As the header says; where that is no number as many as its pixels hold, not compressed."""
    from pydicom.pixels.utils import get_expected_length

    stated = number_of(dataset, "NumberOfFrames")
    if stated is not None and 1 <= stated <= _MOST_FRAMES:
        return int(stated)
    is_said = "NumberOfFrames" in dataset
    if not is_said or not _is_listed(dataset) or dataset.file_meta.TransferSyntaxUID.is_compressed:
        return 1
    dataset.add_new("NumberOfFrames", "IS", 1)
    return max(1, _stored_length(dataset) // max(1, get_expected_length(dataset)))


def _check_length(dataset: Dataset) -> None:
    """Raise ImageError where pixels that are not compressed end before the picture does."""
    from pydicom.pixels.utils import get_expected_length

    if _stored_length(dataset) < get_expected_length(dataset):
        raise ImageError("truncated")


def _stored_length(dataset: Dataset) -> int:
    """Bytes of its pixels."""
    return len(next(value_of(dataset, name) for name in PIXEL_DATA if name in dataset) or b"")


def _check_inflated(data: bytes, most: int) -> None:
    """Raise ImageError for a deflated file of more than `most` bytes: pydicom inflates it whole.

    And for one that grows as no picture does.
    """
    from pydicom.filereader import read_dataset, read_preamble
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    if DeflatedExplicitVRLittleEndian.encode() not in data:
        return
    stream = io.BytesIO(data)
    read_preamble(stream, force=True)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, *_: tag >> 16 != 2)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    inflater, rest, size = zlib.decompressobj(-zlib.MAX_WBITS), stream.read(_INFLATED_AT_ONCE), 0
    most = min(most, _INFLATED_AT_LEAST + _MOST_GROWTH * len(data))
    while rest and not inflater.eof:
        size += len(inflater.decompress(rest, _INFLATED_AT_ONCE))
        rest = inflater.unconsumed_tail or stream.read(_INFLATED_AT_ONCE)
        if size > most:
            raise ImageError("too large")


def _check_codestream(dataset: Dataset, frame: int, count: int, max_pixels: int) -> None:
    """Raise ImageError for compressed data that decodes to more than the header says."""
    from pydicom.encaps import get_frame

    starts, lengths = (dataset.get(f"ExtendedOffsetTable{end}") for end in ("", "Lengths"))
    offsets = (starts, lengths) if starts and lengths and len(starts) == len(lengths) else None
    data = get_frame(dataset.PixelData, frame, number_of_frames=count, extended_offsets=offsets)
    for width, height in stated_sizes(data):
        try:
            check_size(width, height, max_pixels=max_pixels)
        except ImageError as error:
            stated = f"its compressed data is said to have {width:,} x {height:,} pixels"
            raise ImageError(f"{stated}: {error.reason}") from None


def _remedy() -> str:
    """What to do about data that no decoder reads."""
    if any(find_spec(package) is None for package in _DECODERS):
        return "pip install 'radcap[dicom]' adds decoders, or the data is damaged"
    return "its data is damaged, or of a kind that no decoder of radcap[dicom] knows"


def _syntax_in_words(dataset: Dataset) -> str:
    """Only what the standard lists: whatever else stands in the header may name the patient."""
    if not _is_listed(dataset):
        return "an unknown transfer syntax"
    return str(dataset.file_meta.TransferSyntaxUID.name)


def _is_listed(dataset: Dataset) -> bool:
    from pydicom.uid import AllTransferSyntaxes

    return dataset.file_meta.TransferSyntaxUID in AllTransferSyntaxes


def _transfer_syntax(dataset: Dataset) -> UID:
    """That of a file which does not say: as its header was read."""
    from pydicom import uid

    is_implicit, is_little = dataset.original_encoding
    if is_implicit:
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRLittleEndian if is_little else uid.ExplicitVRBigEndian


@contextmanager
def _silent() -> Iterator[None]:
    """Keep pydicom's log and warnings, which quote the header, from the screen."""
    log = logging.getLogger("pydicom")
    before = log.disabled
    log.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.disabled = before
