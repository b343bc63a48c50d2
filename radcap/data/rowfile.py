"""The checked rows of one row group in a file, read one by one.

A row group of 100 MB as objects of Python, or an open parquet reader over it, would hold hundreds
of megabytes in every lane. In a file, a row costs nothing until it is asked for.

    magic | records | offsets: int64 [rows + 1] | rows: uint32 | magic
    record: CRC-32 of the rest: uint32 | length of the head: uint32 | head: JSON | payload

The payload is the encoded picture, or its decoded pixels as uint8 ([224, 224] where all three
colours are equal, else [3, 224, 224]). Nothing in it is code. A file without its end is no row
file.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from radcap.data.faults import DataError
from radcap.data.image.decode import IMAGE_SIZE
from radcap.data.labels import Labels
from radcap.data.records import Example, Skipped
from radcap.files.reading import open_regular

_MAGIC = b"radcaprows2\n"
_PREFIX = struct.Struct("<II")
_TRAILER = struct.Struct(f"<I{len(_MAGIC)}s")


class RowFile:
    """An open row file. Rows are `RowFile.Row`s until `load` reads them."""

    @dataclass(frozen=True)
    class Row:
        """A row that is still in its file."""

        file: RowFile
        number: int

        def load(self) -> Example | Skipped:
            """Read it."""
            return self.file.load(self.number)

    def __init__(self, stream: IO[bytes]) -> None:
        """Open a whole file; raises ValueError where it is not one."""
        self._stream = stream
        descriptor = stream.fileno()
        size = os.fstat(descriptor).st_size
        trailer = os.pread(descriptor, _TRAILER.size, max(0, size - _TRAILER.size))
        if len(trailer) < _TRAILER.size or os.pread(descriptor, len(_MAGIC), 0) != _MAGIC:
            raise ValueError("not a row file")
        rows, magic = _TRAILER.unpack(trailer)
        length = 8 * (rows + 1)
        start = size - _TRAILER.size - length
        if magic != _MAGIC or start < len(_MAGIC):
            raise ValueError("not a whole row file")
        self._offsets = np.frombuffer(os.pread(descriptor, length, start), dtype=np.int64)
        is_whole = self._offsets[0] == len(_MAGIC) and self._offsets[-1] == start
        if not is_whole or (self._offsets[1:] < self._offsets[:-1]).any():
            raise ValueError("a damaged row file")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def rows(self, first: int = 0) -> Iterator[Row]:
        """The rows from number `first` on, not read yet."""
        return (self.Row(self, number) for number in range(first, len(self)))

    def load(self, number: int) -> Example | Skipped:
        """Read a row.

        Raises:
            DataError: it is not what was written. The file is removed where it has a name.
        """
        start, stop = (int(offset) for offset in self._offsets[number : number + 2])
        record = os.pread(self._stream.fileno(), stop - start, start)
        if len(record) != stop - start or len(record) < _PREFIX.size:
            raise self._damaged()
        checksum, length = _PREFIX.unpack_from(record)
        if zlib.crc32(record[4:]) != checksum:
            raise self._damaged()
        try:
            return _row(record[_PREFIX.size :], length)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise self._damaged() from None  # of another program, or another version of this one

    def _damaged(self) -> DataError:
        name = self._stream.name
        if isinstance(name, str):
            Path(name).unlink(missing_ok=True)
        return DataError(
            f"{name} is damaged, and removed; the same command reads its rows anew (should this "
            "happen again, the disk is at fault)"
        )

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def _row(body: bytes, length: int) -> Example | Skipped:
    """A row of its head, of so many bytes, and its payload."""
    head, payload = json.loads(body[:length]), body[length:]
    if "skipped" in head:
        return Skipped(head["skipped"])
    labels, caption = Labels(*head["labels"]), head["caption"]
    if type(caption) is not str:
        raise TypeError("the caption is no text")
    if not head["decoded"]:
        return Example(payload, caption, labels)
    pixels = np.frombuffer(payload, dtype=np.uint8).reshape(-1, IMAGE_SIZE, IMAGE_SIZE)
    return Example(b"", caption, labels, pixels)


def write_rows(stream: IO[bytes], rows: Iterable[Example | Skipped]) -> None:
    """Write a row file to an empty stream. Pictures with pixels are written as these."""
    stream.write(_MAGIC)
    offsets = [len(_MAGIC)]
    for row in rows:
        payload: bytes | memoryview = b""
        if isinstance(row, Skipped):
            head: dict[str, Any] = {"skipped": row.reason}
        else:
            decoded = row.pixels is not None
            head = {"caption": row.caption, "labels": astuple(row.labels), "decoded": decoded}
            payload = row.image if row.pixels is None else _payload(row.pixels)
        text = json.dumps(head).encode()
        body = b"".join((_PREFIX.pack(0, len(text))[4:], text, payload))
        stream.write(zlib.crc32(body).to_bytes(4, "little") + body)
        offsets.append(offsets[-1] + 4 + len(body))
    stream.write(np.asarray(offsets, dtype=np.int64).tobytes())
    stream.write(_TRAILER.pack(len(offsets) - 1, _MAGIC))
    stream.flush()


def _payload(pixels: np.ndarray) -> bytes:
    grey = (pixels == pixels[:1]).all()
    return (pixels[0] if grey else pixels).tobytes()


def open_rows(path: Path) -> RowFile | None:
    """Open a kept row file; None where there is none, or not a whole one."""
    try:
        stream = open_regular(path)
    except OSError:  # not there, or not to be had: it is read from where it came
        return None
    try:
        return RowFile(stream)
    except ValueError:
        stream.close()
        return None
