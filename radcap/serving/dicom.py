"""One frame of a DICOM file -> the grey or RGB picture that its own header asks for.

pydicom reads and decodes (extra `dicom`, with pylibjpeg's decoders for compressed files). Patients
are named in DICOM headers: nothing of a header but the name of its compression goes into a message,
and pydicom's own warnings, which quote values, are not shown.
"""

from __future__ import annotations

import io
import logging
import math
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from radcap.data.images import (
    MAX_PIXELS,
    ImageError,
    blocks,
    check_frame,
    check_size,
    finite_range,
    scale_to_bytes,
)
from radcap.serving.codestream import stated_sizes

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

_PREAMBLE = 128
_MAGIC = b"DICM"
# The first tag of a file without preamble is of group 0002 or 0008, in either byte order.
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")
_PER_FRAME = "PerFrameFunctionalGroupsSequence"
_SHARED = "SharedFunctionalGroupsSequence"
_SETTINGS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
_BYTES_A_PIXEL = 8  # of the widest there are
_INFLATED_AT_ONCE = 1 << 20
# Pictures are deflated to a third or a tenth; what grows a hundredfold and is large is none.
_INFLATED_AT_LEAST, _MOST_GROWTH = 32 << 20, 100

# Modality values of any shape -> their grey levels, uint8.
_Shade: TypeAlias = Callable[[np.ndarray], np.ndarray]


def is_dicom(data: bytes) -> bool:
    """Whether a file's bytes are DICOM's, with the preamble or without; the first 132 tell."""
    magic = data[_PREAMBLE : _PREAMBLE + len(_MAGIC)]
    return magic == _MAGIC or data[:2] in _FIRST_GROUPS


