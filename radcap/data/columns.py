"""Which columns of a data set hold its pictures and its captions, and what they have to hold."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from radcap.data.faults import DataError
from radcap.files.names import shown
from radcap.host.console import printable

if TYPE_CHECKING:
    import pyarrow as pa

    from radcap.config.schema import DataConfig

# The names in a raw row.
IMAGE, CAPTION, CONVERSATIONS, METADATA = "image", "caption", "conversations", "metadata"


@dataclass(frozen=True)
class Columns:
    """The columns that are read.

    image: struct{bytes, path}, or the bytes.
    caption: text; None: the answer to the first question in `conversations`.
    """

    image: str = IMAGE
    caption: str | None = None

    @classmethod
    def of(cls, data: DataConfig) -> Columns:
        """Those that a configuration names."""
        return cls(data.image_column, data.caption_column)

    @property
    def required(self) -> tuple[str, ...]:
        """Those that every file must have."""
        return (self.image, CONVERSATIONS if self.caption is None else self.caption)

    @property
    def names(self) -> dict[str, str]:
        """All that are read: name in the files -> name in a raw row."""
        caption = CONVERSATIONS if self.caption is None else CAPTION
        found = dict(zip(self.required, (IMAGE, caption), strict=True))
        return found if METADATA in found else {**found, METADATA: METADATA}

    @property
    def tag(self) -> str:
        """Part of the names of files that hold what was read; empty for the usual columns."""
        if self == USUAL:
            return ""
        return "-" + hashlib.sha256(repr(self.required).encode()).hexdigest()[:16]

    def check(self, file: str, schema: pa.Schema) -> None:
        """Refuse a file whose columns cannot hold what they should.

        Raises:
            DataError: one is missing, stands there twice, or holds something else.
        """
        missing = [column for column in self.required if column not in schema.names]
        if missing:
            raise DataError(
                f"{file} has no column {', '.join(map(shown, missing))}: captions need"
                f" {printable(', '.join(self.required))[:300]}; there are"
                f" {printable(', '.join(schema.names))[:300]}; {_OTHERS}"
            )
        for column, name in self.names.items():
            if schema.names.count(column) > 1:
                raise DataError(f"{file} has several columns {shown(column)}; {_OTHERS}")
            what, may_hold = _KINDS.get(name, ("", None))
            if may_hold is not None and not may_hold(kind := schema.field(column).type):
                raise DataError(
                    f"{file}: column {shown(column)} holds {printable(str(kind))[:100]}, not"
                    f" {what}; {_OTHERS}"
                )

    def fields(self, schema: pa.Schema) -> list[pa.Field]:
        """Those of a file's columns that are read."""
        found = [schema.field(name) for name in self.names if name in schema.names]
        # What others keep as metadata may be of any kind, and tells nothing here.
        return [f for f in found if self.names[f.name] != METADATA or _is_struct(f.type)]


USUAL = Columns()  # RadImageNet-VQA's

_OTHERS = "data.image_column and data.caption_column name others"


def _is_struct(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_struct(kind))


def _may_be_pictures(kind: pa.DataType) -> bool:
    if _is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return str(kind) in ("binary", "large_binary", "null")


def _may_be_text(kind: pa.DataType) -> bool:
    return str(kind) in ("string", "large_string", "null")


# Name in a raw row -> what its column has to hold. The rows of `conversations` are judged one by
# one.
_KINDS: dict[str, tuple[str, Callable[[pa.DataType], bool]]] = {
    IMAGE: ("pictures", _may_be_pictures),
    CAPTION: ("text", _may_be_text),
}
