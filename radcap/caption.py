"""`python -m radcap.caption`: captions for picture files, with trained weights."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from radcap.config import RUNTIMES
from radcap.console import Arguments, on_terminal, report, run_command, say
from radcap.errors import EXIT_DONE, EXIT_FAILED, ConfigError

if TYPE_CHECKING:
    import numpy as np

    from radcap.serving.captioner import Caption, Captioner

USAGE = """
usage: python -m radcap.caption WEIGHTS FILE... [--json | --csv] [OPTION ...]

Write a caption for each picture. Not for diagnosis: radcap is a research tool, and its captions
are no medical findings.

WEIGHTS   a run folder (its best checkpoint), a checkpoint, an exported folder, a weights file
          (.safetensors .bin .pt .pth), or a Hub id: owner/name or owner/name@revision
FILE      PNG, JPEG, TIFF, WebP, BMP, GIF, JPEG 2000, PPM, or DICOM (pip install 'radcap[dicom]');
          a folder, for the pictures in it and below; a pattern such as 'scans/**/*.dcm'; or - for
          a list of files on standard input, a line each. A file named twice is captioned once.

options:
  --json              a line of JSON for each picture: file, caption, log_probability, tokens,
                      seconds, note, and with --beams the alternatives
  --csv               the same columns as CSV, with a header
  --beams N           search with N beams (default 1: the likeliest word piece at every step)
  --max-len N         word pieces of a caption at most (default 80)
  --batch-size N      pictures captioned at a time (default 16)
  --frame N           frame of files with several, counted from 0 (default 0)
  --device NAME       auto (default), cpu, cuda, tpu or xla_cpu
  --precision NAME    fp32 (default), bf16, or int8 (CPU): faster, other words now and then
  -h, --help          print this and stop

exit status:
  0 every picture has its caption   1 some have not, a line on standard error for each, or failed
  2 wrong arguments

examples:
  python -m radcap.caption runs/default scan.png
  python -m radcap.caption pytorch_model.bin study/ --json --beams 4
  find . -name '*.dcm' | python -m radcap.caption runs/default - --csv > captions.csv
"""

_LARGEST = {"beams": 64, "max_len": 2000, "batch_size": 4096, "frame": 1_000_000}
_COLUMNS = ("file", "caption", "log_probability", "tokens", "seconds", "note")


def main(words: Sequence[str]) -> int:
    """Find the files, load the weights, caption.

    Returns:
        The exit status.
    """
    options = read_options(words)

    from radcap.serving.files import list_files

    # Names of files need not be text.
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
    listing = list_files(options.files, sys.stdin)
    for fault in listing.faults:
        _report(fault)
    if not listing.files and not listing.faults:
        report("standard input names no file: nothing to caption")
    if listing.passed_over:
        report(f"passed over in folders, no pictures by their names: {listing.passed_over}")
    failed = len(listing.faults)
    if listing.files:
        failed += _caption_all(options, listing.files)
    return EXIT_FAILED if failed else EXIT_DONE


def read_options(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line.

    Raises:
        ConfigError: naming the argument.
    """
    parser = Arguments()
    parser.add_argument("weights")
    parser.add_argument("files", nargs="+")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true")
    form.add_argument("--csv", action="store_true")
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--max-len", type=int, default=80)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--frame", type=int, default=0)
    parser.add_argument("--device", choices=RUNTIMES, default="auto")
    parser.add_argument("--precision", choices=("fp32", "bf16", "int8"), default="fp32")
    options = parser.parse_intermixed_args(list(words))
    for name, largest in _LARGEST.items():
        least = 0 if name == "frame" else 1
        if not least <= getattr(options, name) <= largest:
            word = name.replace("_", "-")
            raise ConfigError(f"--{word} {getattr(options, name)}: from {least} to {largest}")
    if options.precision == "int8" and options.device not in ("auto", "cpu"):
        raise ConfigError(f"--precision int8 is for the CPU, not for --device {options.device}")
    return options


def _caption_all(options: argparse.Namespace, files: Sequence[str]) -> int:
    """Caption files, a batch at a time; returns how many could not be."""
    from tqdm import tqdm

    from radcap.serving.captioner import NOT_FOR_DIAGNOSIS, Captioner

    captioner = Captioner.from_pretrained(
        options.weights,
        device=options.device,
        precision=options.precision,
        batch_size=options.batch_size,
    )
    report(f"{NOT_FOR_DIAGNOSIS}: captions of a research model, {captioner.pretrained.origin}")
    if options.csv:
        say(_csv_line(_COLUMNS))
    failed = 0
    with tqdm(total=len(files), unit="picture", disable=not on_terminal(), leave=False) as bar:
        for names, pixels, faults in _batches(files, options):
            failed += len(faults)
            for fault in faults:
                _report(fault)
            if names:
                _caption_batch(captioner, options, names, pixels)
            bar.update(len(names) + len(faults))
    return failed


def _batches(
    files: Sequence[str], options: argparse.Namespace
) -> Iterator[tuple[list[str], np.ndarray | None, list[str]]]:
    """Names and pixels of whole batches of readable files, and what is wrong with the others."""
    import numpy as np

    from radcap.serving.pictures import PictureError, read_picture

    names: list[str] = []
    pixels: list[np.ndarray] = []
    faults: list[str] = []
    for number, file in enumerate(files, 1):
        try:
            pixels.append(read_picture(file, frame=options.frame))
            names.append(file)
        except PictureError as error:
            faults.append(str(error))
        if len(names) == options.batch_size or number == len(files):
            yield names, np.stack(pixels) if pixels else None, faults
            names, pixels, faults = [], [], []


def _caption_batch(
    captioner: Captioner, options: argparse.Namespace, names: Sequence[str], pixels: Any
) -> None:
    found = captioner.describe(pixels, num_beams=options.beams, max_len=options.max_len)
    for name, caption in zip(names, found, strict=True):
        if options.json:
            say(json.dumps(_record(name, caption, with_alternatives=options.beams > 1)))
        elif options.csv:
            record = _record(name, caption) | {"tokens": " ".join(caption.tokens)}
            say(_csv_line([record[column] for column in _COLUMNS]))
        else:
            say(f"{_in_one_line(name)}: {caption.text}")


def _record(name: str, caption: Caption, *, with_alternatives: bool = False) -> dict[str, Any]:
    from radcap.serving.captioner import NOT_FOR_DIAGNOSIS

    record: dict[str, Any] = {
        "file": name,
        "caption": caption.text,
        "log_probability": round(caption.log_probability, 4),
        "tokens": list(caption.tokens),
        "seconds": round(caption.seconds, 4),
        "note": NOT_FOR_DIAGNOSIS,
    }
    if with_alternatives:
        record["alternatives"] = [
            {"caption": other.text, "log_probability": round(other.log_probability, 4)}
            for other in caption.alternatives
        ]
    return record


def _report(fault: str) -> None:
    report(_in_one_line(fault))


def _in_one_line(text: str) -> str:
    """A name may hold the end of a line."""
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _csv_line(values: Sequence[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(values)
    return line.getvalue()


if __name__ == "__main__":
    sys.exit(run_command(main, USAGE))
