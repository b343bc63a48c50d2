"""Which row groups are read when: the order of need over all lanes of one reader."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from radcap.data.footer import RowGroup
from radcap.data.share import Share

# Neighbouring row groups up to this many bytes are read together: a request takes a round trip.
_TOGETHER_BYTES = 32_000_000
# And at the beginning up to so many: a first batch waits for little more than what it needs.
_TOGETHER_AT_FIRST_BYTES = 4_000_000


@dataclass(frozen=True)
class Stretch:
    """Rows [start, stop) of a stream of an epoch, which are in neighbouring row groups of a file.

    Attributes:
        groups: numbers of the row groups.
        first: number of the first requested row of the first group.
        num_bytes: of the row groups.
        wanted: how many of the rows the reader requests.
        due: epoch and number within it of the first of them.
    """

    epoch: int
    stream: int
    start: int
    stop: int
    groups: tuple[int, ...]
    first: int
    num_bytes: int
    wanted: int
    due: tuple[int, int]

    def holds(self, epoch: int, stream: int, offset: int) -> bool:
        """Whether a row is among them."""
        return (self.epoch, self.stream) == (epoch, stream) and self.start <= offset < self.stop


class Plan:
    """The stretches that hold one reader's rows, from a batch on, sorted by the first row that is
    requested of each. A reader that requests its rows in turn meets them in this order.

    Args:
        groups: the row groups that the order of `share` was made of.
        share: the host's rows of each batch.
        mine: the streams of this reader, bool [streams].
    """

    def __init__(self, groups: Sequence[RowGroup], share: Share, mine: np.ndarray) -> None:
        self._groups, self._share, self._order = groups, share, share.order
        self._streams = np.flatnonzero(mine).tolist()

    def stretches(self, number: int) -> Iterator[Stretch]:
        """From batch `number` on; to the end of its pass where the share has one."""
        first, batch = self._share.locate(number)
        epoch, begin = first, batch * self._order.batch_size
        while True:
            found = False
            for stretch in self._of_epoch(epoch, begin, is_first=epoch == first):
                found = True
                yield stretch
            # Which of a lane's turns are this host's is the same in every epoch: a reader that had
            # none in a whole one never has.
            if self._share.max_rows is not None or (begin == 0 and not found):
                return
            epoch, begin = epoch + 1, 0

    def _of_epoch(self, epoch: int, begin: int, *, is_first: bool) -> Iterator[Stretch]:
        streams = (self._of_stream(epoch, stream, begin, is_first) for stream in self._streams)
        if self._order.shuffle:
            return heapq.merge(*streams, key=lambda stretch: stretch.due)
        return chain.from_iterable(streams)  # one stretch each, one stream after the other

    def _of_stream(self, epoch: int, stream: int, begin: int, is_first: bool) -> Iterator[Stretch]:
        """Those of one stream, from number `begin` of the epoch on, in the order of need."""
        order = self._order
        offset = order.rows_before(stream, begin)
        if offset >= order.rows_in(stream):
            return
        offset, window = order.window(stream, offset)
        found: list[tuple[tuple[int, int], Stretch]] = []
        small_until = window if is_first else 0
        for stretch in self._cut(epoch, stream, offset, begin, small_until):
            if stretch.start >= window:
                start, window = order.window(stream, stretch.start)
                # No row from here on comes before the window does.
                earliest = epoch, order.number_of_turn(stream, start)
                while found and found[0][0] < earliest:
                    yield heapq.heappop(found)[1]
            if stretch.wanted:
                heapq.heappush(found, (stretch.due, stretch))
        while found:
            yield heapq.heappop(found)[1]

    def _cut(
        self, epoch: int, stream: int, offset: int, begin: int, small_until: int
    ) -> Iterator[Stretch]:
        """All of a stream from a row on, in stored order; those before `small_until` are small."""
        segments = self._order.segments(epoch, stream, offset)
        following = next(segments, None)
        while following is not None:
            first, start, together, size = following[1], offset, list[int](), 0
            most = _TOGETHER_AT_FIRST_BYTES if start < small_until else _TOGETHER_BYTES
            while following is not None and self._belongs(following[0], together, most - size):
                group, skipped = following
                together.append(group)
                size += self._groups[group].num_bytes
                offset += self._groups[group].num_rows - skipped
                following = next(segments, None)
            yield self._stretch(epoch, stream, start, offset, together, first, size, begin)

    def _belongs(self, group: int, together: Sequence[int], left: int) -> bool:
        """Whether a row group is read together with those before it: `left` bytes may be added."""
        if not together:
            return True
        where, last = self._groups[group], self._groups[together[-1]]
        near = group == together[-1] + 1 and where.file == last.file
        return near and where.num_bytes <= left

    def _stretch(
        self,
        epoch: int,
        stream: int,
        start: int,
        stop: int,
        groups: Sequence[int],
        first: int,
        size: int,
        begin: int,
    ) -> Stretch:
        share = self._share
        numbers = self._order.numbers(epoch, stream, start, stop)
        wanted = numbers[(numbers >= begin) & (numbers % share.num_hosts == share.host)]
        if share.max_rows is not None:
            wanted = wanted[wanted < share.max_rows]
        due = (epoch, int(wanted.min()) if len(wanted) else self._order.num_rows)
        return Stretch(epoch, stream, start, stop, tuple(groups), first, size, len(wanted), due)
