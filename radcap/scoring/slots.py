"""Slot accuracy: the label values that a caption states, compared with the row's metadata.

The wording of a caption is partly chance (modality phrase, synonym, finding form), so matching the
text under-rates a right caption. What it says of modality, location and pathology is not chance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import TypedDict

from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from radcap.data.labels import (
    DISPLAY_NAMES,
    LOCATION_SYNONYMS,
    LOCATIONS,
    MODALITIES,
    MODALITY_PHRASES,
    MODALITY_WORDS,
    PATHOLOGIES,
    Labels,
)

_KNOWN = {"modality": MODALITIES, "location": LOCATIONS, "pathology": PATHOLOGIES}
STATED = tuple(_KNOWN)  # what a caption states in words
SLOTS = tuple(field.name for field in fields(Labels))
SCORED = (*SLOTS, "all")
NOTHING = "(nothing)"
_ABNORMAL = ("normal", "abnormal")

Confusion = dict[str, dict[str, int]]

# The model's own, that of bert-base-uncased.
_NORMALIZER, _SPLITTER = BertNormalizer(lowercase=True), BertPreTokenizer()

_Words = tuple[str, ...]
_Phrases = dict[_Words, tuple[str, str]]  # the words -> (slot, raw label)


class SlotScore(TypedDict):
    """`accuracy` is correct / count, None where no row has the label."""

    accuracy: float | None
    correct: int
    count: int


def words(text: str) -> _Words:
    """Lower-case words and single punctuation marks, as BERT's basic tokenizer splits them.

    Accents are dropped, CJK characters stand alone, and underscores count as spaces. A label, a
    caption and a caption decoded from word pieces come out alike: "ca++_tendinosis" and
    "ca + + tendinosis" both give ("ca", "+", "+", "tendinosis").
    """
    plain = _NORMALIZER.normalize_str(text.replace("_", " "))
    return tuple(word for word, _ in _SPLITTER.pre_tokenize_str(plain))


def read_slots(caption: str, *, extra: Iterable[tuple[str, str]] = ()) -> Labels:
    """The label values a caption states, in the raw spelling of the metadata.

    Of overlapping phrases the one that begins first, then the longest, wins; of several values for
    a slot the first one stated. A location's own name goes before its synonyms.

    Args:
        caption: free text, in any case.
        extra: (slot, raw label) pairs to look for beside the vocabulary of `radcap.data.labels`.

    Returns:
        None in every slot of which nothing known is said.
    """
    phrases = _phrases(frozenset(extra))
    found: dict[str, str] = {}
    for slot, label in _matches(words(caption), phrases):
        found.setdefault(slot, label)
    return Labels.of(
        found.get("modality"),
        found.get("location", found.get("synonym")),
        found.get("pathology"),
    )


def read_captions(pairs: Sequence[tuple[str, Labels]]) -> list[Labels]:
    """What each caption of a corpus states.

    Args:
        pairs: (caption, the row's labels). A label outside the vocabulary is looked for in all of
            the captions, by its own spelling.
    """
    extra = frozenset(
        (slot, label)
        for _, labels in pairs
        for slot in STATED
        if (label := getattr(labels, slot)) is not None
        and _label_words(label) not in _known_words(slot)
        and _label_words(label)
    )
    return [read_slots(caption, extra=extra) for caption, _ in pairs]


def right_slots(said: Labels, labels: Labels) -> dict[str, bool]:
    """Slot -> whether a caption states the row's label, for every label that the row has.

    Labels that have the same words are the same, however they are spelt ("CT", "Ankle_Foot").
    "all" stands for modality, location and pathology together, where the row has all three.
    """
    right = {
        slot: _is_same(getattr(said, slot), getattr(labels, slot))
        for slot in SLOTS
        if getattr(labels, slot) is not None
    }
    if right.keys() >= _KNOWN.keys():
        right["all"] = all(right[slot] for slot in STATED)
    return right


def slot_accuracy(pairs: Iterable[tuple[str, Labels]]) -> dict[str, SlotScore]:
    """How often captions state the right modality, location, pathology and abnormality.

    Args:
        pairs: as for `read_captions`. Where a label is None the row does not count for that slot.

    Returns:
        Slot -> score, and "all" -> rows whose modality, location and pathology are all right, of
        the rows that have all three.
    """
    pairs = list(pairs)
    correct, count = dict.fromkeys(SCORED, 0), dict.fromkeys(SCORED, 0)
    for said, (_, labels) in zip(read_captions(pairs), pairs, strict=True):
        for slot, is_right in right_slots(said, labels).items():
            correct[slot] += is_right
            count[slot] += 1
    return {
        slot: SlotScore(
            accuracy=correct[slot] / count[slot] if count[slot] else None,
            correct=correct[slot],
            count=count[slot],
        )
        for slot in correct
    }


def confusion(said: Sequence[Labels], labels: Sequence[Labels]) -> dict[str, Confusion]:
    """Slot -> the row's label -> what the caption states -> number of rows, most frequent first.

    Abnormality is spelt "normal" and "abnormal"; a caption that states nothing counts as
    `NOTHING`. Of labels with the same words the vocabulary's spelling stands for all. Rows without
    a label are left out.
    """
    tables: dict[str, Confusion] = {}
    for slot in SLOTS:
        spell = _spelling(slot, (*labels, *said))
        counts = Counter(
            (spell(getattr(row, slot)), spell(getattr(one, slot)))
            for one, row in zip(said, labels, strict=True)
            if getattr(row, slot) is not None
        )
        table = tables[slot] = {}
        rows: Counter[str] = Counter()
        for (true, _), number in counts.items():
            rows[true] += number
        for true in sorted(rows, key=lambda name: (-rows[name], name)):
            heard = {one: number for (name, one), number in counts.items() if name == true}
            table[true] = dict(sorted(heard.items(), key=lambda item: (-item[1], item[0])))
    return tables


_Label = str | bool | None


def _spelling(slot: str, labels: Iterable[Labels]) -> Callable[[_Label], str]:
    """A label's name in a table: one for all that have the same words."""
    names = {_label_words(label): label for label in _KNOWN.get(slot, ())}
    found = {value for one in labels if isinstance(value := getattr(one, slot), str)}
    for label in sorted(found):
        names.setdefault(_label_words(label), label)

    def spell(label: _Label) -> str:
        if label is None:
            return NOTHING
        return names[_label_words(label)] if isinstance(label, str) else _ABNORMAL[label]

    return spell


def _is_same(said: _Label, label: _Label) -> bool:
    if isinstance(said, str) and isinstance(label, str):
        return _label_words(said) == _label_words(label)
    return said == label


@lru_cache(maxsize=4096)
def _label_words(label: str) -> _Words:
    return words(label)


@lru_cache
def _known_words(slot: str) -> frozenset[_Words]:
    return frozenset(map(words, _KNOWN[slot]))


@lru_cache(maxsize=8)
def _phrases(extra: frozenset[tuple[str, str]]) -> _Phrases:
    phrases: _Phrases = {_label_words(label): (slot, label) for slot, label in sorted(extra)}
    for modality in MODALITIES:
        for text in MODALITY_PHRASES[modality] + MODALITY_WORDS[modality]:
            phrases[_label_words(text)] = ("modality", modality)
    for location, synonyms in LOCATION_SYNONYMS.items():
        for text in synonyms:
            phrases[_label_words(text)] = ("synonym", location)
        phrases[_label_words(location)] = ("location", location)
    for pathology in PATHOLOGIES:
        for text in (pathology, *DISPLAY_NAMES.get(pathology, ())):
            phrases[_label_words(text)] = ("pathology", pathology)
    return phrases


def _matches(text: _Words, phrases: _Phrases) -> Iterator[tuple[str, str]]:
    """(slot, label) of every known phrase, left to right, the longest at each place."""
    longest = max(map(len, phrases))
    start = 0
    while start < len(text):
        for length in range(min(longest, len(text) - start), 0, -1):
            match = phrases.get(text[start : start + length])
            if match is not None:
                yield match
                start += length
                break
        else:
            start += 1
