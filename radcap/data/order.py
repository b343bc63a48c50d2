"""Which row comes when. Pure arithmetic over row counts: no file is read and nothing is stored.

The rows of a split stand in *row groups*, in stored order (the real set: sorted by modality,
location and pathology). Training order:

1. *Lane* i of L owns the i-th of L contiguous parts of the row groups, cut at the group borders
   nearest to equal numbers of rows.
2. Each epoch a lane visits its *runs* (a few neighbouring groups) in a seeded order.
3. The rows so met are cut into *windows*; inside a window they are shuffled.
4. Global batches take one row from each lane in turn. A lane without rows left drops out of the
   rotation, so an epoch yields every row exactly once.

Since a lane gives one row a round, its n-th row is used in round n: any batch of any epoch is
found directly. The whole state of the stream is therefore (epoch, batch).

Dealing contiguous parts of a sorted set to the lanes makes every batch a stratified draw.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

# A run holds at least this share of a window, so that a window mixes rows of about four places
# of its lane and tiny row groups are still read in long stretches.
_RUNS_PER_WINDOW = 4


@dataclass(frozen=True)
class Slots:
    """Where the rows of one global batch lie. Arrays int64 [B]; -1 everywhere in a padded slot.

    `stream` and `offset` say how a reader meets the row: row number `offset` of the sequence
    `Order.segments(epoch, stream)`. `group` and `row` say where it is stored.
    """

    epoch: int
    group: np.ndarray
    row: np.ndarray
    stream: np.ndarray
    offset: np.ndarray

    def take(self, places: Sequence[int]) -> Slots:
        """The slots at `places`."""
        index = np.asarray(places)
        columns = (self.group, self.row, self.stream, self.offset)
        return Slots(self.epoch, *(column[index] for column in columns))

    def first(self, rows: int) -> Slots:
        """The same slots with all after the first `rows` turned into padding."""
        keep = np.arange(len(self.group)) < rows
        columns = (self.group, self.row, self.stream, self.offset)
        return Slots(self.epoch, *(np.where(keep, column, -1) for column in columns))


@dataclass(frozen=True)
class _Visit:
    """One lane's groups in the order of one epoch; `ends[i]`: rows up to and with `groups[i]`."""

    groups: np.ndarray
    ends: np.ndarray

    def locate(self, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        place = np.searchsorted(self.ends, offset, side="right")
        return self.groups[place], offset - self._starts[place]

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.concatenate(([0], self.ends[:-1]))


def shuffled(count: int, *key: int) -> np.ndarray:
    """A permutation of range(count), int64, that depends on `key` alone.

    Made from the raw words of PCG64, whose stream numpy keeps fixed for good (NEP 19), unlike
    `Generator.permutation`: an order must survive an upgrade of numpy.
    """
    words = np.random.PCG64(np.random.SeedSequence(key)).random_raw(count)
    return np.argsort(words, kind="stable")


class Order:
    """The order of one split.

    Args:
        group_rows: rows in each row group, stored order.
        group_bytes: stored bytes of each row group; only their sum matters, for `window_bytes`.
        seed: any int >= 0.
        batch_size: rows in a global batch.
        lanes: number of lanes; lowered to the number of row groups.
        window_bytes: encoded bytes that the windows of all lanes may hold together.
        shuffle: False: stored order, without lanes or windows (for evaluation).
    """

    def __init__(
        self,
        group_rows: Sequence[int],
        group_bytes: Sequence[int],
        *,
        seed: int,
        batch_size: int,
        lanes: int,
        window_bytes: int,
        shuffle: bool = True,
    ) -> None:
        if len(group_rows) != len(group_bytes):
            raise ValueError("group_rows and group_bytes differ in length")
        if batch_size < 1 or lanes < 1 or window_bytes < 1 or seed < 0:
            raise ValueError("batch_size, lanes and window_bytes must be positive, seed >= 0")
        self.group_rows = np.asarray(group_rows, dtype=np.int64)
        self.num_rows = int(self.group_rows.sum())
        if self.num_rows == 0:
            raise ValueError("the split has no rows")
        self.seed = seed
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.lanes = min(lanes, int((self.group_rows > 0).sum())) if shuffle else 1
        self.batches_per_epoch = -(-self.num_rows // batch_size)
        bytes_per_row = max(1.0, sum(group_bytes) / self.num_rows)
        self.window_rows = max(1, int(window_bytes / self.lanes / bytes_per_row))
        self._ends = np.cumsum(self.group_rows)
        self._borders = _lane_borders(self.group_rows, self.lanes)
        self.lane_rows = np.add.reduceat(self.group_rows, self._borders[:-1])
        self._phases = _rotation(self.lane_rows)
        self._visit = lru_cache(maxsize=2 * self.lanes)(self._make_visit)
        self._window_order = lru_cache(maxsize=2 * self.lanes)(shuffled)

    @cached_property
    def fingerprint(self) -> str:
        """Changes whenever the order does: a position is only valid under the same one."""
        facts = (self.seed, self.batch_size, self.lanes, self.window_rows, self.shuffle)
        text = json.dumps([*facts, self.group_rows.tolist()])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def slots(self, epoch: int, batch: int, streams: np.ndarray | None = None) -> Slots:
        """The rows of batch `batch` (0 .. batches_per_epoch - 1) of epoch `epoch`.

        Args:
            streams: those wanted, bool [streams]; rows of others look like padding. None: all.
                Of many workers, each would otherwise spend a tenth of its time on rows of others.
        """
        if epoch < 0 or not 0 <= batch < self.batches_per_epoch:
            raise ValueError(f"no batch {batch} in epoch {epoch}")
        first = batch * self.batch_size
        index = np.arange(first, min(first + self.batch_size, self.num_rows))
        columns = np.full((4, self.batch_size), -1, dtype=np.int64)
        if self.shuffle:
            lane, turn = self._rotate(index)
            by_lane = np.argsort(lane, kind="stable")
            for places in np.split(by_lane, np.flatnonzero(np.diff(lane[by_lane])) + 1):
                stream = int(lane[places[0]])
                if streams is None or streams[stream]:
                    # A lane's rounds within a batch are consecutive.
                    offset = self._offsets(epoch, stream, int(turn[places[0]]), len(places))
                    group, row = self._visit(epoch, stream).locate(offset)
                    columns[:, places] = group, row, np.full_like(offset, stream), offset
        else:
            group, row = _Visit(np.arange(len(self.group_rows)), self._ends).locate(index)
            columns[:, : len(index)] = group, row, group, row
            if streams is not None:
                columns[:, ~streams[columns[2]]] = -1  # padding is and stays -1
        return Slots(epoch, *columns)

    def segments(self, epoch: int, stream: int, offset: int) -> Iterator[tuple[int, int]]:
        """What to read from `offset` on: (row group, first row in it), each group to its end."""
        if not self.shuffle:
            yield stream, offset
            return
        visit = self._visit(epoch, stream)
        place = int(np.searchsorted(visit.ends, offset, side="right"))
        for group in visit.groups[place:].tolist():
            size = int(self.group_rows[group])
            yield group, max(0, offset - int(visit.ends[place]) + size)
            place += 1

    def rows_in(self, stream: int) -> int:
        """Rows of a stream in an epoch."""
        return int(self.lane_rows[stream] if self.shuffle else self.group_rows[stream])

    def rows_before(self, stream: int, number: int) -> int:
        """How many rows of a stream come before row `number` of an epoch."""
        if not self.shuffle:
            start = int(self._ends[stream] - self.group_rows[stream])
            return min(max(0, number - start), self.rows_in(stream))
        rows = 0
        for first, stop, _, active in self._phases:
            place = np.searchsorted(active, stream)
            if number > first and place < len(active) and active[place] == stream:
                rounds, rest = divmod(min(number, stop) - first, len(active))
                rows += rounds + int(place < rest)
        return rows

    def numbers(self, epoch: int, stream: int, start: int, stop: int) -> np.ndarray:
        """When the rows [start, stop) of a stream come: their numbers within the epoch, int64."""
        if not self.shuffle:
            return int(self._ends[stream] - self.group_rows[stream]) + np.arange(start, stop)
        rounds = np.empty(stop - start, dtype=np.int64)
        at = start
        while at < stop:
            first, end = self.window(stream, at)
            order = self._window_order(end - first, self.seed, 1, epoch, stream, first)
            turns = np.empty_like(order)
            turns[order] = np.arange(first, end)
            end = min(end, stop)
            rounds[at - start : end - start] = turns[at - first : end - first]
            at = end
        return self._numbers_of(stream, rounds)

    def number_of_turn(self, stream: int, turn: int) -> int:
        """The number within the epoch of the row that a stream gives as its `turn`-th, from 0."""
        if not self.shuffle:
            return int(self._ends[stream] - self.group_rows[stream]) + turn
        return int(self._numbers_of(stream, np.array([turn]))[0])

    def _numbers_of(self, stream: int, rounds: np.ndarray) -> np.ndarray:
        numbers = np.empty_like(rounds)
        for first, _, first_round, active in self._phases:
            place = np.searchsorted(active, stream)
            if place < len(active) and active[place] == stream:
                later = rounds >= first_round
                numbers[later] = first + (rounds[later] - first_round) * len(active) + place
        return numbers

    def window(self, stream: int, offset: int) -> tuple[int, int]:
        """The window [start, stop) of offsets around `offset`: the rows to hold at one time."""
        if not self.shuffle:
            return 0, int(self.group_rows[stream])
        rows = int(self.lane_rows[stream])
        if rows <= self.window_rows:
            return 0, rows
        # The first windows differ in size from lane to lane: otherwise all lanes would need
        # their next window at the same batch.
        first = max(1, self.window_rows * (stream + 1) // self.lanes)
        if offset < first:
            return 0, first
        start = first + (offset - first) // self.window_rows * self.window_rows
        return start, min(start + self.window_rows, rows)

    def _rotate(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers within the epoch -> (lane, round)."""
        lane, turn = np.empty_like(index), np.empty_like(index)
        for first, stop, first_round, active in self._phases:
            here = (index >= first) & (index < stop)
            rounds, place = np.divmod(index[here] - first, len(active))
            lane[here], turn[here] = active[place], first_round + rounds
        return lane, turn

    def _offsets(self, epoch: int, lane: int, first: int, count: int) -> np.ndarray:
        """The places in the lane's sequence of the rows it gives in `count` rounds from `first`
        on: int64 [count]."""
        pieces: list[np.ndarray] = []
        while count:
            start, stop = self.window(lane, first)
            order = self._window_order(stop - start, self.seed, 1, epoch, lane, start)
            piece = start + order[first - start : first - start + count]
            pieces.append(piece)
            first, count = first + len(piece), count - len(piece)
        return np.concatenate(pieces)

    def _make_visit(self, epoch: int, lane: int) -> _Visit:
        groups = np.arange(self._borders[lane], self._borders[lane + 1])
        # Groups of one run share a number, counted in steps of the smallest allowed run.
        least = max(1, self.window_rows // _RUNS_PER_WINDOW)
        starts, held = [0], 0
        for i, rows in enumerate(self.group_rows[groups].tolist()):
            if held >= least:
                starts.append(i)
                held = 0
            held += rows
        runs = np.split(groups, starts[1:])
        order = shuffled(len(runs), self.seed, 0, epoch, lane)
        groups = np.concatenate([runs[i] for i in order])
        return _Visit(groups, np.cumsum(self.group_rows[groups]))


def wide_window(group_bytes: Sequence[int], lanes: int, window_bytes: int, large: int) -> int:
    """A window that mixes, for row groups so large that they lie in files.

    A window inside one row group shows one place of its lane only: measured on the real classes
    with row groups of 100 MB and 64 lanes, batches then have 0.95 of the class entropy of
    independent draws, and 0.98 with windows of one and a half groups.

    Args:
        group_bytes: bytes of each row group.
        lanes: number of lanes asked for.
        window_bytes: bytes asked for, over all lanes.
        large: bytes above which a row group lies in a file, where a window costs no memory.

    Returns:
        Bytes over all lanes.
    """
    mean = sum(group_bytes) / max(1, len(group_bytes))
    if mean <= large:
        return window_bytes
    return max(window_bytes, int(1.5 * mean * min(lanes, len(group_bytes))))


def _lane_borders(group_rows: np.ndarray, lanes: int) -> np.ndarray:
    """First group of each lane, and the end: int64 [lanes + 1], each lane with at least one row."""
    filled = np.flatnonzero(group_rows)
    ends = np.cumsum(group_rows[filled])
    wanted = ends[-1] * np.arange(1, lanes) / lanes
    cuts = np.searchsorted((ends[:-1] + ends[1:]) / 2, wanted, side="right") + 1
    for i in range(lanes - 1):  # at least one filled group for this lane and for each to come
        least = cuts[i - 1] + 1 if i else 1
        cuts[i] = min(max(cuts[i], least), len(filled) - (lanes - 1 - i))
    return np.concatenate(([0], filled[cuts] if lanes > 1 else [], [len(group_rows)])).astype(int)


def _rotation(lane_rows: np.ndarray) -> list[tuple[int, int, int, np.ndarray]]:
    """Stretches of an epoch with the same active lanes: (first row, stop, first round, lanes)."""
    phases, first, first_round = [], 0, 0
    for last_round in np.unique(lane_rows).tolist():
        active = np.flatnonzero(lane_rows > first_round)
        stop = first + (last_round - first_round) * len(active)
        phases.append((first, stop, first_round, active))
        first, first_round = stop, last_round
    return phases
