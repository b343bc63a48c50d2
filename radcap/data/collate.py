"""Captions -> token ids of one fixed length, and the `Batch` that the loader hands out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from radcap.data.hub.download import Traffic
from radcap.data.labels import Labels

if TYPE_CHECKING:
    from transformers import BertTokenizer

# Captions that a `CaptionEncoder` remembers, and the longest such one: a few megabytes.
_REMEMBERED, _CHARACTERS = 10_000, 400

VOCABULARY = Path(__file__).parent.parent / "assets" / "vocab.txt"


@dataclass
class BatchCounts:
    """What became of one batch's rows, and what was asked of the Hub for it.

    `skipped`: reason -> (rows, id of the first). `waited_s` and `worked_s`: seconds that loaders
    waited for its rows to arrive, and that they took to decode them, summed over the loaders.
    """

    rows: int = 0
    truncated: int = 0
    skipped: dict[str, tuple[int, str]] = field(default_factory=dict)
    traffic: Traffic = field(default_factory=Traffic)
    waited_s: float = field(default=0.0, compare=False)
    worked_s: float = field(default=0.0, compare=False)


@dataclass
class Batch:
    """One batch, or this host's share of it; B rows.

    images: uint8 [B, 3, 224, 224]. A slot without a usable row repeats a good image of the batch,
        so that batch-norm statistics see no blank ones; all zeros if the batch has no good row.
    tokens: int32 [B, T + 1], [CLS] caption [SEP] [PAD]...; all [PAD] where `valid` is false.
    pad_id: what [PAD] is to the tokenizer.
    valid: bool [B], false for a skipped row and for the padding of an epoch's last batch.
    rows: row ids ('file:row group:row'); '' for padding.
    captions: '' where not valid.
    reasons: slot -> why its row was skipped.
    epoch: counted from 0.
    position: JSON; a loader opened with it goes on with the batch after this one.
    """

    images: torch.Tensor
    tokens: torch.Tensor
    pad_id: int
    valid: torch.Tensor
    rows: list[str]
    captions: list[str]
    labels: list[Labels]
    epoch: int
    position: dict[str, Any]
    counts: BatchCounts
    reasons: dict[int, str] = field(default_factory=dict)


def load_tokenizer() -> BertTokenizer:
    """The tokenizer of bert-base-uncased, from the vocabulary inside the package: 30,522 entries.

    The constructor's `vocab_file` of old is ignored by transformers 5 without a word.
    """
    from transformers import BertTokenizer

    return BertTokenizer(vocab=str(VOCABULARY))


def encode_captions(
    tokenizer: BertTokenizer, captions: Sequence[str], max_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Token ids int32 [N, max_length + 1] and whether each caption was cut, bool [N].

    A row is [CLS] caption [SEP], then [PAD]. A caption too long loses its end, never its [SEP]:
    the model's last target is always [SEP]. One more id than `max_length` (T), since training
    reads ids[:, :-1] and predicts ids[:, 1:].
    """
    if max_length < 1:
        raise ValueError("max_length must be at least 1")
    width = max_length + 1
    ids = np.full((len(captions), width), tokenizer.pad_token_id, dtype=np.int32)
    cut = np.zeros(len(captions), dtype=bool)
    if not captions:
        return ids, cut
    pieces = tokenizer(
        list(captions),
        add_special_tokens=False,
        truncation=False,
        split_special_tokens=True,  # "[SEP]" typed in a caption is text and must not end it
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id  # each look-up costs microseconds
    for i, piece in enumerate(pieces):
        kept = piece[: width - 2]
        cut[i] = len(kept) < len(piece)
        ids[i, : len(kept) + 2] = [start, *kept, end]
    return ids, cut


class CaptionEncoder:
    """`encode_captions` that remembers: a data set whose captions follow templates has few
    different ones."""

    def __init__(self, tokenizer: BertTokenizer, max_length: int) -> None:
        """Args: see `encode_captions`."""
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._known: dict[str, tuple[np.ndarray, bool]] = {}

    def __call__(self, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids int32 [N, max_length + 1] and whether each caption was cut, bool [N]."""
        if len(self._known) > _REMEMBERED:
            self._known.clear()
        new = [caption for caption in dict.fromkeys(captions) if caption not in self._known]
        ids, cut = encode_captions(self._tokenizer, new, self._max_length)
        fresh = dict(zip(new, zip(ids, cut.tolist(), strict=True), strict=True))
        found = [fresh.get(caption) or self._known[caption] for caption in captions]
        self._known.update((c, row) for c, row in fresh.items() if len(c) <= _CHARACTERS)
        rows = np.array([row for row, _ in found], dtype=np.int32)
        return rows.reshape(-1, self._max_length + 1), np.array([c for _, c in found], dtype=bool)
