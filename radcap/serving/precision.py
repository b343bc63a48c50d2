"""The arithmetics in which captions can be made, and where."""

from __future__ import annotations

from radcap.config import PRECISIONS
from radcap.errors import ConfigError

CAPTION_PRECISIONS = (*PRECISIONS, "int8")


def check_precision(precision: str, device: str) -> None:
    """Raise ConfigError for a precision that does not exist, or not on a device of that name."""
    if precision not in CAPTION_PRECISIONS:
        known = ", ".join(CAPTION_PRECISIONS[:-1])
        raise ConfigError(f"precision {precision}: there are {known} and {CAPTION_PRECISIONS[-1]}")
    if precision == "int8" and device not in ("auto", "cpu"):
        raise ConfigError(f"precision int8 is for the CPU, not for device {device}")
