"""Stored values of a DICOM picture -> the grey levels or colours that its header asks for.

Most of what the header says of that is optional. What is absent, empty or odd, such as "15,0" or
"N/A" in the place of a number, counts as not said, and the next holds: after the file's own
settings those of its frame, after a lookup table a window, after a window the real range.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, MutableSequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from radcap.data.image.decode import blocks, finite_range, scale_to_bytes

if TYPE_CHECKING:
    from pydicom import Dataset

_PER_FRAME = "PerFrameFunctionalGroupsSequence"
_SHARED = "SharedFunctionalGroupsSequence"
_SETTINGS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
_PALETTES = ("Red", "Green", "Blue", "Alpha")
_MOST_ENTRIES = 1 << 16
_MOST_BITS = 16
# Each kind of pixel data, with the attributes of its padding.
_PADDING = {
    "PixelData": ("PixelPaddingValue", "PixelPaddingRangeLimit"),
    "FloatPixelData": ("FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit"),
    "DoubleFloatPixelData": ("DoubleFloatPixelPaddingValue", "DoubleFloatPixelPaddingRangeLimit"),
}
PIXEL_DATA = tuple(_PADDING)
# What pydicom is known to raise for a value that is not of its element's kind.
_ODD = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    NotImplementedError,
    EOFError,
    RecursionError,
    struct.error,
)

# Values of any shape -> values of the same shape; the last of a picture are its grey levels, uint8.
_Mapping: TypeAlias = Callable[[np.ndarray], np.ndarray]


def value_of(dataset: Dataset, name: str) -> Any:
    """An attribute's value; None where it is absent, empty or cannot be read."""
    try:
        value = dataset.get(name)
    except _ODD:
        return None
    return None if isinstance(value, str) and not value.strip() else value


def number_of(dataset: Dataset, name: str) -> float | None:
    """The first number of an attribute; None where it has none."""
    return next((value for value in _numbers(dataset, name) if value is not None), None)


def grey_levels(stored: np.ndarray, dataset: Dataset, frame: int) -> np.ndarray:
    """One frame's stored values, [H, W], as they are to be shown: uint8.

    By DICOM PS3.3: rescaled (C.11.1), through a lookup table or a window (C.11.2), else by their
    real range; inverted where small values are bright (C.7.6.3.1.2, C.11.6); padding is black
    (C.7.5.1.1.2).
    """
    pixel = _Pixel.of(dataset)
    sources = list(_sources(dataset, frame))
    rescale, is_signed = _modality(sources, pixel)
    is_padding = _padding(dataset, pixel, stored.dtype)
    shade = _values_of_interest(sources, is_signed, pixel.is_little)
    if all(is_padding(block).all() for block in blocks(stored)):  # then it says nothing
        is_padding = _no_padding
    if shade is None:
        least, greatest = finite_range(
            rescale(block)[~is_padding(block)] for block in blocks(stored)
        )
        shade = lambda values: scale_to_bytes(values, least, greatest)  # noqa: E731
    photometric, shape = (
        _word(dataset, name) for name in ("PhotometricInterpretation", "PresentationLUTShape")
    )
    is_inverted = photometric == "MONOCHROME1" or shape == "INVERSE"
    parts = []
    for block in blocks(stored):
        grey = shade(rescale(block))
        grey = 255 - grey if is_inverted else grey
        grey[is_padding(block)] = 0
        parts.append(grey)
    return np.concatenate(parts)


