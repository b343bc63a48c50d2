"""A folder of pictures and a table of captions -> the data set's parquet form, for `data.path=`."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import warnings
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from radcap.data.dicom.header import Header, check_keyword, hashed, read_header
from radcap.data.dicom.pixels import is_dicom, read_dicom
from radcap.data.image.decode import ImageError, decode_image
from radcap.data.labels import Labels
from radcap.data.phantom.rows import SCHEMAS, rows
from radcap.data.table import Table, TableRow, plain_name, read_table
from radcap.errors import EXIT_DONE, ConfigError, RadcapError, one_line
from radcap.files.atomic import beside
from radcap.files.names import shown
from radcap.files.reading import read_bytes
from radcap.host.console import Arguments, printable, progress, report, run_command, say
from radcap.serving.files import list_files

USAGE = """
usage: python scripts/make_dataset.py IMAGES CAPTIONS OUT [OPTION ...]

Turn a folder of pictures and a table of captions into a data set that radcap trains on.

IMAGES     folder of pictures, and of folders of them: PNG, JPEG, TIFF, WebP, BMP, GIF, JPEG 2000,
           PPM, or DICOM (pip install 'radcap[dicom]')
CAPTIONS   CSV with a header; commas, semicolons or tabs between the columns:
             file       a picture, or a folder whose pictures have one caption; in IMAGES
             caption    what is to be learnt
             patient    who it is, where known: the pictures of one patient are all for training or
                        all for validation. DICOM files say it themselves. It is not stored
             modality, location, pathology    labels, where known: captions are scored by them
             frame      which picture of a DICOM file with several, counted from 0
OUT        folder to write

options:
  --column NAME=THEIRS    what the table calls one of these columns, as file=image_path
  --header NAME=KEYWORD   fill a column from DICOM headers where the table leaves it empty, as
                          modality=Modality or caption=SeriesDescription. Nothing else of a header
                          goes into the data set
  --val-fraction SHARE    share of the patients, or of the pictures, for validation (0.1)
  --seed N                which ones (0). More rows, or patients, move none of those before
  --val-list FILE         write the names of the validation pictures there, for radcap.caption -
  --rows-per-group N      rows of a parquet row group (100)
  --force                 replace a data set in OUT
  -h, --help              print this and stop

exit status:
  0 made, though some pictures may have been left out   1 failed   2 wrong arguments or table

example:
  python scripts/make_dataset.py PICTURES captions.csv my_data
  python -m radcap.train data.path=my_data run.name=mine
