"""What a parquet file's footer says of its row groups, as far as that can be true."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from radcap.data.columns import Columns
from radcap.data.faults import DataError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

# A caption is a question and its answer, perhaps after words of a system.
_MOST_TURNS = 3
_MOST_ROWS_PER_BYTE = 8
# A row group of more rows than bytes holds no pictures: its rows take memory and time, and nothing
# on the disk.
_MOST_EMPTY_ROWS = 10_000
# Pictures are compressed already. More than this, of a row group of more than so many bytes, is a
# file that grows without bound when it is read.
_MOST_GROWTH = 100
_LARGE_BYTES = 256_000_000


@dataclass(frozen=True)
class RowGroup:
    """One row group of a split.

    file: a path, or an address on the Hub.
    index: number within the file.
    num_bytes: size without parquet's compression.
    start, stop: range of bytes of the columns in use within the file, half-open.
    """

    file: str
    index: int
    num_rows: int
    num_bytes: int
    start: int
    stop: int


def row_groups(file: str, footer: pq.FileMetaData, size: int, columns: Columns) -> list[RowGroup]:
    """The row groups of a file.

    Args:
        file: its path or address.
        footer: of the file.
        size: of the file, in bytes.
        columns: those in use.

    Raises:
        DataError: the file cannot hold what its footer says.
    """
    groups = []
    for index in range(footer.num_row_groups):
        group = _row_group(file, index, footer.row_group(index), columns)
        if not _is_possible(group, size):
            raise DataError(
                f"{file} is not a whole parquet file: row group {index} is said to have "
                f"{group.num_rows:,} rows in the bytes {group.start:,} to {group.stop:,} of "
                f"{size:,}"
            )
        unpacked = _unpacked_bytes(footer.row_group(index), columns)
        if unpacked > max(_LARGE_BYTES, _MOST_GROWTH * (group.stop - group.start)):
            raise DataError(
                f"{file}: row group {index} grows from {group.stop - group.start:,} bytes to "
                f"{unpacked:,} when it is read; at most {_MOST_GROWTH} times as many are accepted"
            )
        groups.append(group)
    return groups


def check_turns(file: str, footer: pq.FileMetaData) -> None:
    """Refuse a file whose rows hold several questions each: none of their answers is a caption.

    Args:
        file: its path or address.
        footer: of the file; it counts the turns of all conversations.

    Raises:
        DataError: it is such a file.
    """
    groups = [footer.row_group(index) for index in range(footer.num_row_groups)]
    turns = max(
        (
            sum(group.column(index).num_values for group in groups)
            for index in range(footer.num_columns)
            if footer.schema.column(index).path.startswith("conversations.")
        ),
        default=0,
    )
    if turns > _MOST_TURNS * footer.num_rows:
        raise DataError(
            f"{file} holds questions and their answers, {turns / max(footer.num_rows, 1):.0f} "
            "turns a row, which radcap can neither train on nor score yet; data.config=alignment "
            "has the captions of RadImageNet-VQA"
        )


def _is_possible(group: RowGroup, size: int) -> bool:
    """Whether a file of `size` bytes can hold a row group: a footer may state anything."""
    if not 0 <= group.start <= group.stop <= size or group.num_bytes < 0:
        return False
    most_rows = min(
        _MOST_ROWS_PER_BYTE * (group.stop - group.start), _MOST_EMPTY_ROWS + group.num_bytes
    )
    return 0 <= group.num_rows <= most_rows


def _row_group(file: str, index: int, group: Any, columns: Columns) -> RowGroup:
    start, stop = None, 0
    for column in _used_columns(group, columns):
        pages = [column.dictionary_page_offset, column.data_page_offset]
        first = min(offset for offset in pages if offset is not None)
        start = first if start is None else min(start, first)
        stop = max(stop, first + column.total_compressed_size)
    return RowGroup(file, index, group.num_rows, group.total_byte_size, start or 0, stop)


def _unpacked_bytes(group: Any, columns: Columns) -> int:
    """Bytes of the columns in use without parquet's compression."""
    return sum(column.total_uncompressed_size for column in _used_columns(group, columns))


def _used_columns(group: Any, columns: Columns) -> Iterator[Any]:
    """The stored columns; a struct has one for each of its fields, after a dot."""
    starts = tuple(f"{name}." for name in columns.names)
    for column in map(group.column, range(group.num_columns)):
        # A plain name may hold dots itself.
        if f"{column.path_in_schema}.".startswith(starts):
            yield column
