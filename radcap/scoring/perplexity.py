"""Perplexity of a loss, also of one that no float can hold the perplexity of. Imports no torch."""

from __future__ import annotations

import math

_LONGEST = 1e9  # larger ones are shown by their power of ten


def perplexity(loss: float) -> float:
    """exp of a loss in nats a token; infinity where a float64 overflows, above 709.78 nats."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def perplexity_text(value: float, form: str = ".3f") -> str:
    """A perplexity for people: `1.322`, `3.720e+12`, `infinity`.

    Args:
        value: at least 1, or infinity.
        form: of those that are not large.
    """
    if math.isinf(value):
        return "infinity"
    return f"{value:.3e}" if value >= _LONGEST else f"{value:{form}}"
