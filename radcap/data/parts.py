"""What one process prepares of a batch: rows read, checked, decoded and tokenized."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from radcap.data.collate import CaptionEncoder
from radcap.data.hub.download import Traffic
from radcap.data.image.decode import ImageError, decode_image
from radcap.data.labels import Labels
from radcap.data.plan import Plan
from radcap.data.reader import RowReader
from radcap.data.records import Example, Skipped
from radcap.data.share import Share
from radcap.data.shelf import Shelf
from radcap.data.source import Source

if TYPE_CHECKING:
    from transformers import BertTokenizer


@dataclass
class Part:
    """Some rows of a batch. `slots` are the good ones; the n-th has the n-th image, row of
    `tokens` (int32 [N, T + 1]), row id, caption and labels, and is grey where `grey` says so.
    `skipped` are the others: slot, row id, reason. `waited_s` and `worked_s` are the seconds that
    its rows were waited for, and the others that it took."""

    slots: list[int] = field(default_factory=list)
    grey: list[bool] = field(default_factory=list)
    row_ids: list[str] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    labels: list[Labels] = field(default_factory=list)
    skipped: list[tuple[int, str, str]] = field(default_factory=list)
    tokens: np.ndarray = field(default_factory=lambda: np.empty((0, 0), dtype=np.int32))
    truncated: int = 0
    traffic: Traffic = field(default_factory=Traffic)
    waited_s: float = 0.0
    worked_s: float = 0.0

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
        ahead_bytes: int,
    ) -> None:
        self._is_mine = share.deal(workers) == worker
        self._reader = RowReader(
            shelf,
            Plan(source.row_groups, share, self._is_mine),
            ahead_bytes=ahead_bytes,
            # Local files gain nothing from more: they are parsed one after the other.
            num_threads=shelf.hub.connections.most if shelf.hub else 1,
        )
        self._hub = shelf.hub
        self._source = source
        self._share = share
        self._encode = CaptionEncoder(tokenizer, max_length)
        self._max_pixels = max_pixels
        self._expected = -1
        self._reported = Traffic()

    def __call__(self, number: int, images: np.ndarray) -> Part:
        """Fill `images` (uint8 [B, 3, 224, 224]) from the front with the good rows of batch
        `number`, and say what they are. Of a grey one only the first channel is written: memory
        that no cache holds costs more than the rest of a row's way to the trainer."""
        began, waited_s = time.monotonic(), self._reader.waited_s
        repeats = self._share.max_rows is not None and self._share.locate(number)[1] == 0
        if number != self._expected or repeats:
            self._reader.begin(number)
        self._expected = number + 1
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
        if self._hub is not None:
            now = self._hub.traffic.copy()
            part.traffic, self._reported = now.since(self._reported), now
        part.waited_s = self._reader.waited_s - waited_s
        part.worked_s = time.monotonic() - began - part.waited_s
        return part

    def close(self) -> None:
        """Close what is open."""
        self._reader.close()

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
