"""One pass for validation and evaluation: the same rows, tokens, losses and captions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from evaluation.known import looking_model
from torch import Tensor
from training.test_validate import BAD, ROWS, batches, score
from transformers import BertTokenizer

from radcap.data.collate import Batch, load_tokenizer
from radcap.evaluation.results import RowResult, WorstRows
from radcap.evaluation.rows import RowScorer
from radcap.evaluation.scores import score as figures_of
from radcap.inference.scoring_pass import CaptionedRow, ScoringPass, evenly
from radcap.model.captioner import ImageCaptioningModel
from radcap.runtime.native import NativeRuntime
from radcap.scoring.slots import SCORED
from radcap.training.step import row_loss_sums


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizer:
    return load_tokenizer()


@pytest.fixture(scope="module")
def model() -> ImageCaptioningModel:
    """In float64, where the order of a sum is lost in the fifteenth digit."""
    return looking_model(num_layers=1, num_heads=8).double()


def scoring_pass(
    model: ImageCaptioningModel,
    runtime: NativeRuntime,
    tokenizer: BertTokenizer,
    first_row: int = 0,
) -> ScoringPass[Tensor]:
    return ScoringPass(
        model,
        runtime,
        tokenizer,
        purpose="evaluate",
        score=row_loss_sums,
        captioned=range(ROWS),
        max_new_tokens=4,
        first_row=first_row,
    )


def evaluated(model: ImageCaptioningModel, tokenizer: BertTokenizer, size: int) -> list[RowResult]:
    runtime = NativeRuntime("cpu", precision="fp32", threads=1)
    scorer = RowScorer(
        runtime,
        scoring_pass(model, runtime, tokenizer),
        num_rows=ROWS,
        worst=WorstRows(0),
        is_cut=lambda caption: False,
    )
    given = runtime.batches(batches(tokenizer, size))
    return [row for rows, _ in scorer.run(given, lambda: (False, False)) for row in rows]


def test_a_validation_and_an_evaluation_agree_to_the_last_digit(
    model: ImageCaptioningModel, tokenizer: BertTokenizer
) -> None:
    validation = score(model, tokenizer, 4, captioned=ROWS, shown=ROWS)
    rows = evaluated(model, tokenizer, 4)
    assert [row.row for row in rows] == list(range(ROWS))
    assert [row.row for row in rows if row.skipped] == [BAD]
    scores = figures_of(rows)
    loss = scores.figures["loss"]
    assert loss.value is not None
    assert loss.value == pytest.approx(validation.loss, rel=1e-14)
    for name in ("loss", "perplexity", "loss_per_caption"):
        assert np.float32(scores.figures[name].value) == np.float32(getattr(validation, name))
    assert loss.count == validation.tokens == sum(row.tokens for row in rows)
    assert scores.rows == validation.rows == ROWS - 1
    captions = {row.row: row.caption for row in rows if not row.skipped}
    assert {sample.number: sample.generated for sample in validation.samples} == captions
    assert len(set(captions.values())) > 1
    for slot in SCORED:
        assert scores.figures[slot].value == validation.slots[slot]["accuracy"]
        assert scores.figures[slot].count == validation.slots[slot]["count"]


def share(given: Iterator[Batch], index: int) -> Iterator[Batch]:
    """Every second row of every batch."""
    for batch in given:
        mine = slice(index, None, 2)
        yield replace(
            batch,
            **{name: getattr(batch, name)[mine] for name in ("images", "tokens", "valid", "rows")},
            **{name: getattr(batch, name)[mine] for name in ("captions", "labels")},
        )


def test_rows_keep_their_numbers_and_captions_in_any_share(
    model: ImageCaptioningModel, tokenizer: BertTokenizer
) -> None:
    """Of two processes, and in a pass that begins with the second batch."""

    def walk(
        given: Iterator[Batch], processes: int = 1, index: int = 0, first_row: int = 0
    ) -> tuple[list[tuple[int, str]], list[CaptionedRow], list[int]]:
        runtime = NativeRuntime("cpu", precision="fp32", threads=1)
        runtime.num_processes, runtime.process_index = processes, index
        scoring = scoring_pass(model, runtime, tokenizer, first_row)
        met, ready = [], []
        for batch, numbers, losses in scoring.run(runtime.batches(given)):
            met += list(zip(numbers, batch.rows, strict=True))
            assert len(losses) == len(numbers)
            ready += scoring.take()
        marks = [scoring.settled]
        scoring.finish()
        return met, ready + scoring.take(), [*marks, scoring.settled, scoring.done]

    met, rows, marks = walk(batches(tokenizer, 5))
    assert met == [(row, str(row) if row < ROWS else "") for row in range(15)]
    assert [row.number for row in rows] == [row for row in range(ROWS) if row != BAD]
    assert marks == [11, 15, 15]  # two rows are left for a batch of five
    shares = [walk(share(batches(tokenizer, 4), index), 2, index) for index in (0, 1)]
    assert sorted(shares[0][0] + shares[1][0]) == [*met, (15, "")]
    assert [share[2][-1] for share in shares] == [16, 16]
    rest = batches(tokenizer, 4)
    next(rest)
    _, last, marks = walk(rest, first_row=4)
    assert marks[-1] == 16
    texts = {row.number: row.generated for row in rows}
    for found in (*(share[1] for share in shares), last):
        for row in found:
            assert row.generated == texts[row.number]
            assert row.reference == "mri of the knee" + " and" * row.number
            np.testing.assert_array_equal(row.image, rows[list(texts).index(row.number)].image)
    numbers = sorted(row.number for share in shares for row in share[1])
    assert numbers == list(texts) and [row.number for row in last] == list(texts)[4:]


def test_some_numbers_are_evenly_spread() -> None:
    assert evenly(10, 4) == [0, 2, 5, 7]
    assert evenly(3, 5) == [0, 1, 2]
    assert evenly(0, 5) == evenly(5, 0) == []
