"""Validation: the token-true loss of a split, and captions of a few of its images."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from transformers import BertTokenizer

from radcap.data.collate import Batch
from radcap.errors import RadcapError
from radcap.model.captioner import ImageCaptioningModel
from radcap.runtime.base import Runtime
from radcap.training.step import validation_sums


@dataclass(frozen=True)
class Sample:
    """One validation image with its captions."""

    image: np.ndarray  # uint8 [3, 224, 224]
    generated: str
    reference: str


@dataclass(frozen=True)
class Validation:
    """The scores of one pass over a split.

    Attributes:
        loss: mean nats a target token.
        perplexity: exp of the loss.
        tokens: target tokens scored.
        rows: rows scored, masked ones left out.
        loss_per_caption: mean nats a caption.
        samples: images captioned with the weights scored.
    """

    loss: float
    perplexity: float
    tokens: int
    rows: int
    loss_per_caption: float
    samples: list[Sample] = field(default_factory=list)

    def scores(self) -> dict[str, float]:
        """The figures by name, as they are logged."""
        names = ("loss", "perplexity", "tokens", "rows", "loss_per_caption")
        return {name: getattr(self, name) for name in names}


def validate(
    model: ImageCaptioningModel,
    runtime: Runtime,
    loader: Iterable[Batch],
    *,
    tokenizer: BertTokenizer,
    num_rows: int,
    num_samples: int,
    max_new_tokens: int,
) -> Validation:
    """Score a model on a split.

    Args:
        model: on the runtime's device; its training mode is restored.
        loader: the split's batches.
        tokenizer: gives the samples' text.
        num_rows: rows in the loader; samples are spread evenly over them, because the rows of a
            split are sorted by what they show.
        num_samples: how many images to caption.
        max_new_tokens: longest caption generated.
    """
    training = model.training
    model.eval()
    queued: list[dict[str, Tensor]] = []
    rows = seen = 0
    wanted = {i * num_rows // num_samples for i in range(num_samples)} if num_samples else set()
    chosen: list[tuple[Tensor, str]] = []
    for batch, images, tokens in runtime.batches(loader):
        queued.append(validation_sums(model, runtime, images, tokens))
        runtime.end_step()
        rows += int(batch.valid.sum())
        for row in range(len(batch.rows)):
            if seen + row in wanted and batch.valid[row]:
                chosen.append((batch.images[row], batch.captions[row]))
        seen += len(batch.rows)
    scores = runtime.fetch(queued)
    loss_sum = math.fsum(score["loss_sum"] for score in scores)
    num_tokens = int(sum(score["tokens"] for score in scores))
    if num_tokens == 0:
        raise RadcapError("the validation split has no usable row: see the masked rows' reasons")
    samples = _caption(model, runtime, chosen, tokenizer, max_new_tokens)
    model.train(training)
    loss = loss_sum / num_tokens
    return Validation(
        loss=loss,
        perplexity=math.exp(min(loss, 700.0)),
        tokens=num_tokens,
        rows=rows,
        loss_per_caption=loss_sum / rows,
        samples=samples,
    )


def _caption(
    model: ImageCaptioningModel,
    runtime: Runtime,
    chosen: list[tuple[Tensor, str]],
    tokenizer: BertTokenizer,
    max_new_tokens: int,
) -> list[Sample]:
    if not chosen:
        return []
    images = torch.stack([image for image, _ in chosen]).to(runtime.device)
    with runtime.purpose("generate"), runtime.arithmetic():
        ids = model.generate(
            images,
            max_len=max_new_tokens,
            tokenizer=tokenizer,
            step_boundary=runtime.step_boundary,
        )
    texts = tokenizer.batch_decode(ids.cpu(), skip_special_tokens=True)
    return [
        Sample(image=image.numpy(), generated=text, reference=reference)
        for (image, reference), text in zip(chosen, texts, strict=True)
    ]
