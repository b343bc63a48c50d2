"""What is kept of every scored row: one line of rows.jsonl."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from types import NoneType
from typing import Any

from radcap.data.labels import Labels
from radcap.files.mappings import parse_json
from radcap.scoring.slots import STATED, read_captions, right_slots

_TEXT_OR_NONE = (str, NoneType)
_TYPES: dict[str, tuple[type, ...]] = {
    "row": (int,),
    "id": (str,),
    "loss": (float,),
    "tokens": (int,),
    "reference": (str,),
    "caption": _TEXT_OR_NONE,
    "skipped": _TEXT_OR_NONE,
    "cut": (bool,),
}


@dataclass(frozen=True)
class RowResult:
    """One row of the split, scored.

    Attributes:
        row: its number in the order of this evaluation.
        id: where it is stored, `file:row group:row`.
        loss: nats over all of its target tokens.
        tokens: target tokens, [SEP] included.
        reference: its caption in the data.
        labels: its metadata.
        caption: what the model says; None where none was asked for.
        skipped: why the row could not be used; None for a good one.
        cut: whether the reference is longer than `data.max_length`: its end is not in the loss.
    """

    row: int
    id: str
    loss: float = 0.0
    tokens: int = 0
    reference: str = ""
    labels: Labels = field(default_factory=Labels)
    caption: str | None = None
    skipped: str | None = None
    cut: bool = False

    def to_line(self) -> bytes:
        """A line of JSON, its floats exact."""
        return json.dumps(asdict(self), allow_nan=False).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> RowResult:
        """Read back what `to_line` wrote.

        Raises:
            ValueError: it did not.
        """
        try:
            fields: dict[str, Any] = parse_json(line)
            row = cls(**{**fields, "labels": Labels(**fields["labels"])})
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a row's result: {error}") from None
        for name, allowed in _TYPES.items():
            if type(getattr(row, name)) not in allowed:
                raise ValueError(f"not a row's result: {name}")
        labels = row.labels
        texts = [getattr(labels, slot) for slot in STATED]
        if any(type(text) not in _TEXT_OR_NONE for text in texts):
            raise ValueError("not a row's result: labels")
        for text in (row.id, row.reference, row.caption, row.skipped, *texts):
            (text or "").encode()  # half a surrogate pair is no text
        if type(labels.abnormal) not in (bool, NoneType) or not math.isfinite(row.loss):
            raise ValueError("not a row's result: abnormal or loss")
        return row

    def badness(self, said: Labels | None = None) -> tuple[float, ...]:
        """Sorts captions from good to bad: labels stated wrongly, then nats a token.

        Args:
            said: what the caption states; None to read it with no other labels than the row's.
        """
        wrong = 0
        if self.caption is not None:
            if said is None:
                [said] = read_captions([(self.caption, self.labels)])
            right = right_slots(said, self.labels)
            wrong = sum(not right[slot] for slot in STATED if slot in right)
        return wrong, self.loss / max(self.tokens, 1), -self.row


class WorstRows:
    """Keeps the worst of many rows in sight."""

    def __init__(self, count: int) -> None:
        """Args:
        count: how many.
        """
        self._count = count
        self._rows: list[tuple[tuple[float, ...], RowResult]] = []

    def add(self, result: RowResult, said: Labels | None = None) -> bool:
        """Take a row; True where it is among the worst so far.

        Args:
            said: see `RowResult.badness`.
        """
        if self._count == 0 or result.caption is None:
            return False
        self._rows.append((result.badness(said), result))
        self._rows.sort(key=lambda entry: entry[0], reverse=True)
        left_out = self._rows[self._count :]
        del self._rows[self._count :]
        return not any(out is result for _, out in left_out)

    def rows(self) -> list[RowResult]:
        """The worst first."""
        return [result for _, result in self._rows]
