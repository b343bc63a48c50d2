"""The arithmetics in which captions can be made, and where."""

from __future__ import annotations

import argparse

from radcap.config.nearest import runtime_hint
from radcap.config.schema import PRECISIONS, RUNTIMES
from radcap.errors import ConfigError

CAPTION_PRECISIONS = (*PRECISIONS, "int8")


def add_arithmetic(parser: argparse.ArgumentParser) -> None:
    """Add the options --device and --precision; `check_precision` judges what comes in by them."""
    parser.add_argument("--device", type=_device, default="auto")
    parser.add_argument("--precision", choices=CAPTION_PRECISIONS, default="fp32")


def _device(word: str) -> str:
    if word in RUNTIMES:
        return word
    raise argparse.ArgumentTypeError(
        f"invalid choice: {word!r} (choose from {', '.join(RUNTIMES)}{runtime_hint(word)})"
    )


def check_precision(precision: str, device: str) -> None:
    """Raise ConfigError for a precision that does not exist, or not on a device of that name."""
    if precision not in CAPTION_PRECISIONS:
        known = ", ".join(CAPTION_PRECISIONS[:-1])
        raise ConfigError(f"precision {precision}: there are {known} and {CAPTION_PRECISIONS[-1]}")
    if precision == "int8" and device not in ("auto", "cpu"):
        raise ConfigError(f"precision int8 is for the CPU, not for device {device}")
