"""The embedded look-alike of RadImageNet-VQA: synthetic, not RadImageNet.

Same configs, file names, columns, types, roles and row order as the real data set, so that the
code that reads the real one reads this one. Every row's chance comes from (seed, config, split,
row number) alone: the files do not depend on how many processes write them.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from radcap.data.phantom import rows as phantom_rows
from radcap.data.phantom.grammar import draw_caption, draw_labels, floor_nats
from radcap.data.phantom.images import draw, png_bytes
from radcap.files.atomic import new_folder
from radcap.files.locks import lock_file
from radcap.host.console import say
from radcap.host.cores import num_cores

if TYPE_CHECKING:
    from transformers import BertTokenizer

NOTICE = "synthetic, not RadImageNet"

# Part of the folder's name: raise it whenever the written rows change.
FORMAT_VERSION = 2

ROW_GROUP_SIZE = 100
ROWS_PER_FILE = 500
# A process takes as long to start as to draw a hundred: fewer are drawn by those that are there.
_ROWS_WORTH_A_PROCESS = 500
_INSTRUCT_ROWS = {"train": 40, "val": 20}
_BENCHMARK_IMAGES = 10
_FLOOR_FILE = "floor.json"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Floor:
    """The lowest loss that can be expected on a split: what its labels do not fix is chance.

    Attributes:
        rows: captions in the split.
        tokens: target tokens in the split: BERT word pieces and one [SEP] a caption.
        nats_per_caption: mean conditional entropy of a caption given its labels.
        nats_per_token: the same total over target tokens; compare with a mean token loss.
    """

    rows: int
    tokens: int
    nats_per_caption: float
    nats_per_token: float


@dataclass(frozen=True)
class _Shard:
    """One parquet file to write: rows [start, stop) of a split of `rows` rows."""

    config: str
    split: str
    rows: int
    start: int
    stop: int
    name: str

    def path(self, folder: Path) -> Path:
        return folder / self.config / self.name


def _shards(config: str, split: str, rows: int, at_least: int) -> list[_Shard]:
    """Cut a split into files of nearly equal size, named as on the Hub."""
    count = min(rows, max(at_least, -(-rows // ROWS_PER_FILE)))
    edges = [rows * index // count for index in range(count + 1)]
    return [
        _Shard(config, split, rows, start, stop, f"{split}-{index:05d}-of-{count:05d}.parquet")
        for index, (start, stop) in enumerate(pairwise(edges))
    ]


def write_phantom(
    folder: Path,
    *,
    train_rows: int,
    val_rows: int,
    seed: int = 0,
    row_group_size: int = ROW_GROUP_SIZE,
    processes: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Write the phantom data set into `folder`, which is created.

    Writes `{alignment,instruct}/{train,val}-NNNNN-of-NNNNN.parquet`, `benchmark/test-*.parquet`,
    `README.md` (a dataset card that `load_dataset(folder, "alignment")` reads) and `floor.json`.

    Args:
        folder: where to write; files of an earlier set there would be mixed with these.
        train_rows: rows of alignment/train.
        val_rows: rows of alignment/val, drawn independently from the same distribution.
        seed: not negative; another seed draws other labels, captions and pictures.
        row_group_size: rows of a parquet row group.
        processes: how many write at once (default: one for each core at hand, and of few rows
            this one alone). With more than one the caller's main module must be importable (`if
            __name__ == "__main__":`).
        progress: called with (rows written, rows in all) whenever a file is done.

    Raises:
        ValueError: a size is below one, or the seed is negative.
    """
    if min(train_rows, val_rows, row_group_size) < 1 or seed < 0:
        raise ValueError(
            "a phantom data set needs at least one row a split and a row group, and a seed of 0 "
            f"or more: train_rows={train_rows} val_rows={val_rows} row_group_size={row_group_size} "
            f"seed={seed}"
        )
    shards = [
        *_shards("alignment", "train", train_rows, at_least=2),
        *_shards("alignment", "val", val_rows, at_least=2),
        *(s for split, n in _INSTRUCT_ROWS.items() for s in _shards("instruct", split, n, 1)),
        *_shards("benchmark", "test", _BENCHMARK_IMAGES, 1),
    ]
    for config in {shard.config for shard in shards}:
        (folder / config).mkdir(parents=True, exist_ok=True)

    captions: dict[str, Counter[str]] = {"train": Counter(), "val": Counter()}
    total, done = sum(shard.stop - shard.start for shard in shards), 0
    for shard, written in _write_all(shards, folder, seed, row_group_size, processes):
        if shard.config == "alignment":
            captions[shard.split] += written
        done += shard.stop - shard.start
        if progress is not None:
            progress(done, total)

    # Late: it loads torch, which neither the drawing processes nor a set already written need.
    from radcap.data.collate import load_tokenizer

    tokenizer = load_tokenizer()
    floors = {
        split: asdict(_floor(seed, split, counts, tokenizer)) for split, counts in captions.items()
    }
    text = json.dumps({"notice": NOTICE, **floors}, indent=2) + "\n"
    (folder / _FLOOR_FILE).write_text(text, encoding="utf-8")
    (folder / "README.md").write_text(phantom_rows.dataset_card(NOTICE), encoding="utf-8")