"""

_LABELS = ("modality", "location", "pathology")
_COLUMNS = ("file", "caption", "patient", "frame", *_LABELS)
_NEEDED = ("file", "caption")
# What people call the column of patients: one that is missed costs honest scores.
_PATIENT = ("patient", "patientid", "subjectid")
_FROM_HEADER = ("caption", *_LABELS)
# DICOM's word for a modality -> the data set's.
_MODALITIES = {"MR": "mri", "CT": "ct"}
_MOST_PICTURE_BYTES = 2 << 30
_ROWS_PER_FILE = 10_000
_ROW_GROUPS_AT_LEAST = 8
_RING = 1 << 32
_SEED_STEP = 0x9E3779B1  # the golden ratio's share of the ring: the sets of two seeds differ most


@dataclass(frozen=True)
class Picture:
    """What a file gives to the data set.

    Attributes:
        image: the bytes that are stored; of a DICOM file the picture that its header asks for.
        suffix: of the name that is stored with them.
        content: SHA-256 of what is seen.
        header: of a DICOM file.
    """

    image: bytes
    suffix: str
    content: str
    header: Header


@dataclass(frozen=True)
class Entry:
    """A picture fit for training.

    Attributes:
        name: its file, relative to the folder of pictures.
        frame: which picture of the file.
        digest: SHA-256 of the file's bytes, and of the frame where that is not the first.
        content: see `Picture`.
        patient, study: hashes of who and what it is of; None where nothing says.
    """

    name: str
    frame: int
    digest: str
    content: str
    patient: str | None
    study: str | None
    caption: str
    labels: Labels
    num_frames: int = 1
    is_burned_in: bool = False


@dataclass(frozen=True)
class Fault:
    """What is left out, why, and which line of the table named it."""

    name: str
    reason: str
    line: int = 0


def main(words: Sequence[str]) -> int:
    """Make the data set that the arguments name.

    Returns:
        The exit status: 0 made, though some pictures may have been left out.

    Raises:
        ConfigError: wrong arguments, or a table with wrong rows or without the needed columns.
        RadcapError: nothing usable, or OUT cannot be written.
    """
    args = _arguments(words)
    table = _read_table(args)
    entries, left_out = _read_entries(args.images, table, args.header)
    if not entries:
        reasons = ", ".join(f"{n} {reason}" for reason, n in _by_reason(left_out).items())
        raise RadcapError(f"{args.captions}: no usable picture ({reasons or 'no rows'})")
    groups, split_by = _groups(entries)
    splits = _split(entries, groups, args.val_fraction, args.seed)
    outcome = {
        "rows": {split: len(chosen) for split, chosen in splits.items()},
        "split_by": split_by,
        "patients": len({e.patient for e in entries} - {None}),
        "groups": {split: len({groups[e] for e in chosen}) for split, chosen in splits.items()},
        "left_out": [
            {"file": fault.name, "line": fault.line, "reason": fault.reason} for fault in left_out
        ],
        "left_out_by_reason": _by_reason(left_out),
        "pictures_without_a_row": _unlisted(args.images, entries, left_out),
        "burned_in_annotation": sorted({e.name for e in entries if e.is_burned_in}),
        "several_frames": sorted({e.name for e in entries if e.num_frames > 1}),
    }
    try:
        with progress("writing", "pictures") as show:
            done = 0
            for split, chosen in splits.items():
                folder = args.out / "alignment"
                for _ in _write(args.images, folder, split, chosen, args.rows_per_group):
                    done += 1
                    show(done, len(entries))
        text = json.dumps(outcome, indent=2) + "\n"
        (args.out / "report.json").write_text(text, encoding="utf-8")
    except OSError as error:
        raise RadcapError(f"OUT {args.out}: {error.strerror or one_line(error)}") from None
    if args.val_list is not None:
        names = dict.fromkeys(str(args.images / entry.name) for entry in splits["val"])
        try:
            args.val_list.write_bytes(b"".join(os.fsencode(name) + b"\n" for name in names))
        except OSError as error:
            raise RadcapError(f"--val-list {args.val_list}: {error.strerror}") from None
    _tell(args.out, outcome)
    return EXIT_DONE


def _arguments(words: Sequence[str]) -> Namespace:
    parser = Arguments()
    for name in ("images", "captions", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--column", action="append", default=[])
    parser.add_argument("--header", action="append", default=[])
    parser.add_argument("--val-fraction", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--val-list", type=Path)
    parser.add_argument("--rows-per-group", type=int, default=100)
    parser.add_argument("--force", action="store_true")
    args = parser.parse_intermixed_args(list(words))
    if not args.images.is_dir():
        raise ConfigError(f"IMAGES {args.images}: no such folder")
    if not 0 <= args.val_fraction < 1:
        raise ConfigError(f"--val-fraction {args.val_fraction}: must be in [0, 1)")
    if args.rows_per_group < 1:
        raise ConfigError(f"--rows-per-group {args.rows_per_group}: must be at least 1")
    args.column = _pairs("--column", args.column, _COLUMNS)
    args.header = _pairs("--header", args.header, _FROM_HEADER)
    for keyword in args.header.values():
        check_keyword(keyword)
    if args.out.exists() and not args.out.is_dir():
        raise ConfigError(f"OUT {args.out}: a file is in the way; name a folder")
    try:
        is_used = args.out.exists() and any(args.out.iterdir())
    except OSError as error:
        raise ConfigError(f"OUT {args.out}: {error.strerror}") from None
    if is_used and not args.force:
        raise ConfigError(f"OUT {args.out}: the folder is not empty; --force replaces its data set")
    return args


def _pairs(option: str, given: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE of an option that may be given several times."""
    found: dict[str, str] = {}
    for word in given:
        name, equals, value = word.partition("=")
        if name not in names or not equals or not value.strip():
            raise ConfigError(f"{option} {word}: give NAME=VALUE, NAME one of {', '.join(names)}")
        if name in found:
            raise ConfigError(f"{option} {name}: given twice")
        found[name] = value.strip()
    return found


