"""What a look at one thing found."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        name: what was looked at, in one or two words.
        status: ok; warn, where training works but could go better; fail, where it will not begin.
        found: what is there.
        fix: what to do; empty where nothing is to be done.
    """

    name: str
    status: str
    found: str
    fix: str = ""


def gigabytes(count: float) -> str:
    """Bytes for people, in powers of 1000."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.0f} MB"