def palette_colours(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Numbers of colours, [H, W], as these: uint8 [H, W, 3], or [H, W, 4] with opacity."""
    from pydicom.pixels import apply_color_lut

    pixel = _Pixel.of(dataset)
    tables = [
        _Table.read(
            dataset,
            f"{colour}PaletteColorLookupTableDescriptor",
            f"{colour}PaletteColorLookupTableData",
            pixel.is_signed,
            pixel.is_little,
        )
        for colour in _PALETTES
    ]
    found = [table for table in tables if table is not None]
    if len(found) >= 3 and None not in tables[:3]:
        parts = (np.stack([table.shade(block) for table in found], -1) for block in blocks(stored))
        return np.concatenate(list(parts))
    # Tables in segments, which pydicom puts together; it asks for the first number with its sign.
    count, first, bits = (int(value) for value in dataset.RedPaletteColorLookupTableDescriptor)
    facts = [count, _with_sign(first, pixel.is_signed), bits]
    dataset.add_new("RedPaletteColorLookupTableDescriptor", "SS", facts)
    coloured = (apply_color_lut(block, dataset) for block in blocks(stored))
    return np.concatenate([scale_to_bytes(part, 0, 2**bits - 1) for part in coloured])


@dataclass(frozen=True)
class _Pixel:
    """What the stored values are.

    Attributes:
        kind: PixelData, FloatPixelData or DoubleFloatPixelData.
        is_signed: whether they are below zero too.
        bits: of each that count.
        is_little: byte order of the file.
    """

    kind: str
    is_signed: bool
    bits: int
    is_little: bool

    @classmethod
    def of(cls, dataset: Dataset) -> _Pixel:
        kind = next(name for name in PIXEL_DATA if name in dataset)
        is_float = kind != "PixelData"
        return cls(
            kind,
            is_float or number_of(dataset, "PixelRepresentation") == 1,
            _MOST_BITS if is_float else int(dataset.BitsStored),
            bool(dataset.file_meta.TransferSyntaxUID.is_little_endian),
        )


@dataclass(frozen=True)
class _Table:
    """A lookup table, DICOM PS3.3 C.11.1.1.1 and C.7.6.3.1.5.

    Attributes:
        first: the number that the first entry is for; smaller ones take it too.
        entries: uint16.
        bits: of an entry that count.
    """

    first: int
    entries: np.ndarray
    bits: int

    @classmethod
    def read(
        cls, item: Dataset, descriptor: str, data: str, is_signed: bool, is_little: bool
    ) -> _Table | None:
        """That of two attributes; None where they are no table.

        Args:
            item: holds them.
            descriptor, data: their names.
            is_signed: whether what goes into the table may be below zero. It tells how the number
                of the first entry is meant, however that is written.
            is_little: byte order of the file.
        """
        facts = _numbers(item, descriptor)[:3]
        content = value_of(item, data)
        if len(facts) < 3 or content is None:
            return None
        counted, first, bits = facts
        if counted is None or first is None or bits is None or not 1 <= bits <= _MOST_BITS:
            return None
        count = int(counted) % _MOST_ENTRIES or _MOST_ENTRIES
        words = _words(content, is_little)
        if words is None:
            return None
        if len(words) >= count:
            entries = words[:count]
        elif bits <= 8 and 2 * len(words) >= count:  # two in a word
            entries = words.view(np.uint8)[:count].astype(np.uint16)
        else:
            return None
        # Some say 8 bits of what has more.
        most_bits = max(int(bits), int(entries.max()).bit_length())
        return cls(_with_sign(int(first), is_signed), entries, most_bits)

    def values(self, numbers: np.ndarray) -> np.ndarray:
        """The entries for numbers: uint16 of the same shape."""
        places = np.nan_to_num(np.rint(numbers.astype(np.float64)) - self.first)
        return self.entries[np.clip(places, 0, len(self.entries) - 1).astype(np.intp)]

    def shade(self, numbers: np.ndarray) -> np.ndarray:
        """The entries as levels: uint8."""
        return scale_to_bytes(self.values(numbers), 0, 2**self.bits - 1)


def _sources(dataset: Dataset, frame: int) -> Iterator[Dataset]:
    """Where rescaling and window may be: a file of several frames keeps those of a frame, or of
    all, in sequences."""
    yield dataset
    for group in (*_items(dataset, _PER_FRAME)[frame : frame + 1], *_items(dataset, _SHARED)):
        for name in _SETTINGS:
            yield from _items(group, name)


def _modality(sources: list[Dataset], pixel: _Pixel) -> tuple[_Mapping, bool]:
    """Stored values -> modality values, and whether these may be below zero."""
    for source in sources:
        for item in _items(source, "ModalityLUTSequence"):
            table = _Table.read(item, "LUTDescriptor", "LUTData", pixel.is_signed, pixel.is_little)
            if table is not None:
                return table.values, False
        slope, intercept = (number_of(source, f"Rescale{name}") for name in ("Slope", "Intercept"))
        if slope or intercept is not None:  # a slope of 0 is none
            return _rescaling(slope or 1.0, intercept or 0.0, pixel)
    return lambda values: values, pixel.is_signed


def _rescaling(slope: float, intercept: float, pixel: _Pixel) -> tuple[_Mapping, bool]:
    half = 2 ** (pixel.bits - 1)
    ends = (-half, half - 1) if pixel.is_signed else (0, 2 * half - 1)
    is_signed = min(slope * end for end in ends) + intercept < 0
    return lambda values: values.astype(np.float64) * slope + intercept, is_signed


def _values_of_interest(
    sources: list[Dataset], is_signed: bool, is_little: bool
) -> _Mapping | None:
    """Modality values -> grey levels, by the first lookup table or window that there is."""
    for source in sources:
        for item in _items(source, "VOILUTSequence"):
            table = _Table.read(item, "LUTDescriptor", "LUTData", is_signed, is_little)
            if table is not None:
                return table.shade
        shade = _window(source)
        if shade is not None:
            return shade
    return None


def _window(source: Dataset) -> _Mapping | None:
    """The first window, DICOM PS3.3 C.11.2.1.2, that the standard allows."""
    from pydicom import Dataset

    function = _word(source, "VOILUTFunction")
    function = function if function in ("LINEAR_EXACT", "SIGMOID") else "LINEAR"
    narrowest = 1 if function == "LINEAR" else 1e-300
    centers, widths = (_numbers(source, name) for name in ("WindowCenter", "WindowWidth"))
    for center, width in zip(centers, widths, strict=False):
        if center is not None and width is not None and width >= narrowest:
            window = Dataset()  # without what is odd in the file's own
            window.PhotometricInterpretation, window.VOILUTFunction = "MONOCHROME2", function
            window.BitsStored, window.PixelRepresentation = 1, 0  # gives shares of the range
            window.add_new("WindowCenter", "FD", center)
            window.add_new("WindowWidth", "FD", width)
            return partial(_windowed, window)
    return None


def _windowed(window: Dataset, values: np.ndarray) -> np.ndarray:
    from pydicom.pixels import apply_windowing

    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return scale_to_bytes(apply_windowing(values, window), 0, 1)


def _padding(dataset: Dataset, pixel: _Pixel, dtype: np.dtype) -> _Mapping:
    """Stored values -> which belong to no picture, bool: DICOM PS3.3 C.7.5.1.1.2."""
    value, limit = (number_of(dataset, name) for name in _PADDING[pixel.kind])
    if value is None:
        return _no_padding
    ends = [
        _as_stored(int(end), pixel) if pixel.kind == "PixelData" else float(np.asarray(end, dtype))
        for end in (value, value if limit is None else limit)
    ]
    low, high = min(ends), max(ends)
    return lambda stored: (stored >= low) & (stored <= high) | _no_padding(stored)


def _no_padding(stored: np.ndarray) -> np.ndarray:
    """What is no number is no part of a picture either way."""
    return np.isnan(stored) if stored.dtype.kind == "f" else np.zeros(stored.shape, bool)


def _as_stored(value: int, pixel: _Pixel) -> int:
    """A number of 16 bits, signed as pixels are however it is called, as a pixel holds it."""
    value = _with_sign(value, pixel.is_signed)
    if pixel.bits >= _MOST_BITS:
        return value
    low = value % 2**pixel.bits
    return low - 2**pixel.bits if pixel.is_signed and low >= 2 ** (pixel.bits - 1) else low


def _with_sign(value: int, is_signed: bool) -> int:
    """A number of 16 bits, however it was called, as a signed or unsigned one."""
    value %= 1 << 16
    return value - (1 << 16) if is_signed and value >= 1 << 15 else value


def _items(dataset: Dataset, name: str) -> list[Dataset]:
    """Those of a sequence; none where it is absent, empty or no sequence."""
    from pydicom import Dataset

    value = value_of(dataset, name)
    if not isinstance(value, MutableSequence):
        return []
    return [item for item in value if isinstance(item, Dataset)]


def _numbers(dataset: Dataset, name: str) -> list[float | None]:
    """An attribute's values, None for each that is no finite number."""
    value = value_of(dataset, name)
    values = value if isinstance(value, MutableSequence | tuple) else [value]
    return [_number(one) for one in values]


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except _ODD:
        return None
    return number if math.isfinite(number) else None


def _word(dataset: Dataset, name: str) -> str:
    """An attribute's text in capitals; of several the first."""
    value = value_of(dataset, name)
    if isinstance(value, MutableSequence):
        value = value[0] if value else None
    return str(value or "").strip().upper()


def _words(content: Any, is_little: bool) -> np.ndarray | None:
    """The 16-bit words of a table's data, uint16; None for what is no data."""
    if isinstance(content, bytes):
        if len(content) % 2:
            content += b"\0"
        return np.frombuffer(content, "<u2" if is_little else ">u2").astype("<u2")
    values = content if isinstance(content, MutableSequence | tuple) else [content]
    numbers = [_number(value) for value in values]
    if any(number is None for number in numbers):
        return None
    return np.array([int(number or 0) % (1 << 16) for number in numbers], "<u2")
