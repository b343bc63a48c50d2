"""Batches for the trainer: rows in their order, decoded and tokenized, by worker processes."""

from __future__ import annotations

import atexit
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from radcap.data.collate import Batch, BatchCounts
from radcap.data.faults import DataError
from radcap.data.hub.download import Hub
from radcap.data.image.decode import IMAGE_SIZE, MAX_PIXELS
from radcap.data.labels import Labels
from radcap.data.order import Order
from radcap.data.parts import Part, PartMaker
from radcap.data.recycled import Recycled
from radcap.data.share import Share, useful_workers
from radcap.data.shelf import Cache, Shelf, Spool, is_spooled
from radcap.data.source import Source
from radcap.data.workers import WorkerPool

if TYPE_CHECKING:
    from transformers import BertTokenizer

_log = logging.getLogger(__name__)

_IMAGE_SHAPE = (3, IMAGE_SIZE, IMAGE_SIZE)
# Of fewer rows the skipped share says little; a pass that ends sooner is judged all the same.
_ROWS_TO_JUDGE = 200


class Loader:
    """Iterates over the batches of a split, or over this host's share of each.

    The rows of a batch and their places in it are those of `order`, whatever the number of
    workers. Worker processes are forked here and live until `close`: make a loader before a device
    is opened. Without `max_rows` batches come without end, epoch after epoch, and a new iteration
    goes on where the last one stopped. With it, each iteration is one pass over the first
    `max_rows` rows of epoch 0 (of a part of a split: take a shuffled order, since stored order
    begins with one class); the first one may begin later, at `first_batch`. Between passes nothing
    is read.

    Args:
        source, order: the split and its order; `order` must be made of `source.row_groups`.
        tokenizer: from `load_tokenizer`.
        workers: processes; 0: all in this one. Lowered to what can be kept busy.
        max_length: T, tokens that the model sees; a batch has T + 1.
        prefetch: batches that each worker may have ready.
        position: `Batch.position` of the last batch trained on; None: from the beginning.
        max_rows, first_batch: see above.
        is_parked: nothing is read before the first iteration either; needs `max_rows`.
        ahead_bytes: what may be read before it is needed, over all workers, and at most an epoch;
            of row groups so large that they lie in files, a lane's window for each worker at least;
            see `ReadAhead`.
        connections: to the Hub, over all workers; at least one each.
        max_pixels: larger images are skipped ("too large").
        hub: where the source's files are; None for local files.
        cache: keeps what was read; None keeps nothing.
        accept_revision: take a position of another revision of the data.
        max_skipped_fraction: more skipped rows than this end the iteration with a DataError.
        host, num_hosts: slot k of each global batch belongs to host k mod num_hosts.

    Raises:
        DataError: the position is not one of this order, or the batch does not divide by hosts.
    """

    def __init__(
        self,
        source: Source,
        order: Order,
        tokenizer: BertTokenizer,
        *,
        workers: int,
        max_length: int,
        prefetch: int = 4,
        position: Mapping[str, Any] | None = None,
        max_rows: int | None = None,
        first_batch: int = 0,
        is_parked: bool = False,
        ahead_bytes: int = 256_000_000,
        connections: int = 8,
        max_pixels: int = MAX_PIXELS,
        hub: Hub | None = None,
        cache: Cache | None = None,
        accept_revision: bool = False,
        max_skipped_fraction: float = 0.01,
        host: int = 0,
        num_hosts: int = 1,
    ) -> None:
        if order.batch_size % num_hosts:
            raise DataError(
                f"a batch of {order.batch_size} rows cannot be shared by {num_hosts} hosts:"
                " data.batch_size must divide by their number"
            )
        assert max_rows is None or (position is None and 0 < max_rows <= order.num_rows)
        assert first_batch == 0 or max_rows is not None
        self._order = order
        self._share = Share(order, max_rows, host, num_hosts)
        self._revision = source.revision
        self._max_length = max_length
        self._pad_id = tokenizer.pad_token_id
        self._max_skipped_fraction = max_skipped_fraction
        self._seen = 0
        self._skipped: dict[str, int] = {}
        self._next = first_batch
        self._is_parked = is_parked
        self._begun = False
        if position is not None:
            self._next = self._batch_after(position, accept_revision)

        self.effective_workers = useful_workers(workers, self._share)
        if self.effective_workers < workers:
            _log.warning(
                "data.workers=%d lowered to %d: one for each %s of this host",
                workers,
                self.effective_workers,
                "lane" if order.shuffle else "row group",
            )
        processes = max(1, self.effective_workers)
        sizes = [group.num_bytes for group in source.row_groups]
        ahead_bytes = max(ahead_bytes // processes, _least_ahead(sizes, order))
        # Of a small data set, no more than an epoch: a run may end before the next one.
        ahead_bytes = min(ahead_bytes, sum(sizes) // num_hosts // processes)
        self._spool = Spool()
        self._makers = [
            PartMaker(
                source,
                Shelf(
                    source,
                    hub=hub.own(max(1, connections // processes)) if hub else None,
                    spool=self._spool,
                    cache=cache,
                    max_pixels=max_pixels,
                ),
                self._share,
                tokenizer,
                max_length=max_length,
                max_pixels=max_pixels,
                worker=worker,
                workers=processes,
                ahead_bytes=ahead_bytes,
            )
            for worker in range(processes)
        ]
        shape = (len(self._share.places), *_IMAGE_SHAPE)
        self._images = Recycled(shape)
        self._pool: WorkerPool | None = None
        if self.effective_workers:
            first = None if is_parked else self._next
            self._pool = WorkerPool(
                self._makers, shape, max(1, prefetch), first, self._end_of_pass(self._next)
            )
        # An interpreter that ends while a thread of its own reads may hang or abort.
        atexit.register(self.close)

    def __iter__(self) -> Iterator[Batch]:
        share = self._share
        stop = None
        if share.max_rows is not None:
            self._begin_pass()
            stop = self._end_of_pass(self._next)
        while stop is None or self._next < stop:
            batch = self._make_batch(self._next)
            self._next += 1
            self._judge(batch, at_end=self._next % share.batches_per_pass == 0)
            yield batch

    def close(self) -> None:
        """End the workers and drop what is open. Safe to call twice."""
        atexit.unregister(self.close)
        if self._pool is not None:
            self._pool.close()
        else:
            self._makers[0].close()
        self._spool.close()

    def _begin_pass(self) -> None:
        """Go to the beginning of the next pass, also where the last one was left early."""
        if self._begun:
            self._next = self._after_pass(self._next - 1)
        if self._pool is not None and (self._begun or self._is_parked):
            self._pool.restart(self._next, self._end_of_pass(self._next))
        self._begun = True

    def _end_of_pass(self, number: int) -> int | None:
        """The first batch after the pass that a batch is of; None where there are no passes."""
        return None if self._share.max_rows is None else self._after_pass(number)

    def _after_pass(self, number: int) -> int:
        per_pass = self._share.batches_per_pass
        return (number // per_pass + 1) * per_pass

    def _make_batch(self, number: int) -> Batch:
        images = self._images.take()
        if self._pool is None:
            prepared = self._images.take()
            parts = [(self._makers[0](number, prepared), prepared)]
        else:
            parts = self._pool.get(number)
        for part, prepared in parts:
            part.fill(images, prepared)
        if self._pool is not None:
            self._pool.release()
        return self._assemble(number, images, [part for part, _ in parts])

    def _assemble(self, number: int, images: np.ndarray, parts: list[Part]) -> Batch:
        rows = len(images)
        tokens = np.full((rows, self._max_length + 1), self._pad_id, dtype=np.int32)
        valid = np.zeros(rows, dtype=bool)
        row_ids, captions, labels = [""] * rows, [""] * rows, [Labels()] * rows
        counts = BatchCounts()
        for part in parts:
            tokens[part.slots] = part.tokens
            valid[part.slots] = True
            for i, slot in enumerate(part.slots):
                row_ids[slot] = part.row_ids[i]
                captions[slot] = part.captions[i]
                labels[slot] = part.labels[i]
            counts.truncated += part.truncated
            counts.traffic += part.traffic
            counts.waited_s += part.waited_s
            counts.worked_s += part.worked_s
        skipped = sorted(row for part in parts for row in part.skipped)
        for slot, row_id, reason in skipped:
            row_ids[slot] = row_id
            times, first = counts.skipped.get(reason, (0, row_id))
            counts.skipped[reason] = (times + 1, first)
        good, empty = np.flatnonzero(valid), np.flatnonzero(~valid)
        counts.rows = len(good) + len(skipped)
        images[empty] = images[good[np.arange(len(empty)) % len(good)]] if len(good) else 0
        return Batch(
            images=torch.from_numpy(images),
            tokens=torch.from_numpy(tokens),
            pad_id=self._pad_id,
            valid=torch.from_numpy(valid),
            rows=row_ids,
            captions=captions,
            labels=labels,
            epoch=self._share.locate(number)[0],
            position=self._position_after(number),
            counts=counts,
            reasons={slot: reason for slot, _, reason in skipped},
        )

    def _position_after(self, number: int) -> dict[str, Any]:
        epoch, batch = self._share.locate(number + 1)
        return {
            "epoch": epoch,
            "batch": batch,
            "order": self._order.fingerprint,
            "revision": self._revision,
        }

    def _batch_after(self, position: Mapping[str, Any], accept_revision: bool) -> int:
        ours = {"revision": self._revision, "order": self._order.fingerprint}
        if position.get("revision") != self._revision and accept_revision:
            # The rows are others, and so is their order; the place in the epoch stays.
            ours = {}
        for key, value in ours.items():
            if position.get(key) != value:
                raise DataError(
                    f"the data cannot be resumed: its {key} was {position.get(key)} and is now"
                    f" {value}; the same data, seed, batch size, lanes and window are needed"
                    " (data.accept_revision=true goes on with another revision)"
                )
        batch = min(position["batch"], self._order.batches_per_epoch - 1)
        return position["epoch"] * self._order.batches_per_epoch + batch

    def _judge(self, batch: Batch, *, at_end: bool) -> None:
        """Count skipped rows, tell of the first of each kind, and stop when they are too many."""
        self._seen += batch.counts.rows
        for reason, (times, first) in batch.counts.skipped.items():
            if reason not in self._skipped:
                _log.warning("row %s skipped: %s (told once; others are counted)", first, reason)
            self._skipped[reason] = self._skipped.get(reason, 0) + times
        total = sum(self._skipped.values())
        enough = self._seen >= _ROWS_TO_JUDGE or at_end
        if enough and total > self._max_skipped_fraction * self._seen:
            reasons = ", ".join(f"{reason}: {times}" for reason, times in self._skipped.items())
            raise DataError(
                f"{total} of {self._seen} rows had to be skipped ({reasons}), more than"
                f" data.max_skipped_fraction={self._max_skipped_fraction} allows"
            )


def _least_ahead(group_bytes: Sequence[int], order: Order) -> int:
    """Bytes of large row groups that a worker reads ahead whatever the bound.

    Where a lane's window begins, all its row groups are needed at once, and one worker that waits
    for them lets all others wait. In files they take no memory.
    """
    if not (order.shuffle and is_spooled(sum(group_bytes) / len(group_bytes))):
        return 0
    window = order.window_rows * sum(group_bytes) / order.num_rows
    return int(window) + max(group_bytes)  # windows are not cut at the borders of row groups
