"""The input pipeline on two cores against decoding alone on two cores, and of more workers."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NamedTuple

import torch
from bench_pairs import Pairs, processor_seconds
from bench_scaled import FILES, GROUPS, ROW_S, open_scaled, real_s, scaled, write_file
from bench_split import (
    BATCH_SIZE,
    PREFETCH,
    ROWS,
    WORKERS,
    open_folder,
    open_loader,
    order_of,
    phantom_folder,
    say_load,
)

from radcap.data.image.decode import IMAGE_SIZE, decode_image
from radcap.data.source import Source
from radcap.host.console import say

# Images/s "at the floor" of `radcap.preflight +experiment=epoch1 preflight.topology=v3-8`.
FLOOR_IMAGES_PER_S = 29_801
_PAIRS = 5
_NUMBERS = (1, 4, 8)
_SETTLING_S, _SECONDS, _TIMES = 10.0, 8.0, 3


class Cost(NamedTuple):
    """Seconds, and processor seconds of all processes."""

    wall: float
    processor: float


def bench_pipeline(
    *,
    rows: int = ROWS,
    batch_size: int = BATCH_SIZE,
    pairs: int = _PAIRS,
    floor: float = FLOOR_IMAGES_PER_S,
    numbers: Sequence[int] = _NUMBERS,
) -> None:
    """Print images a second of both, the cores that a v3-8 wants, and how more workers do.

    Args:
        rows: size of the phantom's training split.
        batch_size: rows in a batch.
        pairs: pairs of timings.
        floor: images a second that are to be fed.
        numbers: of workers, of which the stretched stream is measured; none: it is not.
    """
    torch.set_num_threads(1)
    source = open_folder(phantom_folder(rows))
    pictures = [
        row["image"]["bytes"]
        for group in range(len(source.row_groups))
        for row in source.read(group)
    ]
    say(
        f"{rows:,} phantom rows in batches of {batch_size}, {WORKERS} workers on "
        f"{os.cpu_count()} cores; decoding alone by {WORKERS} processes"
    )
    costs = [(_decoding(pictures), _pipeline(source, batch_size)) for _ in range(pairs)]
    alone, whole = [theirs for theirs, _ in costs], [ours for _, ours in costs]
    both = Pairs([cost.wall for cost in alone], [cost.wall for cost in whole])
    say("            images/s   a core   processor us an image")
    for name, seconds, found in (
        ("decoding", both.median_theirs, alone),
        ("pipeline", both.median_ours, whole),
    ):
        # Of a core by its own time: beside other work the wall's says how busy the machine was.
        processor_s = statistics.median(cost.processor for cost in found) / rows
        say(f"{name:10s} {rows / seconds:9,.0f} {1 / processor_s:8,.0f} {1e6 * processor_s:23.0f}")
    say(f"ratio      {both.ratio_text()}")
    used = Pairs([cost.processor for cost in alone], [cost.processor for cost in whole])
    say(f"processor  {used.ratio_text()}")
    cores = floor * used.median_ours / rows
    say(f"a v3-8 at the floor of its step wants {floor:,.0f} images/s: {cores:.1f} such cores")
    if numbers:
        _many_workers(numbers)
    say_load()


def _many_workers(numbers: Sequence[int]) -> None:
    """Print the images a second of more workers than there are cores, at epoch1's settings."""
    say("epoch1's window and lanes, local files, costs stretched so that two cores stand for many:")
    say("workers  images/s  of linear")
    group_bytes, lanes = GROUPS["100 rows"]
    with tempfile.TemporaryDirectory(prefix="radcap-bench-") as folder, scaled(ROW_S):
        file = write_file(Path(folder), group_bytes)
        (Path(folder) / "alignment").mkdir()
        for number in range(FILES):
            name = f"train-{number:05d}-of-{FILES:05d}.parquet"
            (Path(folder) / "alignment" / name).hardlink_to(file)
        source = open_folder(Path(folder))
        one = None
        for workers in numbers:
            rate = statistics.median(_rates(source, workers, lanes))
            one = one or rate / workers
            say(f"{workers:7d} {rate:9,.0f} {rate / workers / one:10.2f}")


def _rates(source: Source, workers: int, lanes: int) -> list[float]:
    """Images a second in the middle of a stream, several times one after the other."""
    loader, found = open_scaled(source, workers, lanes), list[float]()
    try:
        batches = iter(loader)
        next(batches)
        end = time.monotonic() + _SETTLING_S
        while time.monotonic() < end:
            next(batches)
        while len(found) < _TIMES:
            start, images = time.monotonic(), 0
            while (took := time.monotonic() - start) < _SECONDS:
                images += len(next(batches).rows)
            found.append(images / real_s(took))
    finally:
        loader.close()
    return found


def _pipeline(source: Source, batch_size: int) -> Cost:
    """The cost of as many batches as an epoch has, in the middle of a stream.

    What the workers have ready when it begins does not count, and every row group is read once.
    """
    order = order_of(source, batch_size)
    loader = open_loader(source, order)
    try:
        batches = iter(loader)
        for _ in islice(batches, PREFETCH + 1):
            pass
        processes = [os.getpid(), *(p.pid for p in multiprocessing.active_children() if p.pid)]
        cpu, start = processor_seconds(processes), time.perf_counter()
        for _ in islice(batches, order.batches_per_epoch):
            pass
        return Cost(time.perf_counter() - start, processor_seconds(processes) - cpu)
    finally:
        loader.close()


def _decoding(pictures: Sequence[bytes]) -> Cost:
    """The cost of decoding every picture into a tensor, shared by processes as many as workers."""
    context = multiprocessing.get_context("fork")
    ready, done = context.Barrier(WORKERS + 1), context.Barrier(WORKERS + 1)
    processes = [
        context.Process(target=_decode, args=(pictures[i::WORKERS], ready, done))
        for i in range(WORKERS)
    ]
    for process in processes:
        process.start()
    ready.wait()
    pids = [process.pid for process in processes if process.pid]
    cpu, start = processor_seconds(pids), time.perf_counter()
    done.wait()
    cost = Cost(time.perf_counter() - start, processor_seconds(pids) - cpu)
    for process in processes:
        process.join()
    return cost


def _decode(pictures: Sequence[bytes], ready: Barrier, done: Barrier) -> None:
    pixels = torch.empty(3, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8).numpy()
    ready.wait()
    for picture in pictures:
        pixels[...] = decode_image(picture)
    done.wait()
