"""Which parquet files of a data set are those of a split, in a folder and on the Hub alike."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from shlex import quote

from radcap.files.names import shown
from radcap.host.console import printable

# Below a place: several files of a split, one file, or a folder of its own, as the Hub's converter
# writes it. What begins like the first is the split's: a name that leads elsewhere is then refused,
# and not passed over.
_FORMS = (r"{split}-.*\.parquet", r"{split}\.parquet", r"{split}/[^/]+\.parquet")


def places(config: str) -> tuple[str, ...]:
    """Where the files of a configuration may be, the first choice first; "" is the top."""
    return tuple(dict.fromkeys((f"{config}/", "data/", "")))


def files_of_split(names: Iterable[str], split: str, config: str) -> list[str]:
    """The files of a split, in stored order; empty if there are none.

    Args:
        names: files of the data set, relative to it, with "/".
        split, config: see `radcap.data.open.open_source`.
    """
    listed = sorted(names)
    for place in places(config):
        for form in _FORMS:
            name = re.escape(place) + form.format(split=re.escape(split))
            pattern = re.compile(name, re.DOTALL)
            if found := [name for name in listed if pattern.fullmatch(name)]:
                return found
    return []


def looked_for(split: str, config: str) -> str:
    """The usual names of such files, for a message."""
    return " and ".join(
        ", ".join(f"{place}{split}-*.parquet" for place in some)
        for some in (places(config)[:-1], places(config)[-1:])
    )


def what_is_there(files: list[str], split: str) -> str:
    """The splits that parquet files belong to, in words."""
    if not files:
        return "there are no parquet files"
    stems = sorted({name.rsplit("-", 3)[0].removesuffix(".parquet") for name in files})
    parts = {part for stem in stems for part in stem.split("/")}
    hint = ""
    for one, other in (("validation", "val"), ("val", "validation")):
        if split == one and other in parts:
            hint = f" (this data set calls it {other!r}: data.val_split={other})"
    return f"there are: {printable(', '.join(stems[:12]))[:300]}{hint}"


def what_it_is(file: Path) -> str:
    """What to do about a file that is given as the folder."""
    if not file.is_file():
        return ""
    if file.suffix == ".parquet":
        return f"; name the one that holds it, {file.parent}"
    return f"; {_how_to_make(file.parent)}"


def what_is_in(folder: Path, split: str) -> str:
    """The splits of a folder, or what becomes a data set where it holds pictures instead."""
    found = sorted({file.relative_to(folder).as_posix() for file in folder.rglob("*.parquet")})
    visible = (file for file in folder.rglob("[!.]*") if file.is_file())
    other = next(visible, None)
    if found or other is None:
        return what_is_there(found, split)
    return (
        f"there are no parquet files, but others such as {shown(other.name)};"
        f" {_how_to_make(folder)}"
    )


def _how_to_make(folder: Path) -> str:
    return (
        "pictures and a table of captions become a data set by python scripts/make_dataset.py"
        f" {quote(str(folder))} CAPTIONS.csv OUT, and then data.path=OUT"
    )
