"""A loader of many workers on two cores, at the settings of epoch1.

A worker waits instead of decoding, so that an image takes its usual time whoever has the cores.
Seconds are stretched and bytes are scaled, of costs, latency, bandwidth, windows and requests
alike, so that no core is ever the limit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from radcap.config.compose import compose
from radcap.data import parts, plan, shelf
from radcap.data.collate import load_tokenizer
from radcap.data.hub import split as hub_module
from radcap.data.hub.download import Hub
from radcap.data.loader import Loader
from radcap.data.order import Order, wide_window
from radcap.data.records import parse_row
from radcap.data.shelf import Row
from radcap.data.source import Source
from radcap.training.feeding import share_of_loader

STRETCH = 4.0  # a second here stands for a quarter of one
SCALE = 20.0  # a byte here stands for twenty
# Processor time of an image, and what of that its row takes: `bench.py pipeline`.
IMAGE_S, ROW_S = 424e-6, 52e-6
# Row groups as they are stored: their bytes, and the lanes that suit them.
GROUPS = {"100 rows": (5_000_000, 64), "100 MB": (100_000_000, 8)}
PICTURE_BYTES, FILES, FILE_BYTES = 50_000, 65, 585_000_000
_LEAST_SLEEP_S = 0.002


def real_s(seconds: float) -> float:
    """Seconds that are stood for."""
    return seconds / STRETCH


@contextmanager
def scaled(row_s: float = 0.0) -> Iterator[None]:
    """Let requests be as much smaller as the bytes are, and decoding be a wait.

    Args:
        row_s: seconds of an image that its row takes, a wait in itself; 0: part of decoding.
    """
    places = (
        (plan, "_TOGETHER_BYTES", int(plan._TOGETHER_BYTES / SCALE)),
        (plan, "_TOGETHER_AT_FIRST_BYTES", int(plan._TOGETHER_AT_FIRST_BYTES / SCALE)),
        (shelf, "SPOOLED_BYTES", int(shelf.SPOOLED_BYTES / SCALE)),
        (shelf, "_REQUEST_BYTES", int(shelf._REQUEST_BYTES / SCALE)),
        (hub_module, "_TAIL_SHARE", hub_module._TAIL_SHARE * SCALE),
        (parts, "decode_image", _Decoder(IMAGE_S - row_s)),
        (shelf, "parse_row", _Parser(row_s) if row_s else shelf.parse_row),
    )
    before = [getattr(module, name) for module, name, _ in places]
    for module, name, value in places:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(places, before, strict=True):
            setattr(module, name, value)


class _Decoder:
    """Waits for as long as an image takes a worker; what the worker's other work takes of the
    processor is part of that."""

    def __init__(self, image_s: float) -> None:
        self._image_s = image_s
        self._pixels = np.zeros((1, 224, 224), np.uint8)
        self._worked_s = self._late_s = 0.0

    def __call__(self, _: bytes, *, max_pixels: int) -> np.ndarray:
        now = time.monotonic()
        others = time.thread_time() - self._worked_s
        pause = self._image_s * STRETCH - others - self._late_s
        time.sleep(max(0.0, pause))
        self._late_s = time.monotonic() - now - pause  # carried over: a sleep takes longer
        self._worked_s = time.thread_time()
        return self._pixels


class _Parser:
    """Waits for as long as a row takes, after some rows at a time: a sleep is not exact."""

    def __init__(self, row_s: float) -> None:
        self._row_s, self._owed_s = row_s, 0.0

    def __call__(self, raw: dict[str, Any]) -> Row:
        self._owed_s += self._row_s * STRETCH
        if self._owed_s > _LEAST_SLEEP_S:
            began = time.monotonic()
            time.sleep(self._owed_s)
            self._owed_s -= time.monotonic() - began
        return parse_row(raw)


def open_scaled(
    source: Source,
    workers: int,
    lanes: int,
    *,
    hub: Hub | None = None,
    connections: int | None = None,
) -> Loader:
    """A loader with the settings of epoch1, inside `scaled`.

    Args:
        source: of files that `write_file` wrote.
        workers, hub: see `Loader`.
        lanes: of the order.
        connections: of training and validation together; None: those of epoch1.
    """
    data = compose(["+experiment=epoch1"]).data
    share = share_of_loader(workers, data.val_workers)
    sizes = [group.num_bytes for group in source.row_groups]
    window = wide_window(sizes, lanes, int(data.window_gb * 1e9 / SCALE), shelf.SPOOLED_BYTES)
    order = Order(
        [group.num_rows for group in source.row_groups],
        sizes,
        seed=0,
        batch_size=data.batch_size,
        lanes=lanes,
        window_bytes=window,
    )
    return Loader(
        source,
        order,
        load_tokenizer(),
        workers=workers,
        prefetch=data.prefetch,
        max_length=data.max_length,
        hub=hub,
        ahead_bytes=int(data.read_ahead_mb * 1e6 * share / SCALE),
        connections=int((connections or data.connections) * share),
    )


def write_file(folder: Path, group_bytes: int) -> Path:
    """A parquet file of the data set's form, of random bytes in the place of pictures."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    size = int(PICTURE_BYTES / SCALE)
    rows = max(1, round(group_bytes / PICTURE_BYTES))
    path = folder / f"{rows}.parquet"
    if path.exists():
        return path
    writer = None
    for _ in range(max(1, round(FILE_BYTES / group_bytes))):
        table = pa.Table.from_pylist([_row(rng.bytes(size), number) for number in range(rows)])
        # Without statistics, which of long values are long: a footer is 142 kB in the data set too.
        writer = writer or pq.ParquetWriter(path, table.schema, write_statistics=False)
        writer.write_table(table, row_group_size=rows)
    assert writer is not None
    writer.close()
    return path


def _row(picture: bytes, number: int) -> dict[str, object]:
    return {
        "image": {"bytes": picture, "path": None},
        "conversations": [
            {"from": "human", "value": "<image>\nDescribe."},
            {"from": "template", "value": f"ct examination of the lung with finding {number}"},
        ],
        "metadata": {"content_type": "description", "correct_text": None},
    }
