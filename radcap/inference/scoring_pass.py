"""One pass over the rows of a split in their order: all of them scored, some of them captioned."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import BertTokenizer

from radcap.data.collate import Batch
from radcap.data.labels import Labels
from radcap.inference.captions import caption_images
from radcap.model.captioner import ImageCaptioningModel
from radcap.runtime.base import Runtime

S = TypeVar("S")  # the scores of a batch


@dataclass(frozen=True)
class CaptionedRow:
    """A row of a split with the caption generated for its image.

    Attributes:
        number: of the row in the split's order.
        image: uint8 [3, 224, 224].
        generated: the caption.
        reference, labels: what the data says.
    """

    number: int
    image: np.ndarray
    generated: str
    reference: str
    labels: Labels = field(default_factory=Labels)


class ScoringPass(Generic[S]):
    """One pass over a split, by one process or by several that each have a share of every batch.

    Attributes:
        done: number of the row after the last batch that was scored, of all processes; beyond the
            split's last row where the last batch has padding.
    """

    def __init__(
        self,
        model: ImageCaptioningModel,
        runtime: Runtime,
        tokenizer: BertTokenizer,
        *,
        purpose: str,
        score: Callable[[ImageCaptioningModel, Runtime, Tensor, Tensor, int], S],
        captioned: Collection[int],
        max_new_tokens: int,
        num_beams: int = 1,
        first_row: int = 0,
    ) -> None:
        """Args:
        model: placed, in evaluation mode.
        tokenizer: gives the captions' text.
        purpose: whose the graph of `score` is, see `Runtime.purpose`.
        score: scores a batch from model, runtime, images, tokens and [PAD] without a read of the
            device, such as `radcap.training.step.validation_sums`.
        captioned: numbers of the rows to caption.
        max_new_tokens: longest caption generated.
        num_beams: see `ImageCaptioningModel.generate`.
        first_row: number of the first row of the first batch.
        """
        self._model, self._runtime, self._tokenizer = model, runtime, tokenizer
        self._purpose, self._score = purpose, score
        self._captioned = frozenset(captioned)
        self._max_new_tokens, self._num_beams = max_new_tokens, num_beams
        self._batch_size = 0
        self._waiting: list[CaptionedRow] = []  # for a batch of them
        self._ready: list[CaptionedRow] = []
        self.done = first_row

    @property
    def settled(self) -> int:
        """Number of the first row that this process has not scored, or that waits for a caption."""
        return self._waiting[0].number if self._waiting else self.done

    def run(
        self, batches: Iterable[tuple[Batch, Tensor, Tensor]]
    ) -> Iterator[tuple[Batch, range, S]]:
        """Score batch after batch. A captioned row may wait for `finish`.

        Args:
            batches: of the runtime.

        Yields:
            The batch, the numbers of its rows and its scores, which are still on the device.
        """
        runtime = self._runtime
        for batch, images, tokens in batches:
            with runtime.purpose(self._purpose):
                scores = self._score(self._model, runtime, images, tokens, batch.pad_id)
                runtime.end_step()
            # A batch's rows are dealt to the processes in turn.
            first, step = self.done + runtime.process_index, runtime.num_processes
            self.done += len(batch.rows) * step
            numbers = range(first, self.done, step)
            self._batch_size = len(batch.rows)
            for slot, number in enumerate(numbers):
                if number in self._captioned and batch.valid[slot]:
                    self._add(batch, slot, number)
            yield batch, numbers, scores

    def _add(self, batch: Batch, slot: int, number: int) -> None:
        image = batch.images[slot].numpy().copy()  # a view would keep the whole batch in memory
        row = CaptionedRow(number, image, "", batch.captions[slot], batch.labels[slot])
        self._waiting.append(row)
        if len(self._waiting) == self._batch_size:
            self.finish()

    def finish(self) -> None:
        """Caption the rows that wait."""
        rows, self._waiting = self._waiting, []
        if not rows:
            return
        captions = caption_images(
            self._model,
            self._runtime,
            self._tokenizer,
            torch.from_numpy(np.stack([row.image for row in rows])),
            batch_size=self._batch_size,
            max_new_tokens=self._max_new_tokens,
            num_beams=self._num_beams,
        )
        for row, caption in zip(rows, captions, strict=True):
            self._ready.append(replace(row, generated=caption.text))

    def take(self) -> list[CaptionedRow]:
        """The rows captioned since the last time, in their order."""
        ready, self._ready = self._ready, []
        return ready


def evenly(total: int, count: int) -> list[int]:
    """`count` of the numbers below `total`, evenly spread; all of them where there are fewer."""
    count = min(count, total)
    return [i * total // count for i in range(count)]
