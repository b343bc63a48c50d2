"""What may go wrong with data, in words for people."""

from __future__ import annotations

from radcap.errors import RadcapError
from radcap.host.console import printable

OFFLINE_HINT = "data=phantom or data.path=FOLDER works without a network"


class DataError(RadcapError):
    """The data cannot be used as asked. The message is one line: what, where, what to do."""


def one_line(error: BaseException) -> str:
    """An exception in one line that prints, for the end of a message."""
    text = printable(" ".join(str(error).split())).encode("utf-8", "backslashreplace").decode()
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
