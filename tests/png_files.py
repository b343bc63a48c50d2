"""PNG files put together chunk by chunk: https://www.w3.org/TR/png-3/."""

from __future__ import annotations

import struct
import zlib


def chunk(kind: bytes, body: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + check


def png_file(
    size: tuple[int, int], *chunks: bytes, colour: int, bits: int = 8, interlaced: bool = False
) -> bytes:
    """A file of these chunks, between its header and its end.

    Args:
        size: width and height.
        colour: kind of pixels, by PNG's number.
        bits: of a channel.
    """
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, int(interlaced)))
    return b"".join((b"\x89PNG\r\n\x1a\n", header, *chunks, chunk(b"IEND", b"")))
