"""Validation: sums over the split, and captions of rows spread over it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from transformers import BertTokenizer

from radcap.data.collate import Batch, BatchCounts, encode_captions, load_tokenizer
from radcap.data.labels import Labels
from radcap.errors import RadcapError
from radcap.model.captioner import ImageCaptioningModel
from radcap.runtime.native import NativeRuntime
from radcap.training.validate import Validation, validate

ROWS = 13
BAD = 4  # a masked row
KNEE = Labels.of("mri", "knee", "normal")
SPINE = Labels.of("ct", "spine", "scoliosis")


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizer:
    return load_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer: BertTokenizer) -> ImageCaptioningModel:
    torch.manual_seed(0)
    return ImageCaptioningModel(len(tokenizer), 16, 1, 2, dropout=0.1)


def batches(tokenizer: BertTokenizer, size: int) -> Iterator[Batch]:
    """ROWS rows in batches, the last one padded. Captions are of unequal length."""
    images = torch.randint(
        0, 256, (ROWS, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    captions = ["mri of the knee" + " and" * row for row in range(ROWS)]
    tokens = torch.from_numpy(encode_captions(tokenizer, captions, 20)[0])
    tokens[BAD] = 0
    for first in range(0, ROWS, size):
        chosen = [row if row < ROWS else None for row in range(first, first + size)]
        at = [0 if row is None else row for row in chosen]
        valid = torch.tensor([row not in (None, BAD) for row in chosen])
        yield Batch(
            images=images[at],
            tokens=tokens[at] * valid[:, None],
            pad_id=0,
            valid=valid,
            rows=["" if row is None else str(row) for row in chosen],
            captions=["" if row is None else captions[row] for row in chosen],
            labels=[SPINE if row == 12 else KNEE for row in chosen],
            epoch=0,
            position={},
            counts=BatchCounts(),
            reasons={slot: "no caption" for slot, row in enumerate(chosen) if row == BAD},
        )


def score(
    model: ImageCaptioningModel, tokenizer: BertTokenizer, size: int, *, captioned: int, shown: int
) -> Validation:
    return validate(
        model,
        NativeRuntime("cpu", precision="fp32", threads=1),
        batches(tokenizer, size),
        tokenizer=tokenizer,
        num_rows=ROWS,
        num_captioned=captioned,
        num_samples=shown,
        max_new_tokens=4,
    )


def test_the_scores_do_not_depend_on_the_batch_size(
    model: ImageCaptioningModel, tokenizer: BertTokenizer
) -> None:
    found = [score(model, tokenizer, size, captioned=ROWS, shown=2) for size in (4, ROWS)]
    assert found[0].loss == pytest.approx(found[1].loss, rel=1e-5)
    assert found[0].loss_per_caption == pytest.approx(found[1].loss_per_caption, rel=1e-5)
    assert found[0].rows == found[1].rows == ROWS - 1
    assert found[0].tokens == found[1].tokens == sum(5 + row for row in range(ROWS) if row != BAD)
    assert [s.generated for s in found[0].samples] == [s.generated for s in found[1].samples]
    assert found[0].slots == found[1].slots
    assert model.training


def test_captions_are_scored_against_the_labels_of_their_rows(
    model: ImageCaptioningModel, tokenizer: BertTokenizer
) -> None:
    """A model that says "knee" whatever it sees."""
    knee = tokenizer.convert_tokens_to_ids("knee")
    with torch.no_grad():
        bias = model.fc_out.bias.clone()
        model.fc_out.bias[knee] = 1e4
    found = score(model, tokenizer, 4, captioned=ROWS, shown=0)
    with torch.no_grad():
        model.fc_out.bias.copy_(bias)
    assert found.slots["location"] == {"accuracy": 11 / 12, "correct": 11, "count": 12}
    assert found.slots["modality"]["correct"] == 0
    assert found.accuracies()["location"] == 11 / 12
    assert found.samples == []


def test_a_few_rows_are_captioned_from_all_over_the_split(
    model: ImageCaptioningModel, tokenizer: BertTokenizer
) -> None:
    found = score(model, tokenizer, 4, captioned=6, shown=3)
    # Rows 0, 2, 4, 6, 8 and 10, of which 4 is masked and every second one is shown.
    assert found.slots["location"]["count"] == 5
    references = [len(sample.reference.split()) - 4 for sample in found.samples]
    assert references == [0, 8]
    unscored = score(model, tokenizer, 4, captioned=0, shown=2)
    assert unscored.slots == {}
    assert len(unscored.samples) == 2


def test_a_split_without_a_usable_row_is_an_error(
    model: ImageCaptioningModel, tokenizer: BertTokenizer
) -> None:
    def masked(size: int) -> Iterator[Batch]:
        for batch in batches(tokenizer, size):
            batch.tokens.zero_()
            batch.valid.zero_()
            yield batch

    with pytest.raises(RadcapError, match="no usable row"):
        validate(
            model,
            NativeRuntime("cpu", precision="fp32", threads=1),
            masked(4),
            tokenizer=tokenizer,
            num_rows=ROWS,
            num_captioned=2,
            num_samples=2,
            max_new_tokens=4,
        )


def test_a_perplexity_that_no_float_holds_is_infinity(
    model: ImageCaptioningModel, tokenizer: BertTokenizer
) -> None:
    with torch.no_grad():
        bias = model.fc_out.bias.clone()
        model.fc_out.bias[7] = 2000.0  # of a word that no caption holds
    found = score(model, tokenizer, 4, captioned=0, shown=0)
    with torch.no_grad():
        model.fc_out.bias.copy_(bias)
    assert 1900 < found.loss < 2100
    assert found.perplexity == math.inf
