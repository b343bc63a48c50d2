"""What may go wrong with data, in words for people."""

from __future__ import annotations

from radcap.errors import RadcapError

OFFLINE_HINT = "data=phantom or data.path=FOLDER works without a network"


class DataError(RadcapError):
    """The data cannot be used as asked. The message is one line: what, where, what to do."""
