"""One parquet file as a stream of the `datasets` library, whose shards are its row groups.

Imported late: the library takes seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import datasets
import pyarrow as pa
from datasets.data_files import DataFilesDict, DataFilesList
from datasets.packaged_modules.parquet.parquet import Parquet

from radcap.files.reading import open_regular

_SPLIT = "rows"
_config_lock = threading.Lock()
# A folder that cannot be made: the builder would make and lock one, though a stream stores nothing,
# but for one at an address.
_NO_CACHE = "file:///dev/null/datasets"


class AnyPath(Parquet):
    """The library's builder for parquet files, for one file of any name.

    `datasets.load_dataset` takes brackets in a name for a pattern. The builder takes names as they
    are, but for `::`, which to the library parts a file from the archive that it lies in.
    """

    def _generate_tables(
        self, files: Sequence[str], row_groups_list: Sequence[Any]
    ) -> Iterator[tuple[Any, pa.Table]]:
        for file, groups in zip(files, row_groups_list, strict=True):
            with _without_hops(file) as name:
                yield from super()._generate_tables([name], [groups])

    def _generate_more_gen_kwargs(
        self, files: Sequence[str], row_groups_list: Sequence[Any]
    ) -> Iterator[dict[str, Any]]:
        for file, groups in zip(files, row_groups_list, strict=True):
            with _without_hops(file) as name:
                for more in super()._generate_more_gen_kwargs([name], [groups]):
                    yield {**more, "files": [file] * len(more["files"])}


def open_stream(file: str, schema: pa.Schema, *, rows_per_read: int) -> datasets.IterableDataset:
    """A local file as a stream of Arrow tables, of which each row group is a shard.

    Args:
        file: an absolute path.
        schema: the columns that are read.
        rows_per_read: most rows of a table.
    """
    builder = AnyPath(
        cache_dir=_NO_CACHE,
        data_files=DataFilesDict({_SPLIT: DataFilesList([file], [()])}),
        columns=schema.names,
        features=datasets.Features.from_arrow_schema(schema),
        batch_size=rows_per_read,
    )
    with _own_memory():
        return builder.as_streaming_dataset(_SPLIT).reshard().with_format("arrow")


def row_group(stream: datasets.IterableDataset, index: int) -> datasets.IterableDataset:
    """One row group of what `open_stream` gave.

    Args:
        stream: of the file.
        index: in the file.
    """
    with _own_memory():
        return stream.shard(num_shards=stream.num_shards, index=index, contiguous=True)


@contextmanager
def _own_memory() -> Iterator[None]:
    """Let a stream keep the number of its epoch to itself, in a block that makes one.

    For loaders of torch it would lie in /dev/shm, which a container may lack or hold read-only.
    """
    with _config_lock:
        before, datasets.config.TORCH_AVAILABLE = datasets.config.TORCH_AVAILABLE, False
        try:
            yield
        finally:
            datasets.config.TORCH_AVAILABLE = before


@contextmanager
def _without_hops(file: str) -> Iterator[str]:
    """Another name of a file, for the duration of a block, if it has one with `::` in it."""
    if "::" not in file:
        yield file
        return
    with open_regular(file) as stored:
        yield f"/dev/fd/{stored.fileno()}"
