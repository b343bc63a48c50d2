"""Captions of images on a runtime's device, and those of chosen validation images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import BertTokenizer

from radcap.data.collate import Batch
from radcap.data.labels import Labels
from radcap.model.attention import cross_attention
from radcap.model.captioner import ImageCaptioningModel
from radcap.model.generate import Hypotheses
from radcap.runtime.base import Runtime


@dataclass(frozen=True)
class Caption:
    """What was generated for a row."""

    number: int  # of the row in the split's order
    text: str
    labels: Labels


@dataclass(frozen=True)
class Sample:
    """A validation image with its captions."""

    number: int  # of the row in the split's order
    image: np.ndarray  # uint8 [3, 224, 224]
    generated: str
    reference: str


@dataclass(frozen=True)
class _Row:
    """A validation row on its way to a caption."""

    number: int
    image: Tensor  # uint8 [3, 224, 224]
    reference: str
    labels: Labels
    shown: bool


@dataclass
class _Images:
    """What the device gets."""

    images: Tensor  # uint8 [B, 3, 224, 224]
    # A runtime sends images and tokens of a batch together; the search asks for images alone.
    tokens: Tensor  # int32 [B, T]
    pad_id: int

    @classmethod
    def filled_up(cls, images: Tensor, tokens: Tensor, pad_id: int, batch_size: int) -> _Images:
        """With black images and [PAD] below, `batch_size` rows in all."""
        missing = batch_size - len(images)
        black = images.new_zeros(missing, *images.shape[1:])
        padding = tokens.new_full((missing, *tokens.shape[1:]), pad_id)
        return cls(torch.cat([images, black]), torch.cat([tokens, padding]), pad_id)


def search_captions(
    model: ImageCaptioningModel,
    runtime: Runtime,
    tokenizer: BertTokenizer,
    images: Tensor,
    *,
    batch_size: int,
    max_new_tokens: int,
    num_beams: int = 1,
) -> Hypotheses:
    """Caption a batch of images on the runtime's device.

    On a compiling device, batches of one size run the same graphs, and their rows are spread over
    the devices like those of a data batch: keep to one `batch_size` there.

    Args:
        model: on the runtime's device.
        tokenizer: gives the special tokens.
        images: uint8 [N, 3, 224, 224] on the host.
        batch_size: at least N; filled up with black images.
        max_new_tokens: longest caption generated.
        num_beams: see `ImageCaptioningModel.generate`.

    Returns:
        The captions of the N images.
    """
    pad_id = tokenizer.pad_token_id
    tokens = torch.full((len(images), 1), pad_id, dtype=torch.int32)
    batch = _Images.filled_up(images, tokens, pad_id, batch_size)
    with runtime.purpose("generate"), runtime.arithmetic():
        for _, on_device, _ in runtime.batches([batch]):
            found = model.search(
                on_device,
                max_len=max_new_tokens,
                num_beams=num_beams,
                start_id=tokenizer.cls_token_id,
                end_id=tokenizer.sep_token_id,
                pad_id=pad_id,
                step_boundary=runtime.step_boundary,
            )
    return Hypotheses(*(part[: len(images)] for part in found))


@torch.no_grad()
def caption_attention(
    model: ImageCaptioningModel,
    runtime: Runtime,
    images: Tensor,
    tokens: Tensor,
    *,
    pad_id: int,
    batch_size: int,
) -> Tensor:
    """Where the decoder looks while it reads captions, on the runtime's device.

    On a compiling device, keep to one `batch_size` and one T.

    Args:
        model: on the runtime's device, in evaluation mode.
        images: uint8 [N, 3, 224, 224] on the host.
        tokens: int32 [N, T] on the host, the start token first.
        pad_id: what fills them up on the right.
        batch_size: at least N; filled up with black images.

    Returns:
        float32 [N, T, 49] on the CPU: cross-attention, the mean of all heads of all layers.
    """
    batch = _Images.filled_up(images, tokens, pad_id, batch_size)
    with runtime.purpose("generate"), runtime.arithmetic():
        for _, images_there, tokens_there in runtime.batches([batch]):
            memory = model.encode_images(images_there)
            weights = cross_attention(model, memory, tokens_there).float().mean(dim=(0, 2))
    return weights.cpu()[: len(images)]


class CaptionCollector:
    """Collects images and captions them, a whole batch of the data's size at a time.

    Attributes:
        captions: those made so far.
        samples: the rows to show, of these.
    """

    def __init__(
        self,
        model: ImageCaptioningModel,
        runtime: Runtime,
        tokenizer: BertTokenizer,
        max_new_tokens: int,
        *,
        num_beams: int = 1,
    ) -> None:
        """Args:
        model: on the runtime's device.
        max_new_tokens: longest caption generated.
        num_beams: see `ImageCaptioningModel.generate`.
        """
        self._model = model
        self._runtime = runtime
        self._tokenizer = tokenizer
        self._max_new_tokens = max_new_tokens
        self._num_beams = num_beams
        self._batch_size = 0
        self._waiting: list[_Row] = []
        self.captions: list[Caption] = []
        self.samples: list[Sample] = []

    @property
    def first_waiting(self) -> int | None:
        """Number of the first row that was added and has no caption yet."""
        return self._waiting[0].number if self._waiting else None

    def take(self) -> tuple[list[Caption], list[Sample]]:
        """Hand out what `captions` and `samples` hold, and forget it."""
        taken = self.captions, self.samples
        self.captions, self.samples = [], []
        return taken

    def add(self, batch: Batch, row: int, number: int, *, shown: bool) -> None:
        """Take a row of a batch; its caption may be made later.

        Args:
            number: of the row in the split's order.
            shown: whether it becomes a sample.
        """
        self._batch_size = len(batch.rows)
        image = batch.images[row].clone()  # a view would keep the whole batch in memory
        self._waiting.append(_Row(number, image, batch.captions[row], batch.labels[row], shown))
        if len(self._waiting) == self._batch_size:
            self.finish()

    def finish(self) -> None:
        """Caption what is waiting."""
        rows, self._waiting = self._waiting, []
        if not rows:
            return
        images = torch.stack([row.image for row in rows])
        found = search_captions(
            self._model,
            self._runtime,
            self._tokenizer,
            images,
            batch_size=self._batch_size,
            max_new_tokens=self._max_new_tokens,
            num_beams=self._num_beams,
        )
        texts = self._tokenizer.batch_decode(found.ids[:, 0], skip_special_tokens=True)
        for row, text in zip(rows, texts, strict=True):
            self.captions.append(Caption(row.number, text, row.labels))
            if row.shown:
                self.samples.append(Sample(row.number, row.image.numpy(), text, row.reference))
