"""Opens a split of a data set on the Hub: its commit, its files, their footers."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from radcap.data.columns import USUAL, Columns
from radcap.data.faults import DataError
from radcap.data.hub.download import Hub
from radcap.data.hub.kept_footers import KeptFooters
from radcap.data.hub.repository import RemoteFile, Repository, list_repository
from radcap.data.source import Source, StoredFile, make_source
from radcap.data.split_files import files_of_split, looked_for, what_is_there
from radcap.errors import one_line
from radcap.files.reading import LFS_POINTER, is_lfs_pointer

if TYPE_CHECKING:
    import pyarrow.parquet as pq

# Side by side: each waits for a round trip.
_FOOTER_READERS = 16
# Asked for at first: the footers of the data set's files are a 4,100th of them.
_LEAST_TAIL = 1 << 16
_TAIL_SHARE = 1 / 2048
# A file of 1,000 row groups has a footer of about 3 MB.
_MOST_FOOTER_BYTES = 16_000_000
_MOST_FOOTERS_BYTES = 256_000_000
_CONVERTED = "; of many data sets data.revision=refs/convert/parquet has them"
_END = 8  # a parquet file ends with the footer's length (4 bytes, little endian) and 'PAR1'


def open_hub(
    hub: Hub,
    split: str,
    config: str,
    revision: str | None,
    footers: Path | None = None,
    columns: Columns = USUAL,
) -> Source:
    """Open one split and list its row groups; reads listings and footers and nothing else.

    Args:
        hub: the data set. HF_ENDPOINT and HF_TOKEN are respected.
        split, config: see `radcap.data.open.open_source`.
        revision: branch, tag or commit; None: the newest. The answer is pinned to its commit.
        footers: a folder that keeps footers for the next time; None keeps nothing.
        columns: those that hold pictures and captions.

    Raises:
        DataError: not there, not allowed, no network, or not of the data set's form.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    repository = list_repository(hub, revision)
    files = repository.files(split_files(repository, split, config))
    left = _Allowance(_MOST_FOOTERS_BYTES)
    kept = KeptFooters(footers, repository) if footers is not None else None

    def read(file: RemoteFile) -> tuple[pq.FileMetaData, StoredFile]:
        known = _kept_tail(file, kept, left)
        stored = known or _fetch_tail(hub, file, left)
        try:
            footer = pq.read_metadata(pa.BufferReader(stored.tail))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file.url} is not a whole parquet file: {one_line(error)}") from error
        if kept is not None and known is None:
            kept.put(file, stored.tail)
        return footer, stored

    with ThreadPoolExecutor(_FOOTER_READERS) as pool:
        answers = list(pool.map(read, files))
    if kept is not None:
        kept.forget_old()
    urls = [file.url for file in files]
    stored = {url: stored for url, (_, stored) in zip(urls, answers, strict=True)}
    found = [footer for footer, _ in answers]
    return make_source(hub.hub_id, repository.commit, urls, found, stored, columns)


def split_files(repository: Repository, split: str, config: str) -> list[str]:
    """The parquet files of a split, in stored order."""
    files = files_of_split(repository.listed, split, config)
    if not files:
        found = [name for name in repository.listed if name.endswith(".parquet")]
        hint = "" if found else _CONVERTED
        raise DataError(
            f"no split {split!r} in data set {repository.hub.hub_id}: looked for "
            f"{looked_for(split, config)}; {what_is_there(found, split)}{hint}"
        )
    return files


class _Allowance:
    """Bytes that may still be held, over all threads."""

    def __init__(self, left: int) -> None:
        self._left, self._lock = left, Lock()

    def take(self, size: int) -> bool:
        """Take some; False where fewer are left."""
        with self._lock:
            self._left -= size
            return self._left >= 0


def _kept_tail(file: RemoteFile, kept: KeptFooters | None, left: _Allowance) -> StoredFile | None:
    """From the last start; the Hub has to list the same size then."""
    if kept is None or file.size is None:
        return None
    tail = kept.get(file, _MOST_FOOTER_BYTES)
    return StoredFile(file.size, tail) if tail is not None and left.take(len(tail)) else None


def _fetch_tail(hub: Hub, file: RemoteFile, left: _Allowance) -> StoredFile:
    """The end of a file from its footer on."""
    guess = max(_LEAST_TAIL, min(int((file.size or 0) * _TAIL_SHARE), _MOST_FOOTER_BYTES))
    tail, size = hub.fetch_tail(file.url, guess)
    if file.size not in (None, size):
        raise DataError(f"{file.url} has {size:,} bytes; the Hub lists it with {file.size:,}")
    if size == len(tail) and is_lfs_pointer(tail):  # stored as a text, by mistake
        raise DataError(f"{file.url} is not a parquet file: {LFS_POINTER}")
    length = int.from_bytes(tail[-_END:-4], "little") + _END
    if tail[-4:] != b"PAR1" or length > size:
        raise DataError(f"{file.url} is not a whole parquet file: it does not end like one")
    if length > _MOST_FOOTER_BYTES:
        raise DataError(
            f"{file.url} states a footer of {length:,} bytes; up to {_MOST_FOOTER_BYTES:,} are read"
        )
    if not left.take(length):
        raise DataError(
            f"the footers of {hub.hub_id} hold more than {_MOST_FOOTERS_BYTES:,} bytes, the most "
            "that is kept of them"
        )
    if length > len(tail):
        pieces = io.BytesIO()
        hub.fetch(file.url, size - length, size - len(tail), lambda _, piece: pieces.write(piece))
        tail = pieces.getvalue() + tail
    return StoredFile(size, tail[-length:])