def phantom_folder(cache_root: Path, *, train_rows: int, val_rows: int, seed: int = 0) -> Path:
    """Where `ensure_phantom` keeps a set of this size; see `is_drawn`."""
    return cache_root / f"phantom-v{FORMAT_VERSION}-{train_rows}-{val_rows}-seed{seed}"


def is_drawn(folder: Path) -> bool:
    """Whether a folder holds a whole phantom data set."""
    return (folder / _FLOOR_FILE).is_file()


def ensure_phantom(
    cache_root: Path,
    *,
    train_rows: int,
    val_rows: int,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """The folder of this phantom data set inside `cache_root`; written first if it is not there.

    The set is written beside and renamed when whole; where folders cannot be renamed its files are,
    that of the floors last. Of several processes that ask at once, one writes and the others wait.

    Raises:
        ValueError: as `write_phantom`.
    """
    folder = phantom_folder(cache_root, train_rows=train_rows, val_rows=val_rows, seed=seed)
    if is_drawn(folder):
        return folder
    cache_root.mkdir(parents=True, exist_ok=True)
    with lock_file(cache_root / f".{folder.name}.lock", on_wait=say):
        if not is_drawn(folder):
            # We hold the lock: whoever left half a set here is gone.
            shutil.rmtree(folder, ignore_errors=True)
            with new_folder(folder, last=_FLOOR_FILE) as partial:
                write_phantom(
                    partial, train_rows=train_rows, val_rows=val_rows, seed=seed, progress=progress
                )
    return folder


def sample_pictures(count: int) -> list[bytes]:
    """Pictures as the data set holds them, PNG RGB 224 x 224, always the same, to time decoding."""
    rng = np.random.default_rng(0)
    return [png_bytes(draw(labels, rng)) for labels in draw_labels(count, rng)]


def read_floor(folder: Path) -> dict[str, Floor]:
    """The floors of alignment's splits ("train", "val") as written beside the data.

    Raises:
        FileNotFoundError: the folder is no phantom data set.
    """
    written = json.loads((folder / _FLOOR_FILE).read_text(encoding="utf-8"))
    return {split: Floor(**written[split]) for split in ("train", "val")}


def _floor(seed: int, split: str, captions: Counter[str], tokenizer: BertTokenizer) -> Floor:
    rows = captions.total()
    nats = floor_nats(draw_labels(rows, _generator(seed, "alignment", split)))
    tokens = _num_target_tokens(captions, tokenizer)
    return Floor(rows, tokens, nats / rows, nats / tokens)


def _num_target_tokens(captions: Counter[str], tokenizer: BertTokenizer) -> int:
    """BERT word pieces of all captions and one [SEP] each."""
    pieces = tokenizer(list(captions), add_special_tokens=False)["input_ids"]
    return sum(count * (len(ids) + 1) for ids, count in zip(pieces, captions.values(), strict=True))


def _generator(seed: int, config: str, split: str, *row: int) -> np.random.Generator:
    """The random state of a row, or, without a row, of the split's labels."""
    return np.random.default_rng([seed, zlib.crc32(f"{config}/{split}".encode()), *row])


def _write_all(
    shards: list[_Shard], folder: Path, seed: int, row_group_size: int, processes: int | None
) -> Iterator[tuple[_Shard, Counter[str]]]:
    """Write every file and yield it with the captions in it, in the order of completion."""
    if processes is None:
        rows = sum(shard.stop - shard.start for shard in shards)
        processes = min(num_cores(), max(1, rows // _ROWS_WORTH_A_PROCESS))
    processes = min(processes, len(shards))
    pool: ProcessPoolExecutor | None = None
    if processes > 1:
        # Spawned, not forked: the caller may already run threads (tokenizers, torch).
        with suppress(OSError):  # its locks lie in /dev/shm, which may be missing or read-only
            pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"))
    if pool is None:
        for shard in shards:
            yield shard, _write_shard(shard, folder, seed, row_group_size)
        return
    with pool:
        running = {
            pool.submit(_write_shard, shard, folder, seed, row_group_size): shard
            for shard in shards
        }
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _write_shard(shard: _Shard, folder: Path, seed: int, row_group_size: int) -> Counter[str]:
    """Draw and write one file; the captions in it, counted."""
    schema = phantom_rows.SCHEMAS[shard.config]
    schema = schema.with_metadata({**(schema.metadata or {}), b"notice": NOTICE.encode()})
    labels = draw_labels(shard.rows, _generator(seed, shard.config, shard.split))
    captions: Counter[str] = Counter()
    with pq.ParquetWriter(shard.path(folder), schema) as writer:
        for start in range(shard.start, shard.stop, row_group_size):
            rows: list[dict[str, Any]] = []
            for index in range(start, min(start + row_group_size, shard.stop)):
                rng = _generator(seed, shard.config, shard.split, index)
                caption = draw_caption(labels[index], rng)
                captions[caption] += 1
                image = {
                    "bytes": png_bytes(draw(labels[index], rng)),
                    "path": f"{shard.split}-{index:06d}.png",
                }
                rows += phantom_rows.rows(shard.config, image, labels[index], caption, rng)
            writer.write_table(pa.Table.from_pylist(rows, schema), row_group_size=len(rows))
    return captions
