"""Memory of the training process and its workers while rows stream by."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from pathlib import Path

from bench_split import (
    BATCH_SIZE,
    ROWS,
    WORKERS,
    open_folder,
    open_loader,
    order_of,
    phantom_folder,
    say_load,
)

from radcap.host.console import say

_STREAMED = 100_000
_EVERY_S = 0.25
_PARTS = 10
_COUNTED = ("Pss_Anon:", "Pss_Shmem:")  # proc(5), smaps_rollup: shared pages count once over all


def bench_memory(
    *, streamed: int = _STREAMED, rows: int = ROWS, batch_size: int = BATCH_SIZE
) -> None:
    """Print the peak of each tenth of the rows, in MB, and the growth after the first one.

    Args:
        streamed: rows to stream, epoch after epoch.
        rows: size of the phantom's training split.
        batch_size: rows in a batch.
    """
    source = open_folder(phantom_folder(rows))
    loader = open_loader(source, order_of(source, batch_size))
    try:
        workers = [process.pid for process in multiprocessing.active_children() if process.pid]
        watch = _Watch([os.getpid(), *workers])
        say(f"{streamed:,} phantom rows, {WORKERS} workers: peaks in MB")
        say(
            "   rows    after     main  "
            + "  ".join(f"worker {n}" for n in range(WORKERS))
            + "    all"
        )
        start, seen, totals = time.perf_counter(), 0, []
        for batch in loader:
            seen += batch.counts.rows
            if seen < streamed * (len(totals) + 1) // _PARTS:
                continue
            main, *others = peaks = watch.take()
            totals.append(sum(peaks))
            columns = "".join(f"{peak / 1e6:10.0f}" for peak in others)
            say(
                f"{seen:7,} {time.perf_counter() - start:6.0f} s {main / 1e6:8.0f}{columns}"
                f" {totals[-1] / 1e6:6.0f}"
            )
            if seen >= streamed:
                break
        watch.close()
    finally:
        loader.close()
    growth = max(totals[1:]) / totals[0] - 1
    say(f"growth after the first part: {growth:+.1%}")
    say_load()


class _Watch(threading.Thread):
    """Looks at the memory of processes again and again."""

    def __init__(self, processes: list[int]) -> None:
        super().__init__(daemon=True)
        self._processes, self._peaks = processes, [0] * len(processes)
        self._lock, self._done = threading.Lock(), threading.Event()
        self.start()

    def run(self) -> None:
        while not self._done.wait(_EVERY_S):
            self._look()

    def _look(self) -> None:
        found = [_bytes(pid) for pid in self._processes]
        with self._lock:
            self._peaks = [max(pair) for pair in zip(self._peaks, found, strict=True)]

    def take(self) -> list[int]:
        """The peaks in bytes since the last time."""
        self._look()
        with self._lock:
            found, self._peaks = self._peaks, [0] * len(self._peaks)
        return found

    def close(self) -> None:
        self._done.set()
        self.join()


def _bytes(process: int) -> int:
    """Memory of a process that no file stands behind."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    fields = (line.split() for line in lines)
    return sum(1024 * int(field[1]) for field in fields if field[0] in _COUNTED)
