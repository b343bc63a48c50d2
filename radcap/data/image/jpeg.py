"""JPEG files without what their picture can do without."""

from __future__ import annotations

# ISO/IEC 10918-1, table B.1.
_START, _SCAN = b"\xff\xd8", 0xDA
_BARE = {0x01, *range(0xD0, 0xDA)}  # markers that no length follows
_NOTES = {*range(0xE0, 0xF0), 0xFE}  # of programs, and comments
_ORIENTING, _COLOURING = 0xE1, 0xEE  # of these: EXIF, and Adobe's, which tells the colours' kind
_EXIF, _ADOBE_BYTES = b"Exif\0\0", 14


def essential_jpeg(data: bytes) -> bytes:
    """A JPEG without comments, colour profile and the notes of programs, but with its EXIF.

    Another file comes back as it is.
    """
    if not data.startswith(_START):
        return data
    kept, start = [_START], len(_START)
    while start + 4 <= len(data) and data[start] == 0xFF:
        marker, length = data[start + 1], 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        if marker == 0xFF:  # a byte to fill
            start += 1
            continue
        if marker == _SCAN or marker in _BARE:
            break
        segment = data[start : start + length]
        is_exif = marker == _ORIENTING and segment[4:].startswith(_EXIF)
        is_adobe = marker == _COLOURING and length >= _ADOBE_BYTES
        if marker not in _NOTES or is_exif or is_adobe:
            kept.append(segment)
        start += length
    return b"".join((*kept, data[start:]))
