"""The errors a user is meant to read: one line that says what is wrong, where, and what to do.

A command prints the message of a `RadcapError` without a traceback and ends with its exit status.
Every other exception is a fault of radcap itself and keeps its traceback.
"""

from __future__ import annotations

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_WRONG_ARGUMENTS = 2
EXIT_DOES_NOT_FIT = 3
EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: run the same command again to go on


def first_line(error: BaseException) -> str:
    """What an exception says first; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def one_line(error: object, *, names_type: bool = True, most: int | None = 300) -> str:
    """All that an exception says in one line that prints, for the end of a message.

    Args:
        error: the exception, or its reason.
        names_type: begin with its type, which else is said where it says nothing.
        most: characters of what it says; None for all.
    """
    kind, said = type(error).__name__, " ".join(str(error).split())
    said = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in said)
    return f"{kind}: {said[:most]}" if said and names_type else said[:most] or kind


class RadcapError(Exception):
    """Something outside radcap is wrong; the message tells the user what to do."""

    exit_status = EXIT_FAILED


class ConfigError(RadcapError):
    """A wrong option, value or combination: found before anything is opened."""

    exit_status = EXIT_WRONG_ARGUMENTS
