"""From scored rows to figures with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from radcap.data.labels import Labels
from radcap.evaluation.results import RowResult
from radcap.scoring.bootstrap import interval, resampled_sums
from radcap.scoring.perplexity import perplexity
from radcap.scoring.slots import SCORED, Confusion, confusion, read_captions, right_slots
from radcap.scoring.text import MAX_ORDER, corpus_bleu, text_statistics

_Figure = Callable[[np.ndarray], float | None]


@dataclass(frozen=True)
class Score:
    """A figure of the whole split.

    Attributes:
        value: None where no row defines it; infinity where no float holds it.
        low, high: ends of its 95 % bootstrap interval over rows.
        count: what it is a mean over: tokens, rows or captions.
    """

    value: float | None
    low: float | None
    high: float | None
    count: int


@dataclass(frozen=True)
class Scores:
    """All that is said of a split.

    Attributes:
        figures: by name: loss, perplexity, loss_per_caption, the slots, bleu_1 to bleu_4, rouge_l,
            cider_d; without captions only the first three.
        confusion: see `radcap.scoring.slots.confusion`.
        rows: rows scored.
        captions: rows captioned.
        skipped: reason -> rows left out.
        cut: rows whose reference is longer than `data.max_length`.
        said: number of a captioned row -> what its caption states.
    """

    figures: dict[str, Score]
    confusion: dict[str, Confusion]
    rows: int
    captions: int
    skipped: dict[str, int]
    cut: int
    said: dict[int, Labels]


def score(results: Sequence[RowResult]) -> Scores:
    """Compute every figure of some rows, in a time that grows with their number alone."""
    rows = [one for one in results if one.skipped is None]
    captioned = [one for one in rows if one.caption is not None]
    skipped: dict[str, int] = {}
    for one in results:
        if one.skipped is not None:
            skipped[one.skipped] = skipped.get(one.skipped, 0) + 1
    pairs = [(one.caption or "", one.labels) for one in captioned]
    said = read_captions(pairs)
    columns = _loss_columns(rows)
    if captioned:
        place = {one.row: number for number, one in enumerate(rows)}
        index = np.asarray([place[one.row] for one in captioned])
        for name, values in _caption_columns(captioned, said).items():
            columns[name] = np.zeros(len(rows))
            columns[name][index] = values
    labels = [one.labels for one in captioned]
    return Scores(
        _figures(columns),
        confusion(said, labels),
        len(rows),
        len(captioned),
        skipped,
        sum(one.cut for one in rows),
        {row.row: one for row, one in zip(captioned, said, strict=True)},
    )


def _loss_columns(rows: Sequence[RowResult]) -> dict[str, np.ndarray]:
    """What every scored row adds to the sums."""
    return {
        "rows": np.ones(len(rows)),
        "loss": np.asarray([one.loss for one in rows], dtype=np.float64),
        "tokens": np.asarray([one.tokens for one in rows], dtype=np.float64),
    }


def _caption_columns(rows: Sequence[RowResult], said: Sequence[Labels]) -> dict[str, np.ndarray]:
    """What every captioned row adds to the sums."""
    text = text_statistics([one.caption or "" for one in rows], [one.reference for one in rows])
    right = [right_slots(one, row.labels) for one, row in zip(said, rows, strict=True)]
    return {
        "captions": np.ones(len(rows)),
        "rouge_l": text.rouge_l,
        "cider_d": text.cider_d,
        **{f"bleu {number}": column for number, column in enumerate(text.bleu.T)},
        **{f"right {slot}": np.asarray([one.get(slot, False) for one in right]) for slot in SCORED},
        **{f"has {slot}": np.asarray([slot in one for one in right]) for slot in SCORED},
    }


def _figures(columns: Mapping[str, np.ndarray]) -> dict[str, Score]:
    """Every figure, its interval and what it is a mean over."""
    place = {name: number for number, name in enumerate(columns)}
    table = np.stack([column.astype(np.float64) for column in columns.values()], axis=1)
    sums, resamples = table.sum(axis=0), resampled_sums(table)

    def mean(name: str, count: str) -> _Figure:
        return lambda s: float(s[place[name]] / s[place[count]]) if s[place[count]] else None

    def bleu(order: int) -> _Figure:
        first, count = place["bleu 0"], place["captions"]
        end = first + 2 * MAX_ORDER + 2
        return lambda s: corpus_bleu(s[first:end], order) if s[count] else None

    loss = mean("loss", "tokens")
    wanted: dict[str, tuple[_Figure, str]] = {
        "loss": (loss, "tokens"),
        "perplexity": (lambda s: None if (nats := loss(s)) is None else perplexity(nats), "tokens"),
        "loss_per_caption": (mean("loss", "rows"), "rows"),
    }
    if "captions" in place:
        wanted |= {slot: (mean(f"right {slot}", f"has {slot}"), f"has {slot}") for slot in SCORED}
        wanted |= {f"bleu_{n}": (bleu(n), "captions") for n in range(1, MAX_ORDER + 1)}
        wanted |= {name: (mean(name, "captions"), "captions") for name in ("rouge_l", "cider_d")}
    return {
        name: _score(figure, sums, resamples, int(sums[place[count]]))
        for name, (figure, count) in wanted.items()
    }


def _score(figure: _Figure, sums: np.ndarray, resamples: np.ndarray, count: int) -> Score:
    value = figure(sums)
    ends = None if value is None else interval(resamples, figure)
    low, high = ends or (None, None)
    return Score(value, low, high, count)


def to_json(scores: Scores) -> dict[str, Any]:
    """Plain values, fit for results.json."""
    return {
        "rows": scores.rows,
        "captions": scores.captions,
        "skipped": scores.skipped,
        "cut": scores.cut,
        "scores": {
            name: {"value": one.value, "interval": [one.low, one.high], "count": one.count}
            for name, one in scores.figures.items()
        },
        "slots": {slot: per_class(table) for slot, table in scores.confusion.items() if table},
    }


def per_class(table: Confusion) -> dict[str, dict[str, Any]]:
    """Label -> its rows, how many captions state it rightly, and what they state."""
    return {
        label: {
            "rows": sum(heard.values()),
            "right": heard.get(label, 0),
            "said": heard,
        }
        for label, heard in table.items()
    }