def read_dicom(data: bytes, *, frame: int = 0, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode one frame and show it as the header asks: uint8 grey [H, W] or RGB [H, W, 3].

    Stored values are rescaled (modality), then the file's first window or lookup table maps them to
    0..255; without either their real range does. MONOCHROME1 is inverted, padding is black.

    Args:
        data: the file.
        frame: counted from 0.
        max_pixels: a larger picture is refused by its header, or by that of its compressed data.

    Raises:
        ImageError: no picture in it, not one that can be decoded, or no extra `dicom` here.
    """
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


def _picture(dataset: Dataset, frame: int, max_pixels: int) -> np.ndarray:
    from pydicom.pixels import apply_color_lut, pixel_array

    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise ImageError("a DICOM file without a picture")
    check_size(int(dataset.Columns), int(dataset.Rows), max_pixels=max_pixels)
    check_frame(frame, int(dataset.get("NumberOfFrames") or 1))
    if not hasattr(dataset.file_meta, "TransferSyntaxUID"):
        dataset.file_meta.TransferSyntaxUID = _transfer_syntax(dataset)
    if _is_listed(dataset) and dataset.file_meta.TransferSyntaxUID.is_compressed:
        _check_codestream(dataset, frame, max_pixels)
    try:
        stored = pixel_array(dataset, index=frame)
    except (RuntimeError, NotImplementedError):
        raise ImageError(
            f"compressed as {_syntax_in_words(dataset)}, which cannot be decoded here: "
            "pip install 'radcap[dicom]' adds decoders, or the data is damaged"
        ) from None
    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        greatest = _palette_greatest(dataset)
        coloured = (apply_color_lut(block, dataset) for block in blocks(stored))
        return np.concatenate([scale_to_bytes(part, 0, greatest) for part in coloured])
    if stored.ndim == 3:
        bits = int(dataset.BitsStored)
        is_shown = stored.dtype == np.uint8 and bits == 8
        return stored if is_shown else scale_to_bytes(stored, 0, 2**bits - 1)
    return _grey(stored, dataset, frame)


def _grey(stored: np.ndarray, dataset: Dataset, frame: int) -> np.ndarray:
    from pydicom.pixels import apply_modality_lut

    _take_frame_settings(dataset, frame)
    is_inverted = dataset.get("PhotometricInterpretation") == "MONOCHROME1"
    shade = _lookup(dataset) or _window(dataset)
    if shade is None:
        least, greatest = finite_range(
            apply_modality_lut(block, dataset)[~_is_padding(block, dataset)]
            for block in blocks(stored)
        )
        shade = lambda values: scale_to_bytes(values, least, greatest)  # noqa: E731
    parts = []
    for block in blocks(stored):
        grey = shade(apply_modality_lut(block, dataset))
        grey = 255 - grey if is_inverted else grey
        grey[_is_padding(block, dataset)] = 0
        parts.append(grey)
    return np.concatenate(parts)


def _is_padding(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Pixels that belong to no picture, bool: DICOM PS3.3 C.7.5.1.1.2."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, bool)
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = (value, value if limit is None else limit)
    return (stored >= min(ends)) & (stored <= max(ends))


def _lookup(dataset: Dataset) -> _Shade | None:
    """The file's first lookup table, whose entries are grey levels of so many bits."""
    from pydicom.pixels import apply_voi

    if not dataset.get("VOILUTSequence"):
        return None
    greatest = 2 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1
    return lambda values: scale_to_bytes(
        apply_voi(np.rint(values).astype(np.int64), dataset), 0, greatest
    )


def _window(dataset: Dataset) -> _Shade | None:
    """The file's first window, DICOM PS3.3 C.11.2.1.2; None for one that it does not allow."""
    center, width = (_first_number(dataset, name) for name in ("WindowCenter", "WindowWidth"))
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if center is None or width is None or width < (1 if function == "LINEAR" else 1e-300):
        return None
    shares: dict[str, _Shade] = {
        "LINEAR": lambda x: (x - (center - 0.5)) / (width - 1) + 0.5,
        "LINEAR_EXACT": lambda x: (x - center) / width + 0.5,
        "SIGMOID": lambda x: 1 / (1 + np.exp(-4 * (x - center) / width)),
    }
    share = shares.get(function)
    if share is None:
        return None

    def shade(values: np.ndarray) -> np.ndarray:
        # A sigmoid far below its centre; a window of width 1 is a step, and black at it.
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            return scale_to_bytes(np.clip(share(values.astype(np.float64)), 0, 1), 0, 1)

    return shade


def _first_number(dataset: Dataset, name: str) -> float | None:
    value = dataset.get(name)
    if value is None or value == "":
        return None
    number = float(np.ravel(value)[0])
    return number if math.isfinite(number) else None


def _take_frame_settings(dataset: Dataset, frame: int) -> None:
    """Multi-frame files keep rescaling and window of a frame, or of all, in sequences."""
    groups = [*(dataset.get(_PER_FRAME) or [])[frame : frame + 1], *(dataset.get(_SHARED) or [])]
    for group in groups:
        for name in _SETTINGS:
            for item in group.get(name) or []:
                for element in item:
                    if element.tag not in dataset or dataset[element.tag].is_empty:
                        dataset[element.tag] = element


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


def _check_codestream(dataset: Dataset, frame: int, max_pixels: int) -> None:
    """Raise ImageError for compressed data that decodes to more than the header says."""
    from pydicom.encaps import get_frame

    count = int(dataset.get("NumberOfFrames") or 1)
    starts, lengths = (dataset.get(f"ExtendedOffsetTable{end}") for end in ("", "Lengths"))
    offsets = (starts, lengths) if starts and lengths and len(starts) == len(lengths) else None
    data = get_frame(dataset.PixelData, frame, number_of_frames=count, extended_offsets=offsets)
    for size in stated_sizes(data):
        check_size(*size, max_pixels=max_pixels)


def _syntax_in_words(dataset: Dataset) -> str:
    """Only what the standard lists: whatever else stands in the header may name the patient."""
    if not _is_listed(dataset):
        return "an unknown transfer syntax"
    return str(dataset.file_meta.TransferSyntaxUID.name)


def _is_listed(dataset: Dataset) -> bool:
    from pydicom.uid import AllTransferSyntaxes

    return dataset.file_meta.TransferSyntaxUID in AllTransferSyntaxes


def _palette_greatest(dataset: Dataset) -> int:
    depth = int(dataset.RedPaletteColorLookupTableDescriptor[2])
    return 2**depth - 1


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
