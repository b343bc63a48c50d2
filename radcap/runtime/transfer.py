"""Bring batches to a device in a thread of their own, ahead of their use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

B = TypeVar("B")
D = TypeVar("D")

_SECONDS_TO_END = 10


class Transfer(Generic[B, D]):
    """Loads and uploads batches in a background thread.

    Whatever the loader or the upload raises comes out of the iteration, unchanged and in its
    place: after the batches before it. (torch_xla's MpDeviceLoader prints an exception of its
    loader thread and then ends as a finished epoch does.)
    """

    def __init__(self, loader: Iterable[B], upload: Callable[[B], D], *, prefetch: int) -> None:
        """Args:
        loader: iterated in the thread alone.
        upload: brings a batch to the device.
        prefetch: batches on the device beside the one in use, at least 1.
        """
        self._iterator = iter(loader)
        self._upload = upload
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="radcap-transfer")
        self._ahead: deque[Future[tuple[B, D] | None]] = deque()
        for _ in range(prefetch):
            self._ahead.append(self._thread.submit(self._next))

    def __iter__(self) -> Iterator[tuple[B, D]]:
        try:
            while (item := self._ahead.popleft().result()) is not None:
                self._ahead.append(self._thread.submit(self._next))
                yield item
        finally:
            self.close()

    def _next(self) -> tuple[B, D] | None:
        for batch in self._iterator:
            return batch, self._upload(batch)
        return None

    def close(self) -> None:
        """Stop loading and wait, but not for ever, for the batch in progress. May be repeated."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        # A future cancelled before its start never counts as done for `wait`.
        running = [future for future in self._ahead if not future.cancelled()]
        wait(running, timeout=_SECONDS_TO_END)
        self._ahead.clear()
