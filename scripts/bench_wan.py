"""The stream over a slow network, at epoch1's settings, against what network and decoding allow.

Two cores stand for many (bench_scaled.py); their idle share is printed. All figures are in the
units that are stood for.
"""

from __future__ import annotations

import math
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench_scaled import (
    FILES,
    GROUPS,
    IMAGE_S,
    PICTURE_BYTES,
    SCALE,
    STRETCH,
    open_scaled,
    real_s,
    scaled,
    write_file,
)
from bench_split import say_load
from slow_hub import HUB_ID, Link, SlowHub, serving

from radcap.config.compose import compose
from radcap.data.collate import Batch
from radcap.data.hub.download import Hub
from radcap.data.open import open_source
from radcap.data.source import Source
from radcap.host.console import say
from radcap.training.feeding import share_of_loader, useful_workers_on

LATENCY_S, MEGABYTES_PER_S = 0.05, (20, 50)
START_LATENCY_S = 0.08
WORKERS = (1, 2, 4, 8)
FEW_CONNECTIONS = 48  # so few that at 20 MB/s the network is slower than 8 workers
EPOCH_ROWS, STEP_IMAGES_PER_S, HOST_CORES = 750_009, 10_800, 96
_LEAST_BATCHES, _LEAST_S, _LONGEST_SETTLING, _TIMES = 8, 6.0, 12, 3


@dataclass(frozen=True)
class Rate:
    """What was measured.

    Attributes:
        images_per_s, bytes_per_s: in the middle of the stream.
        requests: for an image.
        connections: open at a time, on average.
        trainer_s: processor seconds of the trainer's process for an image.
        idle: share of the cores' time.
    """

    images_per_s: float
    bytes_per_s: float
    requests: float
    connections: float
    trainer_s: float
    idle: float

    @property
    def request_bytes(self) -> float:
        """Of a request for bytes; as many lead to another address first. Infinite if none began."""
        requests_per_s = self.requests * self.images_per_s / 2
        known = requests_per_s and self.bytes_per_s
        return self.bytes_per_s / requests_per_s if known else math.inf

    def ideal(self, workers: int, link: Link) -> float:
        """Images a second of the slower: decoding alone, or the open connections at their cap."""
        decoding, network = workers / IMAGE_S, self.connections * link.bytes_per_s / PICTURE_BYTES
        return min(decoding, network) if network else decoding  # nothing was fetched meanwhile


