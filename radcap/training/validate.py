"""Validation: the token-true loss of a split, and what captions of its images get right."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import reduce
from itertools import chain
from operator import iadd

from torch import Tensor
from transformers import BertTokenizer

from radcap.data.collate import Batch
from radcap.data.hub.download import Traffic
from radcap.data.labels import Labels
from radcap.errors import RadcapError
from radcap.inference.scoring_pass import CaptionedRow, ScoringPass, evenly
from radcap.model.captioner import ImageCaptioningModel
from radcap.runtime.base import Runtime
from radcap.scoring.perplexity import perplexity
from radcap.scoring.slots import SlotScore, slot_accuracy
from radcap.training.step import validation_sums


@dataclass(frozen=True)
class Validation:
    """The scores of one pass over a split.

    Attributes:
        loss: mean nats a target token.
        perplexity: exp of the loss; infinity where that is too large for a float.
        tokens: target tokens scored.
        rows: rows scored, masked ones left out.
        loss_per_caption: mean nats a caption.
        slots: how often the captions state the right labels; empty if none was asked for.
        samples: a few of the captioned rows, with their images.
        traffic: what was asked of the Hub for it.
    """

    loss: float
    perplexity: float
    tokens: int
    rows: int
    loss_per_caption: float
    slots: dict[str, SlotScore] = field(default_factory=dict)
    samples: list[CaptionedRow] = field(default_factory=list)
    traffic: Traffic = field(default_factory=Traffic)

    def scores(self) -> dict[str, float]:
        """The figures by name, as they are logged."""
        names = ("loss", "perplexity", "tokens", "rows", "loss_per_caption")
        return {name: getattr(self, name) for name in names}

    def accuracies(self) -> dict[str, float]:
        """Slot -> share of right captions, without the slots that no row has a label for."""
        shares = {name: score["accuracy"] for name, score in self.slots.items()}
        return {name: share for name, share in shares.items() if share is not None}


def validate(
    model: ImageCaptioningModel,
    runtime: Runtime,
    loader: Iterable[Batch],
    *,
    tokenizer: BertTokenizer,
    num_rows: int,
    num_captioned: int,
    num_samples: int,
    max_new_tokens: int,
    scored: Callable[[int], None] = lambda rows: None,
) -> Validation:
    """Score a model on a split.

    Args:
        model: on the runtime's device; its training mode is restored.
        loader: the split's batches, all of one size; of several processes each has its share.
        tokenizer: gives the captions' text.
        num_rows: rows in the loaders of all processes; those captioned are spread evenly over
            them, because the rows of a split are sorted by what they show.
        num_captioned: how many images to caption for the slot accuracy.
        num_samples: how many captioned images to give back.
        max_new_tokens: longest caption generated.
        scored: called with the rows done, of all processes, after each batch.

    Raises:
        RadcapError: no row of the split is usable.
    """
    training = model.training
    model.eval()
    if not runtime.can_caption:
        num_captioned = num_samples = 0
    chosen = evenly(num_rows, max(num_captioned, num_samples))
    shown = {chosen[i] for i in evenly(len(chosen), num_samples)}
    scoring = ScoringPass(
        model,
        runtime,
        tokenizer,
        purpose="validate",
        score=validation_sums,
        captioned=chosen,
        max_new_tokens=max_new_tokens,
    )
    queued: list[dict[str, Tensor]] = []
    captions: list[tuple[str, Labels]] = []
    samples: list[CaptionedRow] = []
    rows, traffic = 0, Traffic()

    def keep_captions() -> None:
        """Without the images of rows that are not shown."""
        for row in scoring.take():
            captions.append((row.generated, row.labels))
            if row.number in shown:
                samples.append(row)

    for batch, _, sums in scoring.run(runtime.batches(loader)):
        queued.append(sums)
        rows += int(batch.valid.sum())
        traffic += batch.counts.traffic
        keep_captions()
        scored(min(scoring.done, num_rows))
    scoring.finish()
    keep_captions()
    # Of all processes.
    gathered = runtime.gather((rows, traffic, captions, samples))
    all_rows, all_traffic, all_captions, all_samples = zip(*gathered, strict=True)
    scores = runtime.fetch(queued)
    loss_sum = math.fsum(score["loss_sum"] for score in scores)
    num_tokens = int(sum(score["tokens"] for score in scores))
    if num_tokens == 0:
        raise RadcapError("the validation split has no usable row: see the masked rows' reasons")
    model.train(training)
    loss = loss_sum / num_tokens
    rows = sum(all_rows)
    return Validation(
        loss=loss,
        perplexity=perplexity(loss),
        tokens=num_tokens,
        rows=rows,
        loss_per_caption=loss_sum / rows,
        slots=slot_accuracy(chain.from_iterable(all_captions)) if num_captioned else {},
        samples=sorted(chain.from_iterable(all_samples), key=lambda sample: sample.number),
        traffic=reduce(iadd, all_traffic, Traffic()),
    )
