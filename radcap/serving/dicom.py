"""One frame of a DICOM file -> the grey or RGB picture that its own header asks for.

pydicom reads and decodes (extra `dicom`, with pylibjpeg's decoders for compressed files). Patients
are named in DICOM headers: nothing of a header but the name of its compression goes into a message,
and pydicom's own warnings, which quote values, are not shown.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from radcap.data.images import MAX_PIXELS, ImageError, check_frame, check_size, scale_to_bytes

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
_BEYOND = 1e12  # any stored value lies between this and its negative


def is_dicom(data: bytes) -> bool:
    """Whether a file's bytes are DICOM's, with the preamble or without; the first 132 tell."""
    magic = data[_PREAMBLE : _PREAMBLE + len(_MAGIC)]
    return magic == _MAGIC or data[:2] in _FIRST_GROUPS


def read_dicom(data: bytes, *, frame: int = 0, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode one frame and show it as the header asks: uint8 grey [H, W] or RGB [H, W, 3].

    Stored values are rescaled (modality), then the file's first window or lookup table maps them to
    0..255; without either their real range does, padding left out. MONOCHROME1 is inverted.

    Args:
        data: the file.
        frame: counted from 0.
        max_pixels: a larger picture is refused by its header.

    Raises:
        ImageError: no picture in it, not one that can be decoded, or no extra `dicom` here.
    """
    try:
        import pydicom
    except ImportError:
        raise ImageError("a DICOM file, which needs pip install 'radcap[dicom]'") from None
    with _silent():
        try:
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
    try:
        stored = pixel_array(dataset, index=frame)
    except (RuntimeError, NotImplementedError):
        syntax = dataset.file_meta.TransferSyntaxUID.name
        raise ImageError(
            f"compressed as {syntax}, which cannot be decoded here: pip install 'radcap[dicom]' "
            "adds decoders, or the data is damaged"
        ) from None
    kind = dataset.get("PhotometricInterpretation", "MONOCHROME2")
    if kind == "PALETTE COLOR":
        return scale_to_bytes(apply_color_lut(stored, dataset), 0, _palette_greatest(dataset))
    if stored.ndim == 3:
        return scale_to_bytes(stored, 0, 2 ** int(dataset.BitsStored) - 1)
    grey = _grey(stored, dataset, frame)
    return 255 - grey if kind == "MONOCHROME1" else grey


def _grey(stored: np.ndarray, dataset: Dataset, frame: int) -> np.ndarray:
    from pydicom.pixels import apply_modality_lut, apply_voi

    _take_frame_settings(dataset, frame)
    values = apply_modality_lut(stored, dataset)
    if dataset.get("VOILUTSequence"):
        return scale_to_bytes(apply_voi(values.astype(np.int64), dataset))
    if dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
        windowed = _window(values, dataset)
        if windowed is not None:
            return windowed
    values = values.astype(np.float64)
    if dataset.get("PixelPaddingValue") is not None:
        values[stored == dataset.PixelPaddingValue] = np.nan
    return scale_to_bytes(values)


def _window(values: np.ndarray, dataset: Dataset) -> np.ndarray | None:
    """The file's first window, black to white; None for one that the standard does not allow."""
    from pydicom.pixels import apply_windowing

    # What lies far below and above the window shows what became black and white.
    ends = np.append(values.astype(np.float64), [-_BEYOND, _BEYOND])
    try:
        with np.errstate(over="ignore"):  # of the sigmoid, at those ends
            shown = apply_windowing(ends, dataset)
    except ValueError:
        return None
    black, white = shown[-2:]
    if black == white:
        return None
    share = (shown[:-2] - black) / (white - black)
    return scale_to_bytes(share.reshape(values.shape), 0.0, 1.0)


def _take_frame_settings(dataset: Dataset, frame: int) -> None:
    """Multi-frame files keep rescaling and window of a frame, or of all, in sequences."""
    groups = [*(dataset.get(_PER_FRAME) or [])[frame : frame + 1], *(dataset.get(_SHARED) or [])]
    for group in groups:
        for name in _SETTINGS:
            for item in group.get(name) or []:
                for element in item:
                    if element.tag not in dataset:
                        dataset[element.tag] = element


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
