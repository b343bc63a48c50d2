"""Which files a person means: files, folders, patterns, and lists on standard input."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from radcap.serving.dicom import is_dicom

PICTURE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif"),
    *(".jp2", ".j2k", ".ppm", ".pgm"),
    *(".dcm", ".dicom", ".ima"),
)
_HEAD = 132  # bytes that tell a DICOM file
_INDEX = "DICOMDIR"  # lists the files of a medium; holds no picture


@dataclass
class Listing:
    """The files to caption, in the order they were named, each once.

    Attributes:
        files: paths as a person would write them.
        faults: what was named and is not there, a line each.
        passed_over: files of folders that are no pictures.
    """

    files: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    passed_over: int = 0


def list_files(words: Iterable[str], stdin: TextIO) -> Listing:
    """Find the files that the words of a command line name.

    Args:
        words: a file; a folder, for the pictures in it and below, by name; a pattern such as
            `*.png` or `scans/**/*.dcm`, by name; or `-` for a list of files, a line each.
        stdin: the list.
    """
    listing = Listing()
    seen: set[Path] = set()
    for word in _with_list(words, stdin):
        for file in _matches(word, listing):
            real = Path(file).resolve()
            if real not in seen:
                seen.add(real)
                listing.files.append(file)
    return listing


def _with_list(words: Iterable[str], stdin: TextIO) -> Iterator[str]:
    for word in words:
        if word != "-":
            yield word
            continue
        for line in stdin:
            if line.strip():
                yield line.rstrip("\r\n")


def _matches(word: str, listing: Listing) -> Iterator[str]:
    try:
        path = Path(word)
        if path.is_dir():
            yield from _pictures_below(path, listing)
        elif path.is_file():
            yield word
        elif path.exists():
            listing.faults.append(f"{word}: neither a file nor a folder")
        elif glob.has_magic(word):
            found = sorted(glob.glob(word, recursive=True))  # noqa: PTH207 takes absolute ones too
            if not found:
                listing.faults.append(f"{word}: no file matches")
            for name in found:
                # Below a folder that matches `**`, every file matches by itself.
                if Path(name).is_file():
                    yield name
        else:
            listing.faults.append(f"{word}: no such file or folder")
    except (OSError, ValueError) as error:  # a name too long, a folder that may not be read
        listing.faults.append(f"{word}: {getattr(error, 'strerror', None) or 'no such file'}")


def _pictures_below(folder: Path, listing: Listing) -> Iterator[str]:
    names = sorted(folder.rglob("*"))
    found = 0
    for path in names:
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or not path.is_file():
            continue
        if _looks_like_picture(path):
            found += 1
            yield str(path)
        else:
            listing.passed_over += 1
    if not found:
        listing.faults.append(f"{folder}: no pictures in this folder")


def _looks_like_picture(path: Path) -> bool:
    """By its name; without an extension, or with one that is a number, by DICOM's magic."""
    suffix = path.suffix.lower()
    if suffix in PICTURE_SUFFIXES:
        return True
    if path.name == _INDEX or (suffix and not suffix[1:].isdecimal()):
        return False
    try:
        with path.open("rb") as stream:
            return is_dicom(stream.read(_HEAD))
    except OSError:  # it will be named when it is read in earnest
        return True
