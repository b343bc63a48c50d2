"""Texts of the data, a model or another user inside Markdown and HTML: no markup in them acts.

Such a text is escaped once, where it is written out, by the helper for what it is written into:
`radcap.host.console.printable` for a terminal (the two here begin with it, so that a report may be
printed too), and for JSON the encoder.
"""

from __future__ import annotations

import re
from html import escape

from radcap.host.console import printable

# ASCII punctuation that acts in the middle of a line: of Markdown, its tables, and GitHub's own
# (links without brackets, $mathematics$, :names: of emoji, @names).
_ACTS = re.compile(r"[!#$&*:<>@\[\\\]^_`{|}~]|(?<=www)\.")


def plain(text: str) -> str:
    """A caption or another text on a line of Markdown, in a cell of a table too: as it reads.

    What would act becomes a character reference, which TensorBoard and GitHub show as the character
    itself.
    """
    return _ACTS.sub(lambda found: f"&#{ord(found[0])};", _on_one_line(text))


def code(text: str) -> str:
    """A name of the data, the run or the user as a code span on one line of Markdown."""
    return f"`{_on_one_line(text).replace('`', chr(39)).replace('|', '/')}`"


def html(text: str) -> str:
    """A text inside HTML, in an attribute too."""
    return escape(printable(text))


def _on_one_line(text: str) -> str:
    return printable(" ".join(text.split()))
