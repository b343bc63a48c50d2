"""From scored rows of a split to results in their order, with images of the worst."""

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
from radcap.inference.scoring_pass import ScoringPass
from radcap.runtime.base import Runtime

# Results are handed out at the latest after so many rows of a process: their pictures wait for it.
_ROWS_AT_A_TIME = 512


class RowScorer:
    """Makes the results of a scoring pass over the rows."""

    def __init__(
        self,
        runtime: Runtime,
        scoring: ScoringPass[Tensor],
        *,
        num_rows: int,
        worst: WorstRows,
        is_cut: Callable[[str], bool],
    ) -> None:
        """Args:
        scoring: gives the losses of the rows of a batch.
        num_rows: rows of the whole pass.
        worst: tells which pictures may be shown later.
        is_cut: whether a caption is longer than a row of tokens; asked of those that fill theirs.
        """
        self._runtime, self._scoring = runtime, scoring
        self._num_rows, self._worst, self._is_cut = num_rows, worst, is_cut
        # Batches on the device, their rows by slot; None for padding.
        self._queued: list[tuple[list[RowResult | None], Tensor]] = []
        self._scored: dict[int, RowResult] = {}  # with a loss; some wait for a caption
        self._pictures: dict[int, bytes] = {}

    def run(
        self,
        batches: Iterable[tuple[Batch, Tensor, Tensor]],
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
        for batch, numbers, losses in self._scoring.run(batches):
            rows = [self._row(batch, slot, number) for slot, number in enumerate(numbers)]
            self._queued.append((rows, losses))
            waiting += len(numbers)
            stop, due = decide()
            if stop:
                break
            if due or waiting >= _ROWS_AT_A_TIME:
                waiting = 0
                yield self._hand_out()
        self._scoring.finish()
        yield self._hand_out()

    def _row(self, batch: Batch, slot: int, number: int) -> RowResult | None:
        """A row without its loss; None for padding."""
        if number >= self._num_rows:
            return None
        if not batch.valid[slot]:
            return RowResult(number, batch.rows[slot], skipped=batch.reasons[slot])
        tokens, caption = batch.tokens[slot], batch.captions[slot]
        return RowResult(
            number,
            batch.rows[slot],
            tokens=int((tokens[1:] != batch.pad_id).sum()),
            reference=caption,
            labels=batch.labels[slot],
            cut=bool(tokens[-1] != batch.pad_id) and self._is_cut(caption),
        )

    def _hand_out(self) -> tuple[list[RowResult], dict[int, bytes]]:
        """Read the device, and part with all rows before the first that waits for its caption."""
        self._read_losses()
        self._add_captions()
        limit = min(self._runtime.gather(self._scoring.settled))
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
        losses = self._runtime.to_host([losses for _, losses in self._queued])
        for (rows, _), values in zip(self._queued, losses, strict=True):
            for row, loss in zip(rows, values.tolist(), strict=True):
                if row is not None:
                    self._scored[row.row] = row if row.skipped else _with(row, loss=loss)
        self._queued = []

    def _add_captions(self) -> None:
        for captioned in self._scoring.take():
            row = _with(self._scored[captioned.number], caption=captioned.generated)
            self._scored[row.row] = row
            if self._worst.add(row):
                self._pictures[row.row] = _png(captioned.image)


def _with(row: RowResult, **changes: object) -> RowResult:
    return RowResult(**{**row.__dict__, **changes})  # dataclasses.replace takes ten times as long


def _png(image: np.ndarray) -> bytes:
    """uint8 [3, 224, 224] as a file."""
    stream = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(stream, "PNG")
    return stream.getvalue()
