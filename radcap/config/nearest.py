"""What somebody meant by a word that there is not, where anything is near it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

_NEAR = 0.7  # of difflib's ratio, from 0 to 1: one letter of four may be another
_MOST = 4  # options that are named in the place of one
# What other programs call them.
_FOREIGN = {"learning_rate": "optimizer.lr", "device": "runtime"}
_FOREIGN_RUNTIMES = {"gpu": "cuda", "nvidia": "cuda", "rocm": "cuda", "hip": "cuda"}
_OF_APPLE = ("mps", "metal")


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The nearest of some words; None where none is near."""
    found = difflib.get_close_matches(word, list(words), n=1, cutoff=_NEAR)
    return found[0] if found else None


def nearest_options(name: str, known: Collection[str]) -> list[str]:
    """The options that a wrong full name may stand for.

    Sections and keys are compared by themselves: a long section would make any two keys alike.

    Args:
        name: such as `trainer.max_stepz`, `trainr.max_steps`, `model.lr` or `lr`.
        known: full names.
    """
    section, _, key = name.rpartition(".")
    foreign = _FOREIGN.get(key)
    if foreign is not None and foreign in known:
        return [foreign]
    keys = {_key(one) for one in known}
    meant = key if key in keys else nearest(key, keys)
    found = [one for one in known if _key(one) == meant]
    sections = {one.rpartition(".")[0] for one in found}
    same = nearest(section, sections)
    if same is not None:
        found = [one for one in found if one.rpartition(".")[0] == same]
    elif section and meant != key:  # neither of the two is right
        found = []
    return found if len(found) <= _MOST else []


def did_you_mean(found: Collection[str]) -> str:
    """The end of a message; nothing where nothing was found."""
    *others, last = found or [""]
    return f"; did you mean {', '.join(others)}{' or ' * bool(others)}{last}?" if last else ""


def runtime_hint(word: str) -> str:
    """The end of a message about a device that radcap does not know."""
    if word.lower() in _OF_APPLE:
        return "; radcap does not use Apple's GPU, cpu works there"
    meant = _FOREIGN_RUNTIMES.get(word.lower().partition(":")[0])
    return did_you_mean([meant] if meant else [])


def _key(name: str) -> str:
    return name.rpartition(".")[2]
