"""A raw row of the data set -> an `Example`, or a named reason to skip it.

Row form (RadImageNet-VQA, alignment): `image` struct{bytes, path}, `conversations` list of
struct{from, value}, `metadata` struct{modality, location, pathology, is_abnormal, ...}. Rows of
other data sets have a `caption` in the place of `conversations`; `radcap.data.columns` says where
theirs is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from radcap.data.columns import CAPTION, CONVERSATIONS, IMAGE, METADATA
from radcap.data.labels import Labels

if TYPE_CHECKING:
    import numpy as np

QUESTION_ROLE = "human"
# What the content_type of questions begins with.
_ASKED_ABOUT = ("anatomy", "abnormality", "pathology", "instruct")


@dataclass(frozen=True)
class Example:
    """A row fit for training.

    image: the encoded picture; empty where `pixels` are there.
    pixels: the decoded picture, uint8 [1 or 3, 224, 224]; None while it is not decoded.
    """

    image: bytes
    caption: str
    labels: Labels
    pixels: np.ndarray | None = None


@dataclass(frozen=True)
class Skipped:
    """A row that cannot be trained on. `reason` is one of a few short names, fit for counting."""

    reason: str


def parse_row(row: Mapping[str, Any]) -> Example | Skipped:
    """Check a raw row. Reasons: "bad text" (not UTF-8: `Source.read` gives an empty row), "no
    image", "no caption", "questions" (their answers are no captions). The image is not decoded
    here."""
    if not row:
        return Skipped("bad text")
    image = row.get(IMAGE)
    encoded = image.get("bytes") if isinstance(image, Mapping) else image
    if not isinstance(encoded, bytes):
        return Skipped("no image")
    metadata = row.get(METADATA)
    if CAPTION in row:
        caption = _text(row[CAPTION])
    else:
        answers = _answers(row.get(CONVERSATIONS))
        if len(answers) > 1 or _is_question(metadata):
            return Skipped("questions")
        caption = _text(answers[0]) if answers else None
    if caption is None:
        return Skipped("no caption")
    return Example(encoded, caption, _labels(metadata))


def _text(value: Any) -> str | None:
    """A text on one line; None where there is none."""
    return " ".join(value.split()) or None if isinstance(value, str) else None


def _answers(conversations: Any) -> list[Any]:
    """The turns after the questions, by position: the real set's answers come from a role named
    'template', so a list of known answer roles would find nothing."""
    if not isinstance(conversations, list):
        return []
    turns = [turn if isinstance(turn, Mapping) else {} for turn in conversations]
    return [
        answer.get("value")
        for question, answer in pairwise(turns)
        if question.get("from") == QUESTION_ROLE
    ]


def _is_question(metadata: Any) -> bool:
    """Whether a row says that it asks about something, in the place of a description."""
    content = metadata.get("content_type") if isinstance(metadata, Mapping) else None
    return isinstance(content, str) and content.lower().startswith(_ASKED_ABOUT)


def _labels(metadata: Any) -> Labels:
    if not isinstance(metadata, Mapping):
        return Labels()

    def text(key: str) -> str | None:
        value = metadata.get(key)
        return value if isinstance(value, str) and value.strip() else None

    abnormal = metadata.get("is_abnormal")
    return Labels(
        text("modality"),
        text("location"),
        text("pathology"),
        abnormal if isinstance(abnormal, bool) else None,
    )
