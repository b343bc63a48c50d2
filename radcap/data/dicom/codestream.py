"""The size that compressed picture data states of itself: a DICOM header may state another."""

from __future__ import annotations

import struct
from collections.abc import Iterator

# JPEG 2000 (ISO/IEC 15444-1, A.4.1 and A.5.1) begins with the markers SOC and SIZ.
_J2K_START = b"\xff\x4f\xff\x51"
_J2K_SIZE = struct.Struct(">4s2H4I")
_JPEG_START = b"\xff\xd8"
# ISO/IEC 10918-1, B.1.1.3: SOF0 to SOF15 but DHT, JPG and DAC; JPEG-LS: SOF55.
_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7}
_JPEG_BARE = {0x01, *range(0xD0, 0xD9)}  # markers that no length follows
_JPEG_SCAN = 0xDA
_JPEG_SEGMENT = struct.Struct(">BBH")
_JPEG_SIZE = struct.Struct(">BHH")


def stated_sizes(data: bytes) -> Iterator[tuple[int, int]]:
    """Width and height, in pixels, of the JPEG, JPEG-LS or JPEG 2000 pictures in some bytes.

    Nothing for data of another kind. A JPEG that leaves its height open states 0.
    """
    if data.startswith(_JPEG_START):
        yield from _jpeg_sizes(data)
        return
    start = data.find(_J2K_START)
    while start >= 0 and start + _J2K_SIZE.size <= len(data):
        _, _, _, right, bottom, left, top = _J2K_SIZE.unpack_from(data, start)
        yield right - left, bottom - top
        start = data.find(_J2K_START, start + 1)


def _jpeg_sizes(data: bytes) -> Iterator[tuple[int, int]]:
    """Of the frame headers before the first scan."""
    start = len(_JPEG_START)
    while start + _JPEG_SEGMENT.size + _JPEG_SIZE.size <= len(data):
        prefix, marker, length = _JPEG_SEGMENT.unpack_from(data, start)
        if prefix != 0xFF or marker == 0xFF:  # to the next marker, as decoders go
            start += 1
            continue
        if marker in _JPEG_BARE:
            start += 2
            continue
        if marker == _JPEG_SCAN:
            return
        if marker in _JPEG_FRAMES:
            _, height, width = _JPEG_SIZE.unpack_from(data, start + _JPEG_SEGMENT.size)
            yield width, height
        start += 2 + length
