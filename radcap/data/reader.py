"""Rows in the order of training, read so that each row group is opened once."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from radcap.data.ahead import Cancel, ReadAhead
from radcap.data.plan import Plan, Stretch
from radcap.data.rowfile import RowFile
from radcap.data.shelf import Loaded, Row, Shelf


@dataclass
class _Held:
    """A stretch in use: its rows, taken ones set to None, and how many will still be requested."""

    stretch: Stretch
    rows: list[Row | RowFile.Row | None]
    left: int


class RowReader:
    """Gives the rows that an `Order` asks for, in its order and each once.

    Holds the stretches that are partly used, about a window of each lane, and what is read
    ahead.
    """

    def __init__(self, shelf: Shelf, plan: Plan, *, ahead_bytes: int, num_threads: int) -> None:
        """Args:
        shelf: gives the rows of row groups.
        plan: which stretch comes when.
        ahead_bytes, num_threads: see `ReadAhead`.
        """
        self._shelf, self._plan = shelf, plan
        self._ahead_bytes, self._num_threads = ahead_bytes, num_threads
        self._held: dict[tuple[int, int], list[_Held]] = defaultdict(list)
        self._ahead: ReadAhead[Stretch, Loaded] | None = None
        self._waited_s = 0.0

    @property
    def waited_s(self) -> float:
        """Seconds spent waiting for rows so far."""
        return self._waited_s + (self._ahead.waited_s if self._ahead else 0.0)

    def begin(self, number: int) -> None:
        """Continue with batch `number`: what is held and under way is dropped."""
        self.close()
        self._ahead = ReadAhead(
            self._plan.stretches(number),
            lambda stretch: stretch.num_bytes,
            self._load,
            most_bytes=self._ahead_bytes,
            num_threads=self._num_threads,
        )

    def take(self, epoch: int, stream: int, offset: int) -> Row:
        """Row number `offset` of a stream (`Order.segments`); it is then forgotten."""
        held = self._holder(epoch, stream, offset)
        place = offset - held.stretch.start
        row = held.rows[place]
        assert row is not None, "a row was asked for twice"
        held.rows[place] = None
        held.left -= 1
        if held.left == 0:
            self._held[epoch, stream].remove(held)
            if not self._held[epoch, stream]:
                del self._held[epoch, stream]
        return row.load() if isinstance(row, RowFile.Row) else row

    def close(self) -> None:
        """Drop all rows and end what is under way."""
        self._held.clear()
        if self._ahead is not None:
            self._ahead.close()
            self._waited_s += self._ahead.waited_s
            self._ahead = None
            self._shelf.settle()

    def _holder(self, epoch: int, stream: int, offset: int) -> _Held:
        for held in self._held.get((epoch, stream), ()):
            if held.stretch.holds(epoch, stream, offset):
                return held
        # Rows are requested in the order of need, which stretches have too: the next one holds it.
        assert self._ahead is not None, "begin comes first"
        stretch, loaded = next(self._ahead)
        assert stretch.holds(epoch, stream, offset), "rows were asked for out of turn"
        self._shelf.used(loaded)
        held = _Held(stretch, list(loaded.rows), stretch.wanted)
        self._held[epoch, stream].append(held)
        return held

    def _load(self, stretch: Stretch, cancel: Cancel) -> Loaded:
        return self._shelf.load(stretch.groups, stretch.first, cancel)
