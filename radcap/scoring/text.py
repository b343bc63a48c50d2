"""Text scores of captions against one reference each: corpus BLEU, ROUGE-L, CIDEr-D.

All three see the same words: lower case, punctuation marks on their own, as the model's own
tokenizer splits text (`radcap.scoring.slots.words`). A reference from the data and a caption
decoded from word pieces then differ in what they say and not in their spacing.

A caption's wording is partly chance, so these scores under-rate a right caption; slot accuracy
does not.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from radcap.scoring.slots import words

MAX_ORDER = 4
_SIGMA = 6.0  # words of length difference that CIDEr-D forgives

_Words = tuple[str, ...]


@dataclass(frozen=True)
class TextStatistics:
    """What the scores of a corpus are computed from, a line for each of N captions.

    Attributes:
        bleu: float64 [N, 10]: matched n-grams of order 1 to 4, n-grams of order 1 to 4, words of
            the caption, words of the reference.
        rouge_l: float64 [N], F1 of the longest common subsequence, in [0, 1].
        cider_d: float64 [N], in [0, 10].
    """

    bleu: np.ndarray
    rouge_l: np.ndarray
    cider_d: np.ndarray


def text_statistics(captions: Sequence[str], references: Sequence[str]) -> TextStatistics:
    """Compare captions with their references.

    Args:
        captions, references: N of each, in the same order; any case and spacing.
    """
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU

    ours = [words(text) for text in captions]
    theirs = [words(text) for text in references]
    bleu = BLEU(tokenize="none", effective_order=True)
    rouge = RougeScorer(["rougeL"], tokenizer=_Splitter())
    counted = np.zeros((len(ours), 2 * MAX_ORDER + 2))
    lcs = np.zeros(len(ours))
    for row, (caption, reference) in enumerate(zip(ours, theirs, strict=True)):
        said, meant = " ".join(caption), " ".join(reference)
        score = bleu.sentence_score(said, [meant])
        counted[row] = [*score.counts, *score.totals, score.sys_len, score.ref_len]
        lcs[row] = rouge.score(meant, said)["rougeL"].fmeasure
    return TextStatistics(counted, lcs, cider_d(ours, theirs))


def corpus_bleu(sums: np.ndarray, order: int) -> float:
    """Corpus BLEU up to n-grams of `order`, 0 to 100 (Papineni et al. 2002), by sacrebleu.

    With its default smoothing: an order without a match counts as half a match, then a quarter.

    Args:
        sums: [10], sums of the lines of `TextStatistics.bleu`.
    """
    from sacrebleu.metrics import BLEU

    counts = [int(value) for value in sums]
    score = BLEU.compute_bleu(
        counts[:order],
        counts[MAX_ORDER : MAX_ORDER + order],
        counts[-2],
        counts[-1],
        smooth_method="exp",
        max_ngram_order=order,
    )
    return score.score


def bleu_signature() -> str:
    """How BLEU is computed, in sacrebleu's own notation; the words are split before."""
    import sacrebleu

    return f"nrefs:1|case:lc|eff:no|tok:none|smooth:exp|version:{sacrebleu.__version__}"


def cider_d(captions: Sequence[_Words], references: Sequence[_Words]) -> np.ndarray:
    """CIDEr-D of every caption (Vedantam et al. 2015, arXiv:1411.5726, section 5): [N] in [0, 10].

    Cosine similarity of clipped TF-IDF vectors of n-grams, mean over orders 1 to 4, with a
    Gaussian penalty of the difference in length. An n-gram's document frequency is the number of
    references that hold it; those of the whole corpus weigh every caption. In a corpus of one
    caption every weight, and with it the score, is 0.

    Args:
        captions, references: words of each.
    """
    counted = [_ngrams(reference) for reference in references]
    frequency: Counter[_Words] = Counter()
    for counts in counted:
        frequency.update(counts.keys())
    log_rows = math.log(len(references)) if references else 0.0
    rarity = {ngram: log_rows - math.log(rows) for ngram, rows in frequency.items()}
    scores = np.zeros(len(captions))
    for row, (caption, theirs) in enumerate(zip(captions, counted, strict=True)):
        ours = _ngrams(caption)
        gap = max(len(caption) - 1, 0) - max(len(references[row]) - 1, 0)
        penalty = math.exp(-(gap**2) / (2 * _SIGMA**2))
        scores[row] = 10 * penalty * _similarity(ours, theirs, rarity, log_rows)
    return scores


def _similarity(
    ours: Counter[_Words], theirs: Counter[_Words], rarity: dict[_Words, float], unseen: float
) -> float:
    """Mean over the orders of the clipped cosine of two TF-IDF vectors."""
    product, our_square, their_square = ([0.0] * MAX_ORDER for _ in range(3))
    for ngram, count in ours.items():
        weight = rarity.get(ngram, unseen)
        order = len(ngram) - 1
        our_square[order] += (count * weight) ** 2
        theirs_too = theirs.get(ngram, 0)
        product[order] += min(count, theirs_too) * theirs_too * weight**2
    for ngram, count in theirs.items():
        their_square[len(ngram) - 1] += (count * rarity[ngram]) ** 2
    cosines = [
        dot / math.sqrt(one * other) if one and other else 0.0
        for dot, one, other in zip(product, our_square, their_square, strict=True)
    ]
    return sum(cosines) / MAX_ORDER


def _ngrams(sentence: _Words) -> Counter[_Words]:
    """How often each n-gram of order 1 to 4 stands in a sentence."""
    return Counter(
        sentence[start : start + order]
        for order in range(1, MAX_ORDER + 1)
        for start in range(len(sentence) - order + 1)
    )


class _Splitter:
    """A tokenizer of rouge-score for words that are split already."""

    def tokenize(self, text: str) -> list[str]:
        return text.split()
