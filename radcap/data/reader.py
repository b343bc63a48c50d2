"""Rows in the order of training, read so that each row group is opened once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from radcap.data.order import Order
from radcap.data.source import Source

Row = dict[str, Any]


@dataclass
class _Window:
    """The rows [start, start + len(rows)) of a stream, taken ones set to None; `rest` goes on."""

    epoch: int
    stream: int
    start: int
    rows: list[Row | None]
    rest: Iterator[Row]

    def holds(self, epoch: int, stream: int, offset: int) -> bool:
        stop = self.start + len(self.rows)
        return (self.epoch, self.stream) == (epoch, stream) and self.start <= offset < stop


class RowReader:
    """Gives the rows that an `Order` asks for, each once; holds one window of encoded rows for
    each lane and what is left of its open row group."""

    def __init__(self, source: Source, order: Order) -> None:
        self._source = source
        self._order = order
        self._windows: dict[int, _Window] = {}

    def take(self, epoch: int, stream: int, offset: int) -> Row:
        """Raw row number `offset` of a stream (`Order.segments`); it is then forgotten."""
        lane = stream if self._order.shuffle else 0  # stored order needs one group at a time
        window = self._windows.get(lane)
        if window is None or not window.holds(epoch, stream, offset):
            window = self._next_window(lane, epoch, stream, offset)
        row = window.rows[offset - window.start]
        assert row is not None, "a row was asked for twice"
        window.rows[offset - window.start] = None
        return row

    def forget(self) -> None:
        """Drop all rows and close what is open."""
        self._windows.clear()

    def _next_window(self, lane: int, epoch: int, stream: int, offset: int) -> _Window:
        start, stop = self._order.window(stream, offset)
        last = self._windows.pop(lane, None)
        if last is not None and last.holds(epoch, stream, start - 1):
            rest = last.rest
        else:
            rest = self._read(epoch, stream, start)
        del last  # free the old rows before reading the new ones
        window = _Window(epoch, stream, start, list(islice(rest, stop - start)), rest)
        self._windows[lane] = window
        return window

    def _read(self, epoch: int, stream: int, offset: int) -> Iterator[Row]:
        for group, first in self._order.segments(epoch, stream, offset):
            yield from self._source.read(group, first)
