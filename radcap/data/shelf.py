"""Where the rows of a row group come from: the cache, the Hub by way of a local copy, or a file.

One shelf a process. Small row groups are held in memory, checked row by checked row; large ones in
temporary row files.
"""

from __future__ import annotations

import atexit
import errno
import hashlib
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from radcap.data.ahead import Cancel, side_by_side
from radcap.data.faults import DataError
from radcap.data.footer import RowGroup
from radcap.data.hub.download import Hub
from radcap.data.image.decode import IMAGE_SIZE, ImageError, decode_image
from radcap.data.one_reader import let_forks_wait, reading
from radcap.data.records import Example, Skipped, parse_row
from radcap.data.rowfile import RowFile, open_rows, write_rows
from radcap.data.shared_count import SharedCount
from radcap.data.source import Source
from radcap.files.atomic import new_file, remove_abandoned
from radcap.files.locks import lock_with_forks
from radcap.files.names import fault_in_split, shown
from radcap.host.places import temporary_folder

Row = Example | Skipped

_log = logging.getLogger(__name__)

# A row group above this many bytes is held in a file. See `is_spooled`.
SPOOLED_BYTES = 16_000_000
# More are fetched over several connections: what is needed next would wait for one.
_REQUEST_BYTES = 16_000_000
_DECODED_ROW_BYTES = IMAGE_SIZE * IMAGE_SIZE + 200
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MOST_NAME_BYTES = 180  # what else stands in a file's name takes up to 75 more


class Spool:
    """A folder for temporary files, owned by the training process and used by its workers.

    It is locked for as long as one of them lives; folders without a lock, left behind by processes
    that were killed, are removed.
    """

    def __init__(self, parent: Path | None = None) -> None:
        """Make the folder in `parent`, by default where temporary files go (TMPDIR)."""
        home = parent or temporary_folder()
        start = f"radcap-spool-{os.getuid()}-"
        for left in home.glob(f"{start}*"):
            if (lock := lock_with_forks(left)) is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(lock)
        self.folder = Path(tempfile.mkdtemp(prefix=start, dir=home))
        self._lock = lock_with_forks(self.folder)
        atexit.register(self.close)  # a start that fails later on has nobody else to do it

    def new_file(self) -> Path:
        """A name that no other process or thread uses."""
        # Not by the name of what it holds, which may be too long for this file system.
        return self.folder / f"{os.getpid()}-{secrets.token_hex(8)}.parquet"

    def close(self) -> None:
        """Remove the folder. Safe to call twice."""
        atexit.unregister(self.close)
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


