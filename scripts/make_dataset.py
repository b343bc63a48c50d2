"""A folder of pictures and a CSV of captions -> the data set's parquet form, for `data.path=`."""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from radcap.data.images import ImageError, decode_image
from radcap.data.phantom_rows import SCHEMAS, rows
from radcap.errors import EXIT_DONE, ConfigError, RadcapError
from radcap.labels import Labels
from radcap.reading import read_bytes

_COLUMNS = ("file", "caption", "modality", "location", "pathology")
_PICTURES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".jp2"}
_MOST_TABLE_BYTES = 1 << 30
_MOST_PICTURE_BYTES = 2 << 30
_ROWS_FOR_VAL = 10
_ROWS_PER_FILE = 10_000
_ROW_GROUPS_AT_LEAST = 8


@dataclass(frozen=True)
class Entry:
    """A picture fit for training: its file, the SHA-256 of its bytes, its caption and labels."""

    name: str
    digest: str
    caption: str
    labels: Labels


def main(words: Sequence[str]) -> int:
    """Make the data set that the arguments name.

    Returns:
        The exit status: 0 made, though some pictures may have been left out.

    Raises:
        ConfigError: wrong arguments, or a table without the needed columns.
        RadcapError: nothing usable.
    """
    args = _arguments(words)
    if not args.images.is_dir():
        raise ConfigError(f"IMAGES {args.images}: no such folder")
    if not 0 <= args.val_fraction < 1:
        raise ConfigError(f"--val-fraction {args.val_fraction}: must be in [0, 1)")
    if args.rows_per_group < 1:
        raise ConfigError(f"--rows-per-group {args.rows_per_group}: must be at least 1")
    if args.out.exists() and not args.out.is_dir():
        raise ConfigError(f"OUT {args.out}: a file is in the way; name a folder")
    if args.out.exists() and any(args.out.iterdir()) and not args.force:
        raise ConfigError(f"OUT {args.out}: the folder is not empty; --force replaces its data set")
    entries, left_out = _read_entries(args.images, _read_table(args.captions))
    if not entries:
        reasons = ", ".join(f"{n} {reason}" for reason, n in _by_reason(left_out).items())
        raise RadcapError(f"{args.captions}: no usable picture ({reasons or 'no rows'})")
    splits = _split(entries, args.val_fraction)
    for split, chosen in splits.items():
        _write(args.images, args.out / "alignment", split, chosen, args.rows_per_group)
    listed = {entry.name for entry in entries} | {item["file"] for item in left_out}
    unlisted = sorted(
        path.relative_to(args.images).as_posix()
        for path in args.images.rglob("*")
        if path.suffix.lower() in _PICTURES
        and path.relative_to(args.images).as_posix() not in listed
    )
    report = {
        "rows": {split: len(chosen) for split, chosen in splits.items()},
        "left_out": left_out,
        "left_out_by_reason": _by_reason(left_out),
        "pictures_without_a_row": unlisted,
    }
    (args.out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    _tell(args.out, report)
    return EXIT_DONE


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python scripts/make_dataset.py",
        description="Turn a folder of pictures and a CSV of captions into the data set's form.",
        epilog="Then: python -m radcap.train data.path=OUT run.name=mine",
    )
    parser.add_argument("images", metavar="IMAGES", type=Path, help="folder of pictures")
    parser.add_argument(
        "captions",
        metavar="CAPTIONS",
        type=Path,
        help="CSV with columns file and caption, and modality, location, pathology where known",
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    parser.add_argument(
        "--val-fraction", type=float, default=0.1, help="share of rows for validation (0.1)"
    )
    parser.add_argument(
        "--rows-per-group", type=int, default=100, help="rows of a parquet row group (100)"
    )
    parser.add_argument("--force", action="store_true", help="replace a data set in OUT")
    return parser.parse_args(words)


def _read_table(path: Path) -> list[dict[str, str]]:
    """The rows of the CSV under the names of `_COLUMNS`; other columns are ignored."""
    try:
        text = read_bytes(path, most=_MOST_TABLE_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"CAPTIONS {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"CAPTIONS {path}: not UTF-8; save the table as UTF-8 CSV") from None
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    # A caption may hold line breaks, so the lines keep their ends; and it may be long.
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    table = csv.DictReader(text.splitlines(keepends=True), delimiter=delimiter)
    names = {name.strip().lower(): name for name in table.fieldnames or ()}
    missing = [name for name in ("file", "caption") if name not in names]
    if missing:
        raise ConfigError(
            f"CAPTIONS {path}: no column {' and '.join(missing)}; there are {', '.join(names)}"
        )
    return [
        {name: (row.get(names[name]) or "").strip() for name in _COLUMNS if name in names}
        for row in table
    ]


def _read_entries(
    folder: Path, table: list[dict[str, str]]
) -> tuple[list[Entry], list[dict[str, str]]]:
    """The usable rows, and the others with the reason each is left out."""
    entries: list[Entry] = []
    left_out: list[dict[str, str]] = []
    seen: set[str] = set()
    for row in table:
        name = Path(row["file"]).as_posix()
        entry = _read_entry(folder, name, row)
        if isinstance(entry, Entry) and entry.digest in seen:
            entry = "duplicate of an earlier picture"
        if isinstance(entry, str):
            left_out.append({"file": name, "reason": entry})
            continue
        seen.add(entry.digest)
        entries.append(entry)
    return entries, left_out


def _read_entry(folder: Path, name: str, row: dict[str, str]) -> Entry | str:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        return "outside of the folder"
    if not row["caption"]:
        return "no caption"
    try:
        image = read_bytes(path, most=_MOST_PICTURE_BYTES)
        decode_image(image)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except ImageError as error:
        return error.reason
    labels = Labels.of(*(row.get(column) or None for column in _COLUMNS[2:]))
    digest = hashlib.sha256(image).hexdigest()
    return Entry(name, digest, " ".join(row["caption"].split()), labels)


def _split(entries: list[Entry], val_fraction: float) -> dict[str, list[Entry]]:
    """Which pictures are validated on depends on their content alone: adding others moves none.

    From ten rows on, validation has at least one.
    """
    by_digest = sorted(entries, key=lambda entry: entry.digest)
    val = {e.digest for e in by_digest if int(e.digest[:8], 16) < val_fraction * 2**32}
    if not val and val_fraction > 0 and len(entries) >= _ROWS_FOR_VAL:
        val = {by_digest[0].digest}
    if len(val) == len(entries):
        val.remove(by_digest[-1].digest)
    splits: dict[str, list[Entry]] = {"train": [], "val": []}
    for entry in entries:
        splits["val" if entry.digest in val else "train"].append(entry)
    # Stored sorted, like the real data set; the training order mixes.
    for chosen in splits.values():
        chosen.sort(key=_stored_order)
    return splits


def _stored_order(entry: Entry) -> tuple[str, ...]:
    labels = entry.labels
    return tuple(label or "" for label in (labels.modality, labels.location, labels.pathology))


def _write(
    pictures: Path, folder: Path, split: str, entries: list[Entry], rows_per_group: int
) -> None:
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
        partial = path.with_name(f".{path.name}.partial")
        with pq.ParquetWriter(partial, schema, compression="none") as writer:
            for first in range(0, len(part), group_size):
                group = [_row(pictures, entry) for entry in part[first : first + group_size]]
                writer.write_table(pa.Table.from_pylist(group, schema), row_group_size=len(group))
        partial.replace(path)


def _row(pictures: Path, entry: Entry) -> dict[str, Any]:
    image = {"bytes": (pictures / entry.name).read_bytes(), "path": Path(entry.name).name}
    unused = np.random.default_rng(0)  # questions are drawn for the other configs only
    (row,) = rows("alignment", image, entry.labels, entry.caption, unused)
    return row


def _by_reason(left_out: list[dict[str, str]]) -> dict[str, int]:
    return dict(Counter(item["reason"] for item in left_out))


def _tell(out: Path, report: dict[str, Any]) -> None:
    train, val = report["rows"]["train"], report["rows"]["val"]
    print(f"{out}: {train} training and {val} validation rows")
    if not val:
        print(f"no validation split: fewer than {_ROWS_FOR_VAL} rows, or --val-fraction 0")
    for reason, number in report["left_out_by_reason"].items():
        print(f"left out: {number} {reason}")
    if report["pictures_without_a_row"]:
        print(f"pictures without a row in the table: {len(report['pictures_without_a_row'])}")
    if report["left_out"] or report["pictures_without_a_row"]:
        print(f"details: {out / 'report.json'}")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except RadcapError as fault:
        print(f"make_dataset: {fault}", file=sys.stderr)
        sys.exit(fault.exit_status)
