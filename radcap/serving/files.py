"""Which files a person means: files, folders, patterns, and lists on standard input."""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from radcap.data.dicom.pixels import is_dicom
from radcap.files.reading import open_regular

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
        faults: what was named and is not there, or may not be read, a line each.
        passed_over: files of folders that are no pictures.
    """

    files: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    passed_over: int = 0


def list_files(words: Iterable[str], stdin: Iterable[str]) -> Listing:
    """Find the files that the words of a command line name.

    Args:
        words: a file; a folder, for the pictures in it and below, by name; a pattern such as
            `*.png` or `scans/**/*.dcm`, by name; or `-` for a list of files, a line each.
        stdin: the list.
    """
    listing = Listing()
    seen: set[str] = set()
    for word in _with_list(words, stdin):
        try:
            for file in _named(word, listing):
                real = os.path.realpath(file)
                if real not in seen:
                    seen.add(real)
                    listing.files.append(file)
        except (OSError, ValueError) as error:  # a name too long, a folder that may not be read
            listing.faults.append(f"{word}: {getattr(error, 'strerror', None) or 'no such file'}")
    return listing


def _with_list(words: Iterable[str], stdin: Iterable[str]) -> Iterator[str]:
    for word in words:
        if word != "-":
            yield word
            continue
        for number, line in enumerate(stdin):
            name = line.rstrip("\r\n")
            name = name if number else name.removeprefix("\ufeff")  # some editors' byte order mark
            if name.strip():
                yield name


def _named(word: str, listing: Listing) -> Iterator[str]:
    path = Path(word)
    if path.is_dir():
        yield from _pictures_below(path, listing)
    elif path.is_file():
        yield word
    elif path.exists():
        listing.faults.append(f"{word}: neither a file nor a folder")
    elif glob.has_magic(word):
        yield from _matches(word, listing)
    else:
        listing.faults.append(f"{word}: no such file or folder")


def _matches(pattern: str, listing: Listing) -> Iterator[str]:
    """Files that match, and the pictures in folders that match, as if a shell had named them."""
    found = sorted(set(_expand(pattern, listing)))
    files = [name for name in found if not Path(name).is_dir()]
    if not found:
        listing.faults.append(f"{pattern}: no file matches")
    # Below a folder that matches `**`, every file matches by itself.
    is_deep = "**" in Path(pattern).parts
    for name in files if files and is_deep else found:
        if Path(name).is_dir():
            yield from _pictures_below(Path(name), listing)
        else:  # what is no file, such as a link to nothing, is named when it is read
            yield name


def _expand(pattern: str, listing: Listing) -> Iterator[str]:
    """What a pattern matches. `glob` itself follows links in `**` round and round."""
    parts = Path(pattern).parts
    if "**" not in parts:
        yield from glob.iglob(pattern)  # noqa: PTH207 takes absolute ones too
        return
    where = parts.index("**")
    begin, rest = str(Path(*parts[:where])), parts[where + 1 :]
    tops = _expand(begin, listing) if glob.has_magic(begin) else [begin]
    for top in (Path(name) for name in tops):
        for folder, files in _walk(top, listing) if top.is_dir() else ():
            if rest:
                yield from _expand(str(Path(glob.escape(str(folder)), *rest)), listing)
            else:
                yield from (str(folder), *(str(folder / name) for name in files))


def _pictures_below(folder: Path, listing: Listing) -> Iterator[str]:
    faults_before, found = len(listing.faults), 0
    for path in sorted(below / name for below, names in _walk(folder, listing) for name in names):
        if _looks_like_picture(path):
            found += 1
            yield str(path)
        else:
            listing.passed_over += 1
    if not found and len(listing.faults) == faults_before:
        listing.faults.append(f"{folder}: no pictures in this folder")


def _walk(top: Path, listing: Listing) -> Iterator[tuple[Path, list[str]]]:
    """A folder and those below with the names in each that are no folders; hidden ones left out.

    Linked folders are followed, each once. Those that may not be read become faults.
    """

    def refused(error: OSError) -> None:
        listing.faults.append(f"{error.filename}: {error.strerror}")

    seen: set[str] = set()
    for folder, folders, files in os.walk(top, onerror=refused, followlinks=True):
        real = os.path.realpath(folder)
        folders[:] = [] if real in seen else sorted(_shown(folders))
        if real not in seen:
            seen.add(real)
            yield Path(folder), sorted(_shown(files))


def _shown(names: Iterable[str]) -> Iterator[str]:
    return (name for name in names if not name.startswith("."))


def _looks_like_picture(path: Path) -> bool:
    """By its name; without an extension, or with one that is a number, by DICOM's magic."""
    suffix = path.suffix.lower()
    if suffix in PICTURE_SUFFIXES:
        return True
    if path.name == _INDEX or (suffix and not suffix[1:].isdecimal()):
        return False
    try:
        with open_regular(path) as stream:
            return is_dicom(stream.read(_HEAD))
    except OSError as error:  # it will be named when it is read in earnest
        return error.errno != errno.EINVAL
