"""Text scores against the libraries and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.cider.cider import Cider
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

from radcap.scoring.slots import words
from radcap.scoring.text import bleu_signature, cider_d, corpus_bleu, text_statistics

# Few words, so that n-grams repeat; empty sentences and repeated references among them.
SENTENCES = st.lists(st.sampled_from(["knee", "foot", "mri", "ct", "of", "the"]), max_size=7).map(
    " ".join
)
PAIRS = st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=12).filter(
    lambda pairs: any(reference for _, reference in pairs)  # pycocoevalcap needs a word
)


@given(PAIRS)
@settings(max_examples=200)
def test_cider_d_is_that_of_pycocoevalcap(pairs: list[tuple[str, str]]) -> None:
    expected, each = Cider().compute_score(
        {number: [reference] for number, (_, reference) in enumerate(pairs)},
        {number: [caption] for number, (caption, _) in enumerate(pairs)},
    )
    captions, references = ([words(text) for text in side] for side in zip(*pairs, strict=True))
    found = cider_d(captions, references)
    np.testing.assert_allclose(found, each, rtol=1e-9, atol=1e-12)
    assert found.mean() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(PAIRS)
@settings(max_examples=100)
def test_bleu_and_rouge_are_those_of_their_libraries(pairs: list[tuple[str, str]]) -> None:
    captions, references = ([*side] for side in zip(*pairs, strict=True))
    found = text_statistics(captions, references)
    sums = found.bleu.sum(axis=0)
    for order in (1, 2, 3, 4):
        bleu = BLEU(tokenize="none", max_ngram_order=order)
        expected = bleu.corpus_score(captions, [references]).score
        assert corpus_bleu(sums, order) == pytest.approx(expected, rel=1e-12)
    rouge = RougeScorer(["rougeL"])
    expected_lcs = [
        rouge.score(reference, caption)["rougeL"].fmeasure for caption, reference in pairs
    ]
    np.testing.assert_allclose(found.rouge_l, expected_lcs, rtol=1e-12)


def test_by_hand() -> None:
    """Three of four words, in order; of the three pairs of words one."""
    found = text_statistics(["mri of knee"], ["MRI of the  knee"])
    sums = found.bleu.sum(axis=0)
    assert sums.tolist() == [3, 1, 0, 0, 3, 2, 1, 0, 3, 4]
    brevity = math.exp(1 - 4 / 3)
    assert corpus_bleu(sums, 1) == pytest.approx(100 * brevity)
    assert corpus_bleu(sums, 2) == pytest.approx(100 * brevity * math.sqrt(1 / 2))
    # Three words are matched by none: half a match, as sacrebleu smooths.
    assert corpus_bleu(sums, 3) == pytest.approx(100 * brevity * (1 / 2 * 1 / 2) ** (1 / 3))
    assert found.rouge_l[0] == pytest.approx(2 * 1 * 0.75 / 1.75)


def test_cider_d_by_hand() -> None:
    """Two references without a common word; one caption is right, one says the other's words."""
    said = [("a", "b"), ("a", "b")]
    meant = [("a", "b"), ("c", "d")]
    # Orders 1 and 2 agree wholly, orders 3 and 4 have no n-gram: half of 10.
    assert cider_d(said, meant).tolist() == pytest.approx([5.0, 0.0])


def test_spacing_case_and_word_pieces_make_no_difference() -> None:
    found = text_statistics(
        ["mri of the shoulder displays ca + + tendinosis"],
        ["MRI of the shoulder displays CA++_tendinosis"],
    )
    assert found.rouge_l[0] == 1.0
    assert corpus_bleu(found.bleu[0], 4) == pytest.approx(100.0)


def test_nothing_said_and_nothing_asked() -> None:
    found = text_statistics([""], ["mri"])
    assert (corpus_bleu(found.bleu[0], 4), found.rouge_l[0], found.cider_d[0]) == (0, 0, 0)
    nothing = text_statistics([], [])
    assert nothing.bleu.shape == (0, 10) and corpus_bleu(nothing.bleu.sum(axis=0), 4) == 0


def test_the_signature_is_sacrebleus() -> None:
    bleu = BLEU(tokenize="none")
    bleu.corpus_score(["a"], [["a"]])
    assert bleu_signature() == str(bleu.get_signature()).replace("case:mixed", "case:lc")
