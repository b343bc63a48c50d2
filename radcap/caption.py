"""`python -m radcap.caption`: captions for picture files, with trained weights."""

from __future__ import annotations

import argparse
import csv
import io
import json
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radcap.config.schema import MAX_POSITIONS
from radcap.errors import EXIT_DONE, EXIT_FAILED, ConfigError
from radcap.host.console import (
    Arguments,
    heartbeat,
    on_terminal,
    printable,
    put,
    report,
    run_command,
)
from radcap.host.streams import discard
from radcap.serving.note import DRAWINGS_ONLY, NOT_FOR_DIAGNOSIS, note
from radcap.serving.precision import add_arithmetic, check_precision

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
  --json              a line of JSON for each picture: file, caption, log_probability (natural, of
                      this wording: other words may say the same), tokens, seconds, note, and with
                      --beams the alternatives
  --csv               the same columns as CSV, with a header
  --beams N           search with N beams (default 1: the likeliest word piece at every step;
                      the page of radcap.demo takes 5)
  --max-len N         word pieces of a caption at most (default 80)
  --batch-size N      pictures captioned at a time (default 16)
  --frame N           frame of files with several, counted from 0 (default: the first, and a line on
                      standard error that there are others)
  --device NAME       auto (default), cpu, cuda, tpu or xla_cpu
  --precision NAME    fp32 (default), or bf16: faster, other words now and then
  -h, --help          print this and stop

exit status:
  0 every picture has its caption   1 some have not, a line on standard error for each, or failed
  2 wrong arguments

examples:
  python -m radcap.caption runs/default scan.png
  python -m radcap.caption pytorch_model.bin study/ --json --beams 4
  find . -name '*.dcm' | python -m radcap.caption runs/default - --csv > captions.csv
"""

_LARGEST = {"beams": 64, "max_len": MAX_POSITIONS, "batch_size": 4096, "frame": 1_000_000}
_COLUMNS = ("file", "caption", "log_probability", "tokens", "seconds", "note")


def main(words: Sequence[str]) -> int:
    """Find the files, load the weights, caption.

    Returns:
        The exit status.
    """
    options = read_options(words)

    from radcap.serving.files import PICTURE_SUFFIXES, list_files
    from radcap.serving.source import fault_in_source

    no_weights = fault_in_source(options.weights)
    if no_weights is None and options.weights.lower().endswith(PICTURE_SUFFIXES):
        no_weights = f"{options.weights}: a picture; the weights come before it"
    if no_weights is not None:
        report(printable(no_weights))
    listing = list_files(options.files, sys.stdin)
    for fault in listing.faults:
        report(printable(fault))
    if no_weights is not None:
        return EXIT_FAILED
    if listing.faults and not listing.files and not Path(options.weights).exists():
        nowhere = "no such file or folder; on the Hub it was not looked for"
        report(printable(f"{options.weights}: {nowhere}"))
    if not listing.files and not listing.faults:
        report("standard input names no file: nothing to caption")
    if listing.passed_over:
        report(f"passed over in folders, no pictures by their names: {listing.passed_over}")
    failed = len(listing.faults)
    if listing.files:
        try:
            failed += _caption_all(options, listing.files)
        except BrokenPipeError:  # nobody reads on, as after `| head`
            discard(sys.stdout)
            return 128 + signal.SIGPIPE
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
    parser.add_argument("--frame", type=int)
    add_arithmetic(parser)
    options = parser.parse_intermixed_args(list(words))
    for name, largest in _LARGEST.items():
        least, value = 0 if name == "frame" else 1, getattr(options, name)
        if value is not None and not least <= value <= largest:
            raise ConfigError(f"--{name.replace('_', '-')} {value}: from {least} to {largest}")
    check_precision(options.precision)
    return options


def _caption_all(options: argparse.Namespace, files: Sequence[str]) -> int:
    """Caption files, a batch at a time; returns how many could not be."""
    # What is read by a program has nothing but faults on standard error.
    with heartbeat("loading the weights", tell=report) if on_terminal() else nullcontext():
        import numpy as np
        from tqdm import tqdm

        from radcap.serving.captioner import Captioner
        from radcap.serving.pictures import PictureError, read_frame

        captioner = Captioner.from_pretrained(
            options.weights,
            device=options.device,
            precision=options.precision,
            batch_size=options.batch_size,
        )
    origin = printable(captioner.pretrained.origin)
    notes = [f"{NOT_FOR_DIAGNOSIS}: captions of a research model, {origin}"]
    if captioner.pretrained.knows_drawings_only:
        notes.append(DRAWINGS_ONLY)
    for line in notes:
        if options.csv or options.json:  # every record says it too
            report(line)
        else:
            put(f"# {line}")
    if options.csv:
        put(_csv_line(_COLUMNS))
    failed = 0
    names: list[str] = []
    pixels: list[np.ndarray] = []
    with tqdm(total=len(files), unit="picture", disable=not on_terminal(), leave=False) as bar:
        for number, name in enumerate(files, 1):
            try:
                frame = read_frame(name, frame=options.frame or 0)
                pixels.append(frame.pixels)
                names.append(name)
                if options.frame is None and frame.others:
                    report(
                        f"{printable(name)}: {frame.others}, and the caption is of the first; "
                        "--frame N chooses another, from 0"
                    )
            except PictureError as error:
                report(printable(str(error)))
                failed += 1
                bar.update()
            if len(names) == options.batch_size or (names and number == len(files)):
                _caption_batch(captioner, options, names, np.stack(pixels))
                bar.update(len(names))
                names, pixels = [], []
    return failed


def _caption_batch(
    captioner: Captioner, options: argparse.Namespace, names: Sequence[str], pixels: np.ndarray
) -> None:
    found = captioner.describe(pixels, num_beams=options.beams, max_len=options.max_len)
    for name, caption in zip(names, found, strict=True):
        record = _record(name, caption, captioner, with_alternatives=options.beams > 1)
        if options.json:
            put(json.dumps(record, allow_nan=False))
        elif options.csv:
            record["tokens"] = " ".join(caption.tokens)
            line = _csv_line([record[column] for column in _COLUMNS])
            # As it stands for a file or a program; a terminal would act on what is in it.
            put(printable(line) if sys.stdout.isatty() else line)
        else:
            put(f"{printable(name)}: {printable(caption.text)}")


def _record(
    name: str, caption: Caption, captioner: Captioner, *, with_alternatives: bool
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "file": name,
        "caption": caption.text,
        "log_probability": round(caption.log_probability, 4),
        "tokens": list(caption.tokens),
        "seconds": round(caption.seconds, 4),
        "note": note(drawings_only=captioner.pretrained.knows_drawings_only),
    }
    if with_alternatives:
        record["alternatives"] = [
            {"caption": other.text, "log_probability": round(other.log_probability, 4)}
            for other in caption.alternatives
        ]
    return record


def _csv_line(values: Sequence[object]) -> str:
    line = io.StringIO()
    end = "\r\n"  # what is in it is quoted where a value holds it
    csv.writer(line, lineterminator=end).writerow(values)
    return line.getvalue().removesuffix(end)


if __name__ == "__main__":
    sys.exit(run_command(main, USAGE))
