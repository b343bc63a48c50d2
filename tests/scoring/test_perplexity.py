"""A perplexity that no float holds is infinity, and is said to be, wherever it is shown."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from radcap.files.mappings import figure_in, json_text, parse_json
from radcap.scoring.perplexity import perplexity, perplexity_text


def strict(text: str) -> Any:
    """As a reader that knows JSON and nothing more."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_it_is_the_exponential_as_far_as_there_is_one() -> None:
    assert perplexity(0.0) == 1.0
    assert perplexity(math.log(50)) == pytest.approx(50)
    # Capped at exp(700), all of these would be the same.
    assert perplexity(700.0) < perplexity(705.0) < perplexity(709.7) < math.inf
    assert perplexity(709.8) == perplexity(1e6) == math.inf


@pytest.mark.parametrize(
    ("loss", "text"),
    [(0.2794, "1.322"), (7.0, "1096.633"), (30.0, "1.069e+13"), (705.0, "1.505e+306")],
)
def test_people_read_few_digits(loss: float, text: str) -> None:
    assert perplexity_text(perplexity(loss)) == text
    assert perplexity_text(perplexity(800.0)) == "infinity"


def test_json_says_infinity_and_stays_json() -> None:
    content = {"a": [math.inf, -math.inf, {"b": math.nan}], "c": (1.5, None, True, "Infinity")}
    text = json_text(content)
    assert strict(text) == {
        "a": ["Infinity", "-Infinity", {"b": "NaN"}], "c": [1.5, None, True, "Infinity"]
    }  # fmt: skip
    assert float(strict(text)["a"][0]) == math.inf
    assert json_text({"a": 0.1}, indent=2) == json.dumps({"a": 0.1}, indent=2)


def test_figures_of_this_and_of_older_files_are_read() -> None:
    stored = parse_json(json_text({"new": math.inf, "old": math.exp(700.0), "none": None}))
    assert figure_in(stored, "new") == math.inf
    assert figure_in(stored, "old") == math.exp(700.0)
    for odd in (None, "infinity", "x", True, [1], math.nan, math.inf):
        assert figure_in({"a": odd}, "a") is None