@dataclass
class Cache:
    """Row files that are kept for later epochs and runs; made before workers are forked.

    Attributes:
        folder: holds a folder for each revision of the data.
        decoded: keep pixels instead of encoded pictures.
        left: bytes that may still be written, over all processes of this one's loaders.
    """

    folder: Path
    decoded: bool
    left: SharedCount = field(repr=False)

    @classmethod
    def open(cls, folder: Path, *, limit_bytes: int, decoded: bool) -> Cache:
        """Open a cache of at most `limit_bytes`; what is there counts.

        Raises:
            DataError: the folder cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            remove_abandoned(folder, "*/*.rows.*.part*")
            used = sum(file.stat().st_size for file in folder.glob("*/*.rows"))
            if not os.access(folder, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise DataError(f"data.cache={folder} cannot be used: {error.strerror}") from None
        return cls(folder, decoded, SharedCount(max(0, limit_bytes - used)))

    def path(self, source: Source, where: RowGroup, max_pixels: int) -> Path:
        """Where the rows of a row group are kept: by the data, and what was read of it."""
        form = f"decoded-{max_pixels}" if self.decoded else "encoded"
        form += source.columns.tag
        if fault := fault_in_split(source.revision):
            raise DataError(f"data.cache: the data's revision is {shown(source.revision)}: {fault}")
        parts = Path(where.file).with_suffix("").parts
        # CONFIG/SPLIT-00000-of-00001, or CONFIG/SPLIT/0000.
        name = "-".join(parts[-2:] if "-" in parts[-1] else parts[-3:])
        if fault_in_split(name) or len(name.encode()) > _MOST_NAME_BYTES:
            name = hashlib.sha256(os.fsencode(name)).hexdigest()
        return self.folder / f"{source.revision[:16]}-{form}" / f"{name}-{where.index}.rows"

    def size_of(self, where: RowGroup) -> int:
        """Bytes that the rows of a row group take, about."""
        return where.num_rows * _DECODED_ROW_BYTES if self.decoded else where.num_bytes

    def give_back(self, size: int) -> None:
        """Give back what was reserved and not written (less than nothing: take it)."""
        self.left.give(size)

    def reserve(self, size: int) -> bool:
        """Take `size` bytes of what is left; False where that is less."""
        return self.left.take(size)


@dataclass
class Loaded:
    """Rows of neighbouring row groups, and the bytes that were fetched for them."""

    rows: list[Row | RowFile.Row]
    fetched: int


class Shelf:
    """Gives the checked rows of row groups."""

    def __init__(
        self,
        source: Source,
        *,
        hub: Hub | None,
        spool: Spool,
        cache: Cache | None,
        max_pixels: int,
    ) -> None:
        """Args:
        source: the split.
        hub: where its files are, None for local files.
        spool: for temporary files.
        cache: keeps what was read; None keeps nothing.
        max_pixels: see `decode_image`; used where the cache keeps pixels.
        """
        let_forks_wait()
        self._source, self.hub, self._spool = source, hub, spool
        self._cache, self._max_pixels = cache, max_pixels
        self._keeps = cache is not None

    def load(self, groups: Sequence[int], first: int, cancel: Cancel) -> Loaded:
        """The rows of neighbouring row groups of one file, whose bytes are fetched together.

        Several threads may load at a time: they fetch side by side, and read what is fetched one
        after the other, since it is Python that reads.

        Args:
            groups: numbers of the row groups, one after the other.
            first: number of the first row wanted of the first group.
            cancel: ends it with `Dropped`.

        Raises:
            DataError: they cannot be read.
        """
        ready: dict[int, list[Row] | RowFile] = {}
        for group in groups:
            if (kept := self._from_cache(group)) is not None:
                ready[group] = self._at_hand(kept, self._source.row_groups[group])
        missing = [group for group in groups if group not in ready]
        copy, fetched = None, 0
        try:
            if missing and self.hub is not None:
                copy = self._spool.new_file()
                fetched = self._fetch(missing, copy, cancel)
            for group in missing:
                with reading:
                    cancel.check()
                    ready[group] = self._read(group, copy)
        finally:
            if copy is not None:
                copy.unlink(missing_ok=True)
                self._source.forget(copy)
        loaded = Loaded([], fetched)
        for group in groups:
            rows = ready.pop(group)
            loaded.rows += rows.rows(first) if isinstance(rows, RowFile) else rows[first:]
            first = 0
        return loaded

    def used(self, loaded: Loaded) -> None:
        """Count what was fetched for rows that are now in use."""
        if self.hub is not None:
            self.hub.count(used=loaded.fetched)

    def settle(self) -> None:
        """Wait until nothing is being read, after all loads were cancelled: a file that is left
        half read may abort the interpreter at its exit."""
        with reading:
            pass

    def _from_cache(self, group: int) -> RowFile | None:
        if self._cache is None:
            return None
        where = self._source.row_groups[group]
        rows = open_rows(self._cache.path(self._source, where, self._max_pixels))
        return rows if rows is not None and len(rows) == where.num_rows else None

    def _at_hand(self, rows: RowFile, where: RowGroup) -> list[Row] | RowFile:
        """A small group in memory: thousands of open files would be too many."""
        if is_spooled(where.num_bytes):
            return rows
        loaded = [row.load() for row in rows.rows()]
        rows.close()
        return loaded

    def _fetch(self, groups: Sequence[int], path: Path, cancel: Cancel) -> int:
        """Make a local file in which these row groups are whole; the others are holes.

        Returns:
            Bytes fetched.
        """
        hub = self.hub
        assert hub is not None
        wheres = [self._source.row_groups[group] for group in groups]
        url = wheres[0].file
        stored = self._source.files[url]
        parts = list(_parts(_joined((where.start, where.stop) for where in wheres)))
        size = sum(stop - start for start, stop in parts)
        try:
            if size > shutil.disk_usage(self._spool.folder).free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            with path.open("wb", buffering=0) as local:
                local.truncate(stored.size)
                write_at(local.fileno(), stored.size - len(stored.tail), stored.tail)

                def put(at: int, piece: bytes) -> None:
                    cancel.check()
                    write_at(local.fileno(), at, piece)

                def fetch(part: tuple[int, int]) -> None:
                    hub.fetch(url, *part, put, cancel.sleep)

                side_by_side(parts, fetch, num_threads=hub.connections.most)
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise self._no_space(error) from None
            raise
        return size

    def _read(self, group: int, path: Path | None) -> list[Row] | RowFile:
        where = self._source.row_groups[group]
        raw = self._source.read(group, path=path)
        rows = map(parse_row, raw)
        if (
            self._cache is not None
            and self._keeps
            and self._cache.reserve(self._cache.size_of(where))
        ):
            kept = self._keep(self._cache, where, rows)
            return self._read(group, path) if kept is None else self._at_hand(kept, where)
        if not is_spooled(where.num_bytes):
            return list(rows)
        import pyarrow

        try:
            stream = tempfile.TemporaryFile(dir=self._spool.folder)  # noqa: SIM115
            write_rows(stream, rows)
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise self._no_space(error) from None
            raise
        # Arrow would keep the 300 MB that reading a group of 100 MB takes for the next one.
        pyarrow.default_memory_pool().release_unused()
        return RowFile(stream)

    def _keep(self, cache: Cache, where: RowGroup, rows: Iterable[Row]) -> RowFile | None:
        """Write a row group into the cache; None, and no more of it, where the disk does not."""
        path = cache.path(self._source, where, self._max_pixels)
        if cache.decoded:
            rows = map(self._decode, rows)
        try:
            path.parent.mkdir(exist_ok=True)
            with new_file(path, is_shared=True) as stream:
                write_rows(stream, rows)
                written = stream.tell()
        except OSError as error:
            self._keeps = False
            cache.give_back(cache.size_of(where))
            _log.warning("data.cache: %s; nothing more is kept", error.strerror or error)
            return None
        cache.give_back(cache.size_of(where) - written)
        return open_rows(path)

    def _decode(self, row: Row) -> Row:
        if isinstance(row, Skipped):
            return row
        try:
            pixels = decode_image(row.image, max_pixels=self._max_pixels)
        except ImageError as error:
            return Skipped(error.reason)
        return replace(row, image=b"", pixels=pixels)

    def _no_space(self, error: OSError) -> DataError:
        return DataError(
            f"{self._spool.folder} is full ({error.strerror}): row groups in use are kept there; "
            "free some space or set TMPDIR to a larger disk"
        )


def is_spooled(num_bytes: float) -> bool:
    """Whether a row group of this size lies in a file, where rows that wait take no memory."""
    return num_bytes > SPOOLED_BYTES


def write_at(descriptor: int, at: int, data: bytes) -> None:
    """Write all of `data` at a place in a file; raises OSError where the disk does."""
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], at + written)


def _parts(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The same ranges, large ones in equal parts."""
    for start, stop in ranges:
        count = -(-(stop - start) // _REQUEST_BYTES)
        cuts = [start + (stop - start) * part // count for part in range(count + 1)]
        yield from pairwise(cuts)


def _joined(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ranges that touch or overlap, as one."""
    start = stop = None
    for low, high in sorted(ranges):
        if stop is not None and low <= stop:
            stop = max(stop, high)
            continue
        if start is not None and stop is not None:
            yield start, stop
        start, stop = low, high
    if start is not None and stop is not None:
        yield start, stop
