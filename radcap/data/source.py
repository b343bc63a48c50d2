"""A split of a data set: its row groups, and how they are read. Opens one of a local folder.

The `datasets` library does the streaming. Its shuffle buffer cannot be resumed and its take/skip
depend on the number of workers, so nothing but plain reading of one row group is asked of it; the
order is `radcap.data.order`'s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radcap.data.columns import USUAL, Columns
from radcap.data.faults import DataError
from radcap.data.footer import RowGroup, check_turns, row_groups
from radcap.data.split_files import files_of_split, looked_for, places, what_is_in, what_it_is
from radcap.errors import one_line
from radcap.files.names import fault_in_path, fault_in_split, shown
from radcap.files.reading import LFS_POINTER, check_regular, is_lfs_pointer_file, open_regular

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import IterableDataset

# Rows turned into Python objects at a time: a row group of 100 MB is not copied as a whole, and one
# of 100 rows, which is usual for pictures, is read at once.
_ROWS_PER_READ = 128


@dataclass(frozen=True)
class StoredFile:
    """A file on the Hub: its size and its last bytes, which hold the parquet footer."""

    size: int
    tail: bytes


@dataclass(frozen=True)
class Source:
    """A split that has been opened. Holds no open file: cheap to pickle or to fork with.

    `revision` is the Hub's commit, or for a folder a hash of file names, sizes and footers.
    `row_groups` stand in stored order: files by name, row groups as they lie in the file. `files`
    are those that lie on the Hub. `columns` are those that are read.
    """

    name: str
    revision: str
    row_groups: tuple[RowGroup, ...]
    files: Mapping[str, StoredFile] = field(default_factory=dict, repr=False)
    columns: Columns = USUAL
    _streams: dict[str, IterableDataset] = field(default_factory=dict, compare=False, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return Source, (self.name, self.revision, self.row_groups, self.files, self.columns)

    @property
    def num_rows(self) -> int:
        return sum(group.num_rows for group in self.row_groups)

    def row_id(self, group: int, row: int) -> str:
        """Where a row is stored, for people: 'train-00003-of-00065:12:34' is row 34 of row group
        12 of that file, both counted from 0."""
        where = self.row_groups[group]
        return f"{_stem(where.file)}:{where.index}:{row}"

    def read(
        self, group: int, start: int = 0, *, path: Path | None = None
    ) -> Iterator[dict[str, Any]]:
        """The raw rows of row group number `group`, from row `start` on, images not decoded.

        Each has the names that `radcap.data.records.parse_row` knows, whatever the files call them.

        Args:
            path: a local file to read it from; needed where the split lies on the Hub.

        Raises DataError where the file cannot be read or has other rows than its footer said.
        """
        import pyarrow as pa

        where = self.row_groups[group]
        count = 0
        try:
            tables = self._row_group_stream(where, path).iter(batch_size=_ROWS_PER_READ)
            for table in tables:
                fresh = table.slice(max(0, start - count))
                count += table.num_rows
                names = [self.columns.names[name] for name in fresh.column_names]
                yield from _to_rows(fresh.rename_columns(names))
        except (OSError, pa.ArrowException, ValueError) as error:
            raise DataError(
                f"cannot read row group {where.index} of {where.file}: {one_line(error)}"
            ) from error
        if count != where.num_rows:
            raise DataError(
                f"row group {where.index} of {where.file} has {count} rows, its footer said"
                f" {where.num_rows}: the file has changed while in use"
            )

    def forget(self, path: Path) -> None:
        """Drop what is kept of a local file that `read` was given and will not be given again."""
        self._streams.pop(str(path), None)

    def _row_group_stream(self, where: RowGroup, path: Path | None) -> IterableDataset:
        file = str(path) if path is not None else where.file
        if file not in self._streams:
            self._streams[file] = _open_stream(file, self.columns)
        from radcap.data.parquet_stream import row_group

        return row_group(self._streams[file], where.index)


@lru_cache(maxsize=4096)
def _stem(file: str) -> str:
    """Asked for twice a row: a path's parts cost as much as a caption's tokens."""
    return Path(file).stem


def check_split_names(split: str, config: str) -> None:
    """Raise DataError for names that would lead elsewhere."""
    for name, fault in ((split, fault_in_split(split)), (config, fault_in_path(config))):
        if fault is not None:
            raise DataError(f"no split or configuration is named {shown(name)}: {fault}")


def files_of_folder(folder: Path, split: str, config: str) -> list[Path]:
    """The parquet files of a split in a local folder, in stored order; none of them is opened.

    Raises:
        DataError: no such folder, or no such split in it.
    """
    if not folder.is_dir():
        raise DataError(f"data.path={folder} is not a folder{what_it_is(folder)}")
    homes = [folder / place / below for place in places(config) for below in ("", split)]
    names = {
        file.relative_to(folder).as_posix() for home in homes for file in home.glob("*.parquet")
    }
    files = [folder / name for name in files_of_split(names, split, config)]
    if not files:
        raise DataError(
            f"no split {split!r} in {folder}: looked for {looked_for(split, config)};"
            f" {what_is_in(folder, split)}"
        )
    return files


def open_folder(folder: Path, split: str, config: str, columns: Columns = USUAL) -> Source:
    """Open one split of a local folder; see `radcap.data.open.open_source`.

    Raises:
        DataError: nothing there, or not of the data set's form.
    """
    check_split_names(split, config)
    files = files_of_folder(folder, split, config)
    for file in files:
        try:
            check_regular(file)
        except OSError as error:
            raise DataError(f"{file} is not a parquet file: {error.strerror}") from None
        if is_lfs_pointer_file(file):
            raise DataError(f"{file} is not a parquet file: {LFS_POINTER}")
    paths = [str(file.resolve()) for file in files]
    footers = [_read_footer(str(file), partial(file.open, "rb")) for file in files]
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {file.stat().st_size} ".encode())
        digest.update(_footer_bytes(file))
    return make_source(str(folder), digest.hexdigest()[:40], paths, footers, columns=columns)


def _footer_bytes(file: Path) -> bytes:
    """The serialised footer: sizes, offsets and statistics of every column of every row group.
    A parquet file ends with it, its length (4 bytes, little endian) and 'PAR1'."""
    with file.open("rb") as stream:
        stream.seek(-8, 2)
        length = int.from_bytes(stream.read(4), "little")
        stream.seek(-8 - length, 2)
        return stream.read(length)


def _read_footer(name: str, open_file: Callable[[], Any]) -> pq.FileMetaData:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_file() as stream:
            return pq.read_metadata(stream)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{name} is not a whole parquet file: {one_line(error)}") from error


def make_source(
    name: str,
    revision: str,
    files: list[str],
    footers: list[pq.FileMetaData],
    on_hub: Mapping[str, StoredFile] | None = None,
    columns: Columns = USUAL,
) -> Source:
    """A source from its files' footers.

    Args:
        name, revision: see `Source`.
        files: paths or addresses, in stored order.
        footers: of each file.
        on_hub: what is known of those that lie on the Hub.
        columns: those that hold pictures and captions.

    Raises:
        DataError: the files are not of the data set's form.
    """
    import pyarrow as pa

    groups: list[RowGroup] = []
    for file, footer in zip(files, footers, strict=True):
        size = on_hub[file].size if on_hub else Path(file).stat().st_size
        try:
            columns.check(file, footer.schema.to_arrow_schema())
            groups += row_groups(file, footer, size, columns)
            if columns.caption is None:
                check_turns(file, footer)
        except (pa.ArrowException, ValueError) as error:  # a name that is not UTF-8
            raise DataError(f"{file} is not a whole parquet file: {one_line(error)}") from error
    if not any(group.num_rows for group in groups):
        raise DataError(f"the files of {name} hold no rows")
    return Source(name, revision, tuple(groups), on_hub or {}, columns)


def _open_stream(file: str, columns: Columns) -> IterableDataset:
    """One file as a stream whose shards are its row groups, with the columns that are read.

    Its form is its own: a column that is all null in one file may hold strings in the next
    (metadata's correct_text does), or be missing. Without `features`, `datasets` would read the
    form of all columns, and its own notes in the file, and refuse kinds that it does not know.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from radcap.data.parquet_stream import open_stream

    with open_regular(file) as stored:
        whole = pq.read_schema(stored).remove_metadata()
    schema = pa.schema(columns.fields(whole))
    return open_stream(file, schema, rows_per_read=_ROWS_PER_READ)


def _to_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Python rows; an empty dict for a row whose text is not UTF-8."""
    try:
        return table.to_pylist()
    except UnicodeDecodeError:
        if table.num_rows == 1:
            return [{}]
        return [row for i in range(table.num_rows) for row in _to_rows(table.slice(i, 1))]
