"""What one process prepares of a batch: rows read, checked, decoded and tokenized."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from radcap.data.collate import CaptionEncoder
from radcap.data.download import Traffic
from radcap.data.images import ImageError, decode_image
from radcap.data.order import Order, Slots
from radcap.data.reader import RowReader
from radcap.data.records import Example, Skipped
from radcap.data.shelf import Shelf
from radcap.data.source import Source
from radcap.labels import Labels

if TYPE_CHECKING:
    from transformers import BertTokenizer


@dataclass(frozen=True)
class Share:
    """One host's rows of the batches of an order, and how batches are numbered.

    Slot k of a global batch belongs to host k mod num_hosts. Batches are numbered on and on:
    through the epochs, or with `max_rows` through passes over the first rows of epoch 0.
    """

    order: Order
    max_rows: int | None = None
    host: int = 0
    num_hosts: int = 1

    @property
    def places(self) -> range:
        """This host's slots of a global batch."""
        return range(self.host, self.order.batch_size, self.num_hosts)

    @property
    def batches_per_pass(self) -> int:
        rows = self.order.num_rows if self.max_rows is None else self.max_rows
        return -(-rows // self.order.batch_size)

    def locate(self, number: int) -> tuple[int, int]:
        """(epoch, batch in it) of batch number `number`."""
        rounds, batch = divmod(number, self.batches_per_pass)
        return (rounds if self.max_rows is None else 0), batch

    def slots(self, number: int, streams: np.ndarray | None = None) -> Slots:
        """This host's slots of a batch: padding beyond `max_rows` and, with `streams` (see
        `Order.slots`), for rows of other streams."""
        epoch, batch = self.locate(number)
        slots = self.order.slots(epoch, batch, streams)
        if self.max_rows is not None:
            slots = slots.first(self.max_rows - batch * self.order.batch_size)
        return slots.take(self.places)

    def deal(self, workers: int) -> np.ndarray:
        """The worker that reads each stream: int64 [streams].

        Lanes are dealt longest first: towards the end of an epoch the longest alone have rows
        left, and no worker should have them all. (In stored order a stream is a row group.)
        """
        if not self.order.shuffle:
            return np.arange(len(self.order.group_rows)) % workers
        dealt = np.empty(self.order.lanes, dtype=np.int64)
        for host in range(self.num_hosts):
            lanes = np.arange(host, self.order.lanes, self.num_hosts)
            longest_first = lanes[np.argsort(-self.order.lane_rows[lanes], kind="stable")]
            dealt[longest_first] = np.arange(len(lanes)) % workers
        return dealt


@dataclass
class Part:
    """Some rows of a batch. `slots` are the good ones; the n-th has the n-th image, row of
    `tokens` (int32 [N, T + 1]), row id, caption and labels, and is grey where `grey` says so.
    `skipped` are the others: slot, row id, reason."""

    slots: list[int] = field(default_factory=list)
    grey: list[bool] = field(default_factory=list)
    row_ids: list[str] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    labels: list[Labels] = field(default_factory=list)
    skipped: list[tuple[int, str, str]] = field(default_factory=list)
    tokens: np.ndarray = field(default_factory=lambda: np.empty((0, 0), dtype=np.int32))
    truncated: int = 0
    traffic: Traffic = field(default_factory=Traffic)

    def fill(self, images: np.ndarray, prepared: np.ndarray) -> None:
        """Put pictures as a `PartMaker` left them into their slots; both uint8 [., 3, 224, 224]."""
        for picture, slot, is_grey in zip(prepared, self.slots, self.grey, strict=False):
            images[slot] = picture[:1] if is_grey else picture


class PartMaker:
    """Prepares the rows of one worker of a share: those of the streams dealt to it."""

    def __init__(
        self,
        source: Source,
        shelf: Shelf,
        share: Share,
        tokenizer: BertTokenizer,
        *,
        max_length: int,
        max_pixels: int,
        worker: int,
        workers: int,
    ) -> None:
        self._reader = RowReader(shelf, source.row_groups, share.order)
        self._shelf = shelf
        self._source = source
        self._share = share
        self._encode = CaptionEncoder(tokenizer, max_length)
        self._max_pixels = max_pixels
        self._is_mine = share.deal(workers) == worker
        self._expected = 0

    def __call__(self, number: int, images: np.ndarray) -> Part:
        """Fill `images` (uint8 [B, 3, 224, 224]) from the front with the good rows of batch
        `number`, and say what they are. Of a grey one only the first channel is written: memory
        that no cache holds costs more than the rest of a row's way to the trainer."""
        repeats = self._share.max_rows is not None and self._share.locate(number)[1] == 0
        if number != self._expected or repeats:
            self._reader.forget()
        self._expected = number + 1
        hub = self._shelf.hub
        before = hub.traffic.copy() if hub else Traffic()
        slots = self._share.slots(number, self._is_mine)
        columns = (slots.group, slots.row, slots.stream, slots.offset)
        part = Part()
        for slot, (group, row, stream, offset) in enumerate(np.stack(columns, axis=1).tolist()):
            if stream >= 0:
                row_id = self._source.row_id(group, row)
                found = self._reader.take(slots.epoch, stream, offset)
                self._add_row(part, slot, row_id, found, images)
        part.tokens, cut = self._encode(part.captions)
        part.truncated = int(cut.sum())
        if hub:
            part.traffic = hub.traffic.since(before)
        return part

    def close(self) -> None:
        """Close what is open."""
        self._reader.forget()

    def _add_row(
        self, part: Part, slot: int, row_id: str, row: Example | Skipped, images: np.ndarray
    ) -> None:
        if isinstance(row, Example):
            try:
                pixels = self._pixels(row)
            except ImageError as error:
                row = Skipped(error.reason)
        if isinstance(row, Skipped):
            part.skipped.append((slot, row_id, row.reason))
            return
        is_grey = len(pixels) == 1 or pixels.strides[0] == 0  # one channel, shown three times
        images[len(part.slots), : 1 if is_grey else 3] = pixels[:1] if is_grey else pixels
        part.grey.append(is_grey)
        part.slots.append(slot)
        part.row_ids.append(row_id)
        part.captions.append(row.caption)
        part.labels.append(row.labels)

    def _pixels(self, row: Example) -> np.ndarray:
        if row.pixels is not None:
            return row.pixels
        return decode_image(row.image, max_pixels=self._max_pixels)


def useful_workers(workers: int, share: Share) -> int:
    """At most one worker for each lane of the share (in stored order: each row group)."""
    order = share.order
    if order.shuffle:
        return min(workers, max(1, order.lanes // share.num_hosts))
    return min(workers, len(order.group_rows))
