"""Word pieces -> words, and what belongs to the pieces -> what belongs to the words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_CONTINUES = "##"  # how BERT's tokenizer marks a piece that goes on with the word before


@dataclass(frozen=True)
class Word:
    """A word of a caption and where the decoder looked as it wrote it.

    Attributes:
        text: its pieces joined.
        attention: float [7, 7], the mean of its pieces' maps; it sums to 1.
    """

    text: str
    attention: np.ndarray

    @property
    def peak(self) -> float:
        """The largest share of one square."""
        return float(self.attention.max())


def words_of(pieces: Sequence[str], maps: np.ndarray) -> list[Word]:
    """Join word pieces.

    Args:
        pieces: as `radcap.serving.captioner.Caption.tokens`.
        maps: float [len(pieces), 7, 7].
    """
    assert len(pieces) == len(maps)
    starts = [i for i, piece in enumerate(pieces) if i == 0 or not piece.startswith(_CONTINUES)]
    ends = [*starts[1:], len(pieces)]
    return [
        Word(
            "".join(piece.removeprefix(_CONTINUES) for piece in pieces[start:end]),
            maps[start:end].mean(axis=0),
        )
        for start, end in zip(starts, ends, strict=bool(starts))
    ]