def _read_table(args: Namespace) -> list[TableRow]:
    """The rows of the table under the names of `_COLUMNS`; other columns are dropped."""
    called = {name: (plain_name(args.column.get(name, name)),) for name in _COLUMNS}
    if "patient" not in args.column:
        called["patient"] = _PATIENT
    wanted = [name for names in called.values() for name in names]
    root = args.images
    table = read_table(args.captions, wanted, lambda text: _is_there(root / text))
    there = {plain_name(column) for column in table.columns}
    columns = {n: next((c for c in called[n] if c in there), None) for n in _COLUMNS}
    _check_columns(args, table, columns)
    return [
        TableRow(row.line, {n: row.fields[c] for n, c in columns.items() if c is not None})
        for row in table.rows
    ]


def _check_columns(args: Namespace, table: Table, columns: Mapping[str, str | None]) -> None:
    names = ", ".join(shown(column)[1:-1] for column in table.columns) or "none"
    for name, theirs in args.column.items():
        if columns[name] is None:
            raise ConfigError(
                f"--column {name}={theirs}: CAPTIONS {args.captions} has no such column; there are "
                f"{names}"
            )
    missing = [n for n in _NEEDED if columns[n] is None and n not in args.header]
    if missing:
        raise ConfigError(
            f"CAPTIONS {args.captions}: no column {' and '.join(missing)}; there are {names}; "
            f"--column {missing[0]}=NAME tells which one it is"
        )


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a text too long for a name, or a loop of links
        return False


def _read_entries(
    folder: Path, table: Sequence[TableRow], from_header: Mapping[str, str]
) -> tuple[list[Entry], list[Fault]]:
    """The usable pictures, and the others with the reason each is left out."""
    entries: list[Entry] = []
    left_out: list[Fault] = []
    seen: set[str] = set()
    with progress("reading", "rows") as show:
        for done, row in enumerate(table, 1):
            for found in _entries_of(folder, row.fields, from_header):
                if isinstance(found, Entry) and found.content in seen:
                    found = Fault(found.name, "duplicate of an earlier picture")
                if isinstance(found, Entry):
                    seen.add(found.content)
                    entries.append(found)
                else:
                    left_out.append(replace(found, line=row.line))
            show(done, len(table))
    return entries, left_out


def _entries_of(
    folder: Path, row: Mapping[str, str], from_header: Mapping[str, str]
) -> Iterable[Entry | Fault]:
    """The picture that a row names, or those in the folder that it names and below."""
    root = Path(os.path.realpath(folder))
    name = Path(row["file"]).as_posix()
    if not row["file"]:
        return [Fault("", "no file named")]
    path = _real(root, name)
    if path is None:
        return [Fault(name, "outside of the folder")]
    if not row.get("caption") and "caption" not in from_header:
        return [Fault(name, "no caption")]
    if not _is_folder(path):
        return [_entry_of(root, path, name, row, None, from_header)]
    study = hashed(f"folder {path.relative_to(root).as_posix()}")
    listing = list_files([str(path)], [])
    faults = [Fault(name, fault.rpartition(": ")[2]) for fault in listing.faults]
    files = [Path(os.path.realpath(file)) for file in listing.files]
    return faults + [
        _entry_of(root, file, file.relative_to(root).as_posix(), row, study, from_header)
        if file.is_relative_to(root)
        else Fault(name, "outside of the folder")
        for file in files
    ]


def _real(root: Path, name: str) -> Path | None:
    """Where a name of the table leads; None where that is outside of the folder."""
    try:
        path = Path(os.path.realpath(root / name))  # resolve() fails at a loop of links
        if "\\" in name and not _is_there(path):  # as Windows writes it
            path = Path(os.path.realpath(root / name.replace("\\", "/")))
    except ValueError:  # a name that no file can have under this locale
        return root / name
    return path if path.is_relative_to(root) else None


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _entry_of(
    root: Path,
    path: Path,
    name: str,
    row: Mapping[str, str],
    study: str | None,
    from_header: Mapping[str, str],
) -> Entry | Fault:
    frame = row.get("frame") or "0"
    if not (frame.isascii() and frame.isdecimal() and len(frame) < 10):
        return Fault(name, "frame is no number")
    try:
        data = _read_file(path)
        picture = _read_picture(data, path.suffix, int(frame), tuple(from_header.values()))
    except ImageError as error:
        return Fault(name, error.reason)
    header = picture.header
    texts = {n: header.texts.get(keyword, "") for n, keyword in from_header.items()}
    if texts.get("modality"):
        texts["modality"] = _MODALITIES.get(texts["modality"], texts["modality"].lower())
    texts |= {n: row[n] for n in _FROM_HEADER if row.get(n)}
    caption = " ".join(texts.get("caption", "").split())
    if not caption:
        return Fault(name, "no caption")
    return Entry(
        path.relative_to(root).as_posix(),
        int(frame),
        _digest(data, int(frame)),
        picture.content,
        hashed(row.get("patient", "")) or header.patient,
        header.study or study,
        caption,
        Labels.of(*(texts.get(label) or None for label in _LABELS)),
        num_frames=1 if row.get("frame") else header.num_frames,
        is_burned_in=header.is_burned_in,
    )


