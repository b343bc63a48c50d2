"""Rows in the order of training, read so that each row group is opened once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from radcap.data.footer import RowGroup
from radcap.data.order import Order
from radcap.data.rowfile import RowFile
from radcap.data.shelf import Row, Shelf

# Neighbouring row groups up to this many bytes are fetched together.
_FETCHED_BYTES = 32_000_000


@dataclass
class _Window:
    """The rows [start, start + len(rows)) of a stream, taken ones set to None; `rest` goes on."""

    epoch: int
    stream: int
    start: int
    rows: list[Row | RowFile.Row | None]
    rest: Iterator[Row | RowFile.Row]

    def holds(self, epoch: int, stream: int, offset: int) -> bool:
        stop = self.start + len(self.rows)
        return (self.epoch, self.stream) == (epoch, stream) and self.start <= offset < stop


class RowReader:
    """Gives the rows that an `Order` asks for, each once; holds one window of encoded rows for
    each lane and what is left of the row groups read with it."""

    def __init__(self, shelf: Shelf, groups: Sequence[RowGroup], order: Order) -> None:
        """Args:
        shelf: gives the rows of row groups.
        groups: the row groups that `order` was made of.
        order: which row comes when.
        """
        self._shelf = shelf
        self._groups = groups
        self._order = order
        self._windows: dict[int, _Window] = {}

    def take(self, epoch: int, stream: int, offset: int) -> Row:
        """Row number `offset` of a stream (`Order.segments`); it is then forgotten."""
        lane = stream if self._order.shuffle else 0  # stored order needs one group at a time
        window = self._windows.get(lane)
        if window is None or not window.holds(epoch, stream, offset):
            window = self._next_window(lane, epoch, stream, offset)
        row = window.rows[offset - window.start]
        assert row is not None, "a row was asked for twice"
        window.rows[offset - window.start] = None
        return row.load() if isinstance(row, RowFile.Row) else row

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

    def _read(self, epoch: int, stream: int, offset: int) -> Iterator[Row | RowFile.Row]:
        segments = self._order.segments(epoch, stream, offset)
        following = next(segments, None)
        while following is not None:
            first, together, size = following[1], list[int](), 0
            while following is not None and self._belongs(following[0], together, size):
                together.append(following[0])
                size += self._groups[following[0]].num_bytes
                following = next(segments, None)
            yield from self._shelf.rows(together, first)

    def _belongs(self, group: int, together: Sequence[int], size: int) -> bool:
        """Whether a row group is fetched together with those before it."""
        if not together:
            return True
        where, last = self._groups[group], self._groups[together[-1]]
        near = group == together[-1] + 1 and where.file == last.file
        return near and size + where.num_bytes <= _FETCHED_BYTES