def host_rate(
    workers: int, connections: int, link: Link, request_bytes: float, trainer_s: float = 0.0
) -> float:
    """Images a second that a host's stream brings: the slowest of decoding, network and trainer.

    A connection waits for two answers, a redirect and the first byte, before the bytes of each
    request. Connections are dealt evenly, at least one to a worker.
    """
    seconds_a_byte = 2 * link.latency_s / request_bytes + 1 / link.bytes_per_s
    of_network = workers * max(1, connections // workers) / seconds_a_byte
    decoding, network = workers / IMAGE_S, of_network / PICTURE_BYTES
    return min(decoding, network, 1 / trainer_s if trainer_s else decoding)


def bench_wan(
    *,
    times: int = _TIMES,
    seconds: float = _LEAST_S,
    workers: Sequence[int] = WORKERS,
    groups: Sequence[str] = tuple(GROUPS),
    bandwidths: Sequence[int] = MEGABYTES_PER_S,
) -> None:
    """Print images a second by workers, bandwidth and row groups, and the seconds of a start.

    Args:
        times: how often a stream is measured, of which the median is taken.
        seconds: of each measurement, at least; longer where a lane's window lasts longer.
        workers: numbers of loader processes.
        groups: names of `GROUPS`.
        bandwidths: MB/s of a connection.
    """
    connections = compose(["+experiment=epoch1"]).data.connections
    found: dict[tuple[str, int], Rate] = {}
    with tempfile.TemporaryDirectory(prefix="radcap-bench-") as folder, scaled():
        for title in groups:
            group_bytes, lanes = GROUPS[title]
            file = write_file(Path(folder), group_bytes)
            for megabytes in bandwidths:
                link = Link(LATENCY_S, megabytes * 1e6)
                say(f"row groups of {title}, {LATENCY_S * 1e3:.0f} ms, {megabytes} MB/s each")
                say(
                    "workers  images/s   MB/s  requests/image  connections  of ideal  of formula  "
                    "times one  idle"
                )
                one = None
                settings = [(number, connections) for number in workers]
                # What is read ahead of large row groups would last longer than a measurement.
                if megabytes == min(MEGABYTES_PER_S) and title == next(iter(GROUPS)):
                    settings.append((workers[-1], FEW_CONNECTIONS))
                for number, most in settings:
                    runs = measure(file, link, number, lanes, most, times, seconds)
                    rate = sorted(runs, key=lambda run: run.images_per_s)[len(runs) // 2]
                    if most == connections:
                        found[title, megabytes] = rate
                    one = one or rate.images_per_s
                    ideals = [run.images_per_s / run.ideal(number, link) for run in runs]
                    formulas = [
                        run.images_per_s
                        / host_rate(
                            number, loader_connections(number, most), link, run.request_bytes
                        )
                        for run in runs
                    ]
                    say(
                        f"{number:7d} {rate.images_per_s:9,.0f} {rate.bytes_per_s / 1e6:6,.0f} "
                        f"{rate.requests:15.5f} {rate.connections:8.1f}/{most:<3d} "
                        f"{statistics.median(ideals):9.2f} {statistics.median(formulas):11.2f} "
                        f"{rate.images_per_s / one:10.2f} {rate.idle:5.0%}"
                    )
        _start(Path(folder))
    _epoch({megabytes: found[groups[0], megabytes] for megabytes in bandwidths})
    say_load()


def loader_connections(workers: int, connections: int) -> int:
    """How many of a run's connections are those of its training loader."""
    data = compose(["+experiment=epoch1"]).data
    return int(connections * share_of_loader(workers, data.val_workers))


def _start(folder: Path) -> None:
    """Print what opening takes, with footers that are kept and without, and a first batch."""
    file = write_file(folder, GROUPS["100 rows"][0])
    link = Link(START_LATENCY_S, 50e6)
    say(f"start: {FILES} files, {START_LATENCY_S * 1e3:.0f} ms, 50 MB/s each, 8 workers")
    say("             requests     MB  seconds")
    # Opening is work of one process, which takes its own time here: nothing is stretched.
    with _serving(file, link, stretch=1.0) as hub:
        for title in ("open, cold", "open, warm"):
            before, began = hub.served(), time.monotonic()
            _open(footers=folder / "footers")
            seconds, after = time.monotonic() - began, hub.served()
            megabytes = (after.bytes - before.bytes) / 1e6
            say(
                f"{title:12s} {after.requests - before.requests:8d} {megabytes:6.1f} {seconds:8.2f}"
            )
    with _serving(file, link) as hub:
        source = _open()
        before, began = hub.served(), time.monotonic()
        loader = open_scaled(source, 8, GROUPS["100 rows"][1], hub=Hub(HUB_ID))
        try:
            next(iter(loader))
            seconds, after = real_s(time.monotonic() - began), hub.served()
        finally:
            loader.close()
    megabytes = (after.bytes - before.bytes) * SCALE / 1e6
    say(f"first batch  {after.requests - before.requests:8d} {megabytes:6,.0f} {seconds:8.2f}")


def _epoch(found: dict[int, Rate]) -> None:
    """Print what the formula says of epoch1 on a v3-8 host, with what was measured."""
    data = compose(["+experiment=epoch1"]).data
    workers = useful_workers_on("tpu", HOST_CORES, data.lanes)
    say(
        f"epoch1 on a v3-8 host with {HOST_CORES} cores, by the formula: data.workers=null takes "
        f"{workers}, the step could take {STEP_IMAGES_PER_S:,} images/s"
    )
    for megabytes, measured in found.items():
        link = Link(LATENCY_S, megabytes * 1e6)
        rate = host_rate(
            workers,
            loader_connections(workers, data.connections),
            link,
            measured.request_bytes,
            measured.trainer_s,
        )
        minutes = EPOCH_ROWS / min(rate, STEP_IMAGES_PER_S) / 60
        say(
            f"  {megabytes} MB/s a connection: {rate:,.0f} images/s; {EPOCH_ROWS:,} rows in "
            f"{minutes:.1f} minutes at the slower of both"
        )


def measure(
    file: Path,
    link: Link,
    workers: int,
    lanes: int,
    connections: int,
    times: int,
    seconds: float,
) -> list[Rate]:
    """The rate of a loader in the middle of its stream, several times one after the other."""
    data = compose(["+experiment=epoch1"]).data
    # By then the windows and what is read ahead are full, or never will be.
    held = data.window_gb * 1e9 + data.read_ahead_mb * 1e6
    fetched = loader_connections(workers, connections) * link.bytes_per_s
    used = workers / IMAGE_S * PICTURE_BYTES
    settling_s = STRETCH * held / max(fetched - used, 1.0)
    # A lane's whole window falls due at once: meanwhile that of one lane does at least.
    seconds = max(seconds, STRETCH * data.window_gb * 1e9 / lanes / used)
    found = []
    with _serving(file, link) as hub:
        loader = open_scaled(_open(), workers, lanes, hub=Hub(HUB_ID), connections=connections)
        try:
            batches = iter(loader)
            next(batches)
            settled = time.monotonic() + min(settling_s, _LONGEST_SETTLING * seconds)
            while time.monotonic() < settled:
                next(batches)
            while len(found) < times:
                found.append(_measure(batches, hub, seconds))
        finally:
            loader.close()
    return found


def _measure(batches: Iterator[Batch], hub: SlowHub, seconds: float) -> Rate:
    before, idle, start = hub.served(), _idle_s(), time.monotonic()
    trainer, images, number = time.process_time(), 0, 0
    while (took := time.monotonic() - start) < seconds or number < _LEAST_BATCHES:
        images += len(next(batches).rows)
        number += 1
    trainer = time.process_time() - trainer
    served, idle = hub.served(), (_idle_s() - idle) / took / (os.cpu_count() or 1)
    return Rate(
        images / real_s(took),
        (served.bytes - before.bytes) * SCALE / real_s(took),
        (served.requests - before.requests) / images,
        (served.open_s - before.open_s) / took,
        trainer / images,
        idle,
    )


@contextmanager
def _serving(file: Path, link: Link, *, stretch: float = STRETCH) -> Iterator[SlowHub]:
    slow = Link(link.latency_s * stretch, link.bytes_per_s / SCALE / stretch)
    # The footers are not scaled: they have the row groups of the whole files.
    slow = replace(slow, tail_bytes_per_s=link.bytes_per_s / stretch)
    os.environ["no_proxy"] = "127.0.0.1,localhost"
    os.environ.pop("HF_HUB_OFFLINE", None)  # before the client is imported
    with serving(file, FILES, slow) as hub:
        from huggingface_hub import constants

        constants.ENDPOINT = hub.endpoint
        constants.HUGGINGFACE_CO_URL_TEMPLATE = (
            hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        yield hub


def _open(footers: Path | None = None) -> Source:
    return open_source(
        split="train", path=None, config="alignment", hub=Hub(HUB_ID), footers=footers
    )


def _idle_s() -> float:
    """Seconds that all cores have been idle since the machine began."""
    fields = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()
    return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")