def _read_file(path: Path) -> bytes:
    """The bytes of a picture's file; raises ImageError where it cannot be read."""
    try:
        return read_bytes(path, most=_MOST_PICTURE_BYTES)
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from None
    except ValueError:  # a name that no file system here can have
        raise ImageError("cannot be read: No such file or directory") from None


def _digest(data: bytes, frame: int) -> str:
    return hashlib.sha256(data + (b"frame %d" % frame if frame else b"")).hexdigest()


def _read_picture(data: bytes, suffix: str, frame: int, keywords: Sequence[str]) -> Picture:
    """Decode a file's picture, to be sure of it; a DICOM file's becomes a PNG of every pixel.

    Raises:
        ImageError: there is none.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of decoders, about files that then decode or do not
        try:
            if not is_dicom(data):
                if frame:
                    raise ImageError("only a DICOM file's frames can be chosen")
                decode_image(data)
                return Picture(data, suffix.lower(), _digest(data, 0), Header())
            pixels = read_dicom(data, frame=frame)
            header = read_header(data, keywords)
        except MemoryError:
            raise ImageError("more than the memory here can hold") from None
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    seen = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
    return Picture(stream.getvalue(), ".png", seen, header)


def _groups(entries: Sequence[Entry]) -> tuple[dict[Entry, str], str]:
    """What must not be torn apart: entry -> key, and what the keys are of, as text.

    Patients where they are known, else studies, else single pictures. Where all pictures are of
    one patient, of the next kind that gives several.
    """
    of_study = {e.study: e.patient for e in entries if e.study and e.patient}
    patients = {e: e.patient or of_study.get(e.study) for e in entries}
    kinds = {
        "patient": {e: patients[e] or e.study or e.digest for e in entries},
        "study": {e: e.study or e.digest for e in entries},
        "picture": {e: e.digest for e in entries},
    }
    several = {kind: keys for kind, keys in kinds.items() if len(set(keys.values())) > 1}
    if not any(patients.values()):
        several.pop("patient", None)
    if not any(e.study for e in entries):
        several.pop("study", None)
    kind, keys = next(iter(several.items()), ("picture", kinds["picture"]))
    return keys, kind


def _split(
    entries: Sequence[Entry], groups: Mapping[Entry, str], val_fraction: float, seed: int
) -> dict[str, list[Entry]]:
    """Which groups are validated on depends on their keys and the seed alone: adding others moves
    none. Of several groups, at least one is for validation, and one for training.
    """

    def place(key: str) -> int:
        """Where a key lies on a ring, of which validation has an arc; a seed turns it."""
        return (int(key[:8], 16) - seed * _SEED_STEP) % _RING

    keys = sorted(set(groups.values()), key=lambda key: (place(key), key))
    val = {key for key in keys if place(key) < val_fraction * _RING}
    if not val and val_fraction > 0 and len(keys) > 1:
        val = {keys[0]}
    if len(val) == len(keys):
        val.remove(keys[-1])
    splits: dict[str, list[Entry]] = {"train": [], "val": []}
    for entry in entries:
        splits["val" if groups[entry] in val else "train"].append(entry)
    # Stored sorted, like the real data set; the training order mixes.
    for chosen in splits.values():
        chosen.sort(key=_stored_order)
    return splits


def _stored_order(entry: Entry) -> tuple[str, ...]:
    labels = entry.labels
    return tuple(label or "" for label in (labels.modality, labels.location, labels.pathology))


def _write(
    pictures: Path, folder: Path, split: str, entries: Sequence[Entry], rows_per_group: int
) -> Iterable[Entry]:
    """Write a split; yields each entry when its row is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{split}-*.parquet"):
        old.unlink()
    count = -(-len(entries) // _ROWS_PER_FILE)
    schema = SCHEMAS["alignment"]
    # Batches draw from many row groups at once, so that a small set needs small ones.
    group_size = max(1, min(rows_per_group, len(entries) // _ROW_GROUPS_AT_LEAST))
    for number in range(count):
        part = entries[number * _ROWS_PER_FILE : (number + 1) * _ROWS_PER_FILE]
        path = folder / f"{split}-{number:05}-of-{count:05}.parquet"
        with beside(path) as partial:
            with pq.ParquetWriter(partial, schema, compression="none") as writer:
                for first in range(0, len(part), group_size):
                    group = []
                    for entry in part[first : first + group_size]:
                        group.append(_row(pictures, entry))
                        yield entry
                    table = pa.Table.from_pylist(group, schema)
                    writer.write_table(table, row_group_size=len(group))
            partial.replace(path)


def _row(pictures: Path, entry: Entry) -> dict[str, Any]:
    path = pictures / entry.name
    try:
        data = _read_file(path)
        picture = _read_picture(data, path.suffix, entry.frame, ())
    except ImageError as error:
        raise RadcapError(f"{entry.name} has changed meanwhile: {error.reason}") from None
    if _digest(data, entry.frame) != entry.digest:
        raise RadcapError(f"{entry.name} has changed meanwhile; the same command starts anew")
    # Names of files and folders may name a patient too.
    image = {"bytes": picture.image, "path": f"{entry.digest[:16]}{picture.suffix}"}
    unused = np.random.default_rng(0)  # questions are drawn for the other configs only
    (row,) = rows("alignment", image, entry.labels, entry.caption, unused)
    return row


def _unlisted(folder: Path, entries: Sequence[Entry], left_out: Sequence[Fault]) -> list[str]:
    """Pictures in the folder that no row of the table names."""
    root = Path(os.path.realpath(folder))
    faulty = (_real(root, fault.name) for fault in left_out)
    listed = {e.name for e in entries}
    listed |= {path.relative_to(root).as_posix() for path in faulty if path is not None}
    found = (Path(os.path.realpath(file)) for file in list_files([str(root)], []).files)
    names = {file.relative_to(root).as_posix() for file in found if file.is_relative_to(root)}
    return sorted(names - listed)


def _by_reason(left_out: Sequence[Fault]) -> dict[str, int]:
    return dict(Counter(fault.reason for fault in left_out))


_SPLIT_BY: dict[str, Callable[[int, int], str]] = {
    "patient": lambda train, val: f"split by patient: {train} in training, {val} in validation",
    "study": lambda train, val: (
        f"split by study: {train} in training, {val} in validation; the patients are not told "
        "apart, and one with several studies may be in both"
    ),
    "picture": lambda train, val: (
        "split by picture: neither a column patient nor DICOM headers tell patients apart, and "
        "one may be in both"
    ),
}


def _tell(out: Path, outcome: Mapping[str, Any]) -> None:
    train, val = outcome["rows"]["train"], outcome["rows"]["val"]
    say(f"{out}: {train} training and {val} validation rows")
    if val and outcome["patients"] == 1 and outcome["split_by"] != "patient":
        say(f"split by {outcome['split_by']}: all are of one patient, so that none is held out")
    elif val:
        say(_SPLIT_BY[outcome["split_by"]](*outcome["groups"].values()))
    else:
        say("no validation split: a single picture, or --val-fraction 0; data.val_split=train")
    for reason, number in outcome["left_out_by_reason"].items():
        say(f"left out: {number} {reason}")
    unlisted, burned_in, several = (
        len(outcome[name])
        for name in ("pictures_without_a_row", "burned_in_annotation", "several_frames")
    )
    if unlisted:
        say(f"pictures without a row in the table: {unlisted}")
    if several:
        say(f"files with several frames, of which the first is taken: {several} (column frame)")
    if burned_in:
        report(
            f"{burned_in} DICOM files say that text which may name the patient is part of the "
            "picture (BurnedInAnnotation): look at them before anybody else does"
        )
    if outcome["left_out"] or unlisted or several or burned_in:
        say(f"details: {out / 'report.json'}")
    say(f"train: python -m radcap.train data.path={printable(str(out))} run.name=mine")


if __name__ == "__main__":
    sys.exit(run_command(main, USAGE))
