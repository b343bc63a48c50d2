"""PNG files as writers of data sets store them, repacked so that Pillow reads them faster.

Most of a PNG's decoding is inflating and undoing its line filters. Pillow inflates line by line,
where zlib-ng does it at one go in a third of the time. And radiology is mostly grey stored as RGB:
a PNG filter adds to each byte bytes of the same colour, so three colours are equal where their
filtered bytes are, and one of them, filters and all, is the grey picture
(https://www.w3.org/TR/png-3/#9Filters).
"""

from __future__ import annotations

import struct
from functools import lru_cache

import numpy as np
from zlib_ng import zlib_ng

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">IIBBBBB")  # width, height, bits, colour type, three methods
_FIRST_CHUNK = len(_SIGNATURE) + 12 + _HEADER.size
_END = b"\0\0\0\0IEND"
# The notes of https://www.w3.org/TR/png-3/#11Chunks and of its registered extensions: a picture
# shows without them. A chunk of any other kind is kept, for it may be one whose name is damaged.
_NOTES = frozenset(
    b"cHRM cICP gAMA iCCP mDCV cLLI sBIT sRGB bKGD hIST pHYs sPLT tIME iTXt tEXt zTXt"
    b" oFFs pCAL sCAL gIFg gIFx gIFt sTER dSIG".split()
)
# A picture stands upright by this one, where it is whole.
_ORIENTING = b"eXIf"
_CHANNELS = {0: 1, 2: 3}  # of the colour types grey and RGB
# What is repacked is held twice; larger pictures are rare in a data set.
_MAX_PIXELS = 1 << 20


def repack_png(data: bytes, *, max_pixels: int) -> bytes:
    """The same picture as a PNG whose pixels are not compressed, in grey where it has no colour.

    Only the plain kind is touched: grey or RGB of 8 bits a channel, not interlaced, no chunk but
    header, pixels and end, of at most `max_pixels` and about a million pixels. Any other file, a
    damaged one too, comes back as it is: to decode or refuse it is the decoder's part.
    """
    pixels = _plain_pixels(data)
    if pixels is None:
        return data
    width, height, *methods = _HEADER.unpack_from(data, len(_SIGNATURE) + 8)
    bits, colour, _, _, interlaced = methods
    channels = _CHANNELS.get(colour)
    if bits != 8 or channels is None or interlaced:
        return data
    if not 0 < width * height <= min(max_pixels, _MAX_PIXELS):
        return data
    line = 1 + channels * width  # the line's filter, then its bytes
    inflater = zlib_ng.decompressobj()
    try:
        filtered = inflater.decompress(pixels, height * line)
    except zlib_ng.error:  # type: ignore[misc]  # a class, whatever its stub says
        return data
    if len(filtered) != height * line or not inflater.eof or inflater.unused_data:
        return data
    if channels == 3:
        lines = np.frombuffer(filtered, np.uint8).reshape(height, line)
        if _colourless(lines):
            grey = np.empty((height, 1 + width), np.uint8)
            grey[:, 0] = lines[:, 0]
            grey[:, 1:] = lines[:, 1::3]
            filtered, colour = grey.tobytes(), 0
    header = _HEADER.pack(width, height, bits, colour, *methods[2:])
    chunks = ((b"IHDR", header), (b"IDAT", zlib_ng.compress(filtered, 0)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, body) for kind, body in chunks)


def essential_png(data: bytes) -> bytes:
    """A PNG without texts, colour profile and other notes, in which damage does no harm.

    Another file comes back as it is, and the end of one that was cut off stays.
    """
    if not data.startswith(_SIGNATURE):
        return data
    kept, start = [_SIGNATURE], len(_SIGNATURE)
    while start < len(data):
        length, kind = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
        chunk = data[start : start + 12 + length]
        is_damaged = kind == _ORIENTING and chunk != _chunk(kind, chunk[8:-4])
        is_torn = len(chunk) < 12
        if is_torn or not (kind in _NOTES or is_damaged):
            kept.append(chunk)
        start += 12 + length
    return b"".join(kept)


def _plain_pixels(data: bytes) -> bytes | None:
    """The compressed pixels of a PNG of header, pixels and end; None for another file."""
    header = _chunk(b"IHDR", data[len(_SIGNATURE) + 8 : _FIRST_CHUNK - 4])
    if data[:_FIRST_CHUNK] != _SIGNATURE + header or data[-12:-4] != _END:
        return None
    parts, start, stop = [], _FIRST_CHUNK, len(data) - len(_END) - 4
    while start < stop:
        if data[start + 4 : start + 8] != b"IDAT":
            return None
        length = int.from_bytes(data[start : start + 4], "big")
        parts.append(data[start + 8 : start + 8 + length])
        start += 12 + length
    return b"".join(parts) if start == stop else None


def _colourless(lines: np.ndarray) -> bool:
    """Whether red, green and blue are equal all over filtered RGB lines, uint8 [H, 1 + 3W]."""
    flat = lines.reshape(-1)
    differing = np.empty_like(flat)
    np.bitwise_xor(flat[1:], flat[:-1], out=differing[:-1])
    differing[-1] = 0
    differing.reshape(lines.shape)[...] &= _within_pixels(lines.shape[1])
    return not differing.any()


@lru_cache(maxsize=8)
def _within_pixels(line: int) -> np.ndarray:
    """uint8 [1 + 3W]: 255 where a byte and the one after it belong to one pixel, else 0."""
    place = np.arange(line)
    return np.where((place > 0) & (place % 3 != 0), 255, 0).astype(np.uint8)


def _chunk(kind: bytes, body: bytes) -> bytes:
    check = zlib_ng.crc32(body, zlib_ng.crc32(kind))
    return b"".join((struct.pack(">I", len(body)), kind, body, struct.pack(">I", check)))
