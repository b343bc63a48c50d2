"""The arithmetics in which captions can be made, and where."""

from __future__ import annotations

import argparse

from radcap.config.nearest import runtime_hint
from radcap.config.schema import PRECISIONS, RUNTIMES
from radcap.errors import ConfigError


def add_arithmetic(parser: argparse.ArgumentParser) -> None:
    """Add the options --device and --precision; `check_precision` judges what comes in by them."""
    parser.add_argument("--device", type=_device, default="auto")
    parser.add_argument("--precision", default="fp32")


def _device(word: str) -> str:
    if word in RUNTIMES:
        return word
    raise argparse.ArgumentTypeError(
        f"invalid choice: {word!r} (choose from {', '.join(RUNTIMES)}{runtime_hint(word)})"
    )


def check_precision(precision: str) -> None:
    """Raise ConfigError for a precision that does not exist."""
    if precision not in PRECISIONS:
        gone = "; int8 is no more, use bf16" if precision == "int8" else ""
        raise ConfigError(f"precision {precision}: there are {' and '.join(PRECISIONS)}{gone}")
