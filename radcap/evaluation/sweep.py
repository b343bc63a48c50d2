"""Goes over the rows of a split in their order: the loss of every one, the captions of some."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from PIL import Image
from torch import Tensor

from radcap.data.collate import Batch
from radcap.errors import RadcapError
from radcap.evaluation.results import RowResult, WorstRows
from radcap.inference.captions import CaptionCollector
from radcap.model.captioner import ImageCaptioningModel
from radcap.runtime.base import Runtime
from radcap.training.step import row_loss_sums

# Results are handed out at the latest after so many rows of a process: their pictures wait for it.
_ROWS_AT_A_TIME = 512


class Sweep:
    """One pass over the rows, by one process or by several that each have a share of every batch.

    Attributes:
        seen: rows met so far by this process, padding included.
    """

    def __init__(
        self,
        model: ImageCaptioningModel,
        runtime: Runtime,
        collector: CaptionCollector,
        *,
        first_row: int,
        num_rows: int,
        wanted: Iterable[int],
        worst: WorstRows,
        is_cut: Callable[[str], bool],
    ) -> None:
        """Args:
        model: placed, in evaluation mode.
        collector: makes the captions.
        first_row: number of the first row of the first batch.
        num_rows: rows of the whole pass.
        wanted: numbers of the rows to caption.
        worst: tells which pictures may be shown later.
        is_cut: whether a caption is longer than a row of tokens; asked of those that fill theirs.
        """
        self._model, self._runtime, self._collector = model, runtime, collector
        self._first_row, self._num_rows = first_row, num_rows
        self._wanted, self._worst = frozenset(wanted), worst
        self._is_cut = is_cut
        self.seen = 0
        self._losses: list[Tensor] = []
        self._queued: list[list[RowResult | None]] = []  # by batch and slot; None for padding
        self._scored: dict[int, RowResult] = {}  # with a loss; those wanted wait for a caption
        self._pictures: dict[int, bytes] = {}

    def run(
        self,
        batches: Iterator[tuple[Batch, Tensor, Tensor]],
        decide: Callable[[], tuple[bool, bool]],
    ) -> Iterator[tuple[list[RowResult], dict[int, bytes]]]:
        """Score batch after batch.

        Args:
            batches: of the runtime.
            decide: asked after every batch, with the same answers in all processes: whether to
                end the pass early, and whether to hand out what there is.

        Yields:
            The rows that follow those before, of all processes, and PNGs of some of them.
        """
        waiting = 0
        for batch, images, tokens in batches:
            with self._runtime.purpose("evaluate"):
                losses = row_loss_sums(
                    self._model, self._runtime, images, tokens, pad_id=batch.pad_id
                )
                self._losses.append(losses)
                self._runtime.end_step()
            self._note(batch)
            waiting += len(batch.rows)
            stop, due = decide()
            if stop:
                break
            if due or waiting >= _ROWS_AT_A_TIME:
                waiting = 0
                yield self._hand_out()
        self._collector.finish()
        yield self._hand_out()

    def _note(self, batch: Batch) -> None:
        """Queue the rows of a batch, and those that are wanted for their captions."""
        runtime = self._runtime
        rows: list[RowResult | None] = []
        for slot, row_id in enumerate(batch.rows):
            # A batch's rows are dealt to the processes in turn.
            place = (self.seen + slot) * runtime.num_processes + runtime.process_index
            number = self._first_row + place
            if number >= self._num_rows:
                rows.append(None)
            elif not batch.valid[slot]:
                rows.append(RowResult(number, row_id, skipped=batch.reasons[slot]))
            else:
                if number in self._wanted:
                    self._collector.add(batch, slot, number, shown=True)
                rows.append(
                    RowResult(
                        number,
                        row_id,
                        tokens=int((batch.tokens[slot, 1:] != batch.pad_id).sum()),
                        reference=batch.captions[slot],
                        labels=batch.labels[slot],
                        cut=bool(batch.tokens[slot, -1] != batch.pad_id)
                        and self._is_cut(batch.captions[slot]),
                    )
                )
        self.seen += len(batch.rows)
        self._queued.append(rows)

    def _hand_out(self) -> tuple[list[RowResult], dict[int, bytes]]:
        """Read the device, and part with all rows before the first that waits for its caption."""
        self._read_losses()
        self._add_captions()
        open_row = self._collector.first_waiting
        done = self._first_row + self.seen * self._runtime.num_processes
        limit = min(self._runtime.gather(done if open_row is None else open_row))
        mine = sorted(number for number in self._scored if number < limit)
        results = [self._scored.pop(number) for number in mine]
        pictures = {n: self._pictures.pop(n) for n in mine if n in self._pictures}
        parts = self._runtime.gather((results, pictures))
        together = sorted((one for part, _ in parts for one in part), key=lambda one: one.row)
        for one in together:
            if not math.isfinite(one.loss):
                raise RadcapError(
                    f"row {one.row:,} ({one.id}): the loss is {one.loss}; these weights "
                    "are too large for this precision, or their training had gone astray"
                )
        return together, {n: picture for _, some in parts for n, picture in some.items()}

    def _read_losses(self) -> None:
        losses = self._runtime.to_host(self._losses)
        for rows, values in zip(self._queued, losses, strict=True):
            for row, loss in zip(rows, values.tolist(), strict=True):
                if row is not None:
                    self._scored[row.row] = row if row.skipped else _with(row, loss=loss)
        self._losses, self._queued = [], []

    def _add_captions(self) -> None:
        captions, samples = self._collector.take()
        for caption, sample in zip(captions, samples, strict=True):
            row = _with(self._scored[caption.number], caption=caption.text)
            self._scored[caption.number] = row
            if self._worst.add(row):
                self._pictures[row.row] = _png(sample.image)


def _with(row: RowResult, **changes: object) -> RowResult:
    return RowResult(**{**row.__dict__, **changes})  # dataclasses.replace takes ten times as long


def _png(image: np.ndarray) -> bytes:
    """uint8 [3, 224, 224] as a file."""
    stream = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(stream, "PNG")
    return stream.getvalue()
