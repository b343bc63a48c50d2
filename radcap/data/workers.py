"""Processes that prepare parts of batches ahead of time.

Images come back through memory shared since the fork (an anonymous mapping: /dev/shm, often 64 MB
in containers, is not used), the rest through a pipe. A worker ignores SIGINT, SIGTERM and SIGHUP,
which reach the whole process group while the trainer still wants to save, and ends when its parent
does, whatever it waits for.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import mmap
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from radcap.data.faults import DataError
from radcap.host.handlers import STOPPING

# Fills the images of batch `number` into the array it is given; returns what else there is to say.
Work = Callable[[int, np.ndarray], Any]

_PARENT_CHECK_S = 1.0
# Decoding lets other threads run, and would wait for a thread that reads ahead for up to Python's
# 5 ms, ten times as long as a picture takes.
_SWITCH_S = 0.0005


class WorkerPool:
    """Runs one `Work` a process; all go through batches first, first + 1, ... on their own.

    Args:
        works: one for each worker. They are forked, not pickled.
        shape: of the images that a worker may return for one batch, uint8.
        ahead: batches that a worker may have ready or in hand.
        first: number of the first batch; None: wait for `restart`.
        stop: number after the last one, where they wait for `restart`; None: there is none.
    """

    def __init__(
        self,
        works: Sequence[Work],
        shape: tuple[int, ...],
        ahead: int,
        first: int | None,
        stop: int | None = None,
    ) -> None:
        context = multiprocessing.get_context("fork")
        size = ahead * int(np.prod(shape))
        self._generation = 0
        self._buffers = []
        self._pipes: list[Connection] = []
        self._processes = []
        atexit.register(self.close)  # before multiprocessing's own, which would wait for them
        # A garbage collection writes to every object, and what processes share since the fork
        # would be copied: 60 MB a process, hours into a run.
        gc.collect()
        gc.freeze()
        for number, work in enumerate(works):
            # Only touched pages cost memory; a worker fills about its share of the rows.
            shared = np.frombuffer(mmap.mmap(-1, size), dtype=np.uint8).reshape(ahead, *shape)
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_run,
                args=(work, shared, theirs, _Stint(first, stop), os.getpid()),
                name=f"radcap-data-{number}",
                daemon=True,
            )
            process.start()
            theirs.close()  # the worker holds the only other end: its death reads as end of file
            self._buffers.append(shared)
            self._pipes.append(ours)
            self._processes.append(process)

    def get(self, number: int) -> list[tuple[Any, np.ndarray]]:
        """Wait for batch `number`: for each worker its answer and a view of its images, valid
        until `release`. Batches must be asked for in turn.

        Raises DataError if a worker failed or died.
        """
        parts = []
        for worker, pipe in enumerate(self._pipes):
            generation = -1
            while generation != self._generation:
                try:
                    generation, answered, answer = pipe.recv()
                    if generation != self._generation:
                        pipe.send(None)  # left over from before a restart
                except (EOFError, OSError):
                    raise DataError(self._cause_of_death(worker)) from None
            if isinstance(answer, DataError):
                raise answer
            assert answered == number, "batches were asked for out of turn"
            buffer = self._buffers[worker]
            parts.append((answer, buffer[number % len(buffer)]))
        return parts

    def release(self) -> None:
        """Let the buffers of the batch last got be filled again."""
        self._tell(None)

    def restart(self, first: int, stop: int | None = None) -> None:
        """Continue with batch `first` instead, up to `stop`; what is under way is dropped."""
        self._generation += 1
        self._tell((self._generation, _Stint(first, stop)))

    def close(self) -> None:
        """End the processes at once. They hold nothing that would need an orderly end."""
        atexit.unregister(self.close)
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for pipe in self._pipes:
            pipe.close()
        self._processes, self._pipes = [], []

    def _tell(self, message: Any) -> None:
        for pipe in self._pipes:
            # A dead worker is noticed, with its cause, where its answer is missing.
            with contextlib.suppress(OSError):
                pipe.send(message)

    def _cause_of_death(self, worker: int) -> str:
        process = self._processes[worker]
        process.join(timeout=5)
        status = process.exitcode
        if status is not None and status < 0:
            how = f"was killed by {signal.Signals(-status).name}"
            if -status == signal.SIGKILL:
                how += " (out of memory? lower data.workers, data.prefetch or data.window_gb)"
        else:
            how = f"ended with status {status}; its own message is above"
        return f"data worker {worker} (process {process.pid}) {how}"


@dataclass
class _Stint:
    """What is to be done: batches from `number` on, before `stop`. None: nothing; no end."""

    number: int | None
    stop: int | None


def _run(work: Work, shared: np.ndarray, pipe: Connection, stint: _Stint, parent: int) -> None:
    """A worker's life: wait for a free buffer or an order, fill it, answer."""
    for ignored in STOPPING:
        signal.signal(ignored, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads do not survive a fork
    sys.setswitchinterval(_SWITCH_S)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    generation, free = 0, len(shared)
    try:
        while True:
            while free == 0 or stint.number in (None, stint.stop) or pipe.poll():
                order = pipe.recv()
                if order is None:
                    free += 1
                else:
                    generation, stint = order
            number = stint.number
            assert number is not None
            try:
                answer = work(number, shared[number % len(shared)])
            except DataError as error:
                pipe.send((generation, number, error))
                return
            free -= 1
            pipe.send((generation, number, answer))
            stint.number = number + 1
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent has gone


def _end_with(parent: int) -> None:
    """End this process when its parent has gone. Rows may be waited for much longer."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_S)
    os._exit(1)
