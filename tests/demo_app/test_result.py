"""The HTML of a result, read back: pictures, maps, probabilities; nothing in it can act."""

from __future__ import annotations

import base64
import io
import math
import re

import numpy as np
import pytest
from PIL import Image

from radcap.demo_app.examples import draw_examples, examples_html
from radcap.demo_app.result import fault_html, frames_html, heat, result_html
from radcap.demo_app.words import Word
from radcap.serving.captioner import Caption

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 224, 224), dtype=np.uint8)


def one_hot(row: int, column: int, share: float) -> np.ndarray:
    """A map that looks at one square most."""
    attention = np.full((7, 7), (1 - share) / 48)
    attention[row, column] = share
    return attention


WORDS = [Word("knee", one_hot(2, 5, 0.5)), Word("fracture", one_hot(6, 0, 0.25))]
OTHER = Caption("a knee", math.log(0.1), ("a", "knee"))
CAPTION = Caption("knee fracture", math.log(0.4), ("knee", "fra", "##cture"), 0.25, (OTHER,))


def pictures(html: str) -> list[np.ndarray]:
    found = re.findall(r"data:image/png;base64,([\w+/=]+)", html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in found]


def test_it_holds_the_picture_as_the_model_sees_it_and_a_map_for_each_word() -> None:
    html = result_html(PIXELS, CAPTION, WORDS)
    seen, *layers = pictures(html)
    np.testing.assert_array_equal(seen, PIXELS.transpose(1, 2, 0))
    # Each map stands there large, and small in the strip.
    assert len(layers) == 4
    for word, large, small in zip(WORDS, layers[::2], layers[1::2], strict=True):
        np.testing.assert_array_equal(large, small)
        assert large.shape == (7, 7, 4)
        opacity = large[..., 3].astype(float)
        np.testing.assert_allclose(opacity / 235, word.attention / 0.5, atol=0.003)
    assert html.count('type="radio"') == 3 and html.count("checked") == 1
    assert "50%</small>" in html and "25%</small>" in html
    assert "probability 40.0% for exactly these words" in html and "not for diagnosis" in html


def test_the_ranking_has_every_caption_found_with_its_probability() -> None:
    html = result_html(PIXELS, CAPTION, WORDS)
    shown = re.findall(r'rc-text">([^<]*)</span><span class="rc-share">([^<]*)<', html)
    assert shown == [("knee fracture", "40.0%"), ("a knee", "10.0%")]
    assert "width:100.0%" in html and "width:25.0%" in html
    assert "Together 50.0%" in html
    alone = result_html(PIXELS, Caption("knee", -20.0, ("knee",)), WORDS[:1])
    assert "rc-ranking" not in alone
    assert "probability 2e-09" in alone


def test_what_the_probability_is_and_what_finds_the_caption_elsewhere_is_said() -> None:
    one, several = (result_html(PIXELS, CAPTION, WORDS, beams=beams) for beams in (1, 4))
    for html in (one, several):
        assert "does not say how likely the caption is right" in html
    assert "--beams 4</code> writes the same; without" in several
    assert "radcap.caption</code> writes the same." in one and "--beams" not in one


def test_another_frame_is_asked_for_where_it_is_said_that_there_are_others() -> None:
    frames = frames_html("the file holds 12 frames", 3, 12)
    assert "The file holds 12 frames; this is frame 3, counted from 0." in frames
    assert '<input type="number" min="0" max="11" step="1" value="3">' in frames
    html = result_html(PIXELS, CAPTION, WORDS, frames=frames)
    assert frames in html
    assert "rc-frames" not in result_html(PIXELS, CAPTION, WORDS)
    assert "max=" not in frames_html("the file holds several frames", 0, None)
    assert 'value="0"' in fault_html("No frame 12.", frame=12)
    assert "rc-frames" not in fault_html("No picture.")


def test_a_caption_of_nothing_is_told() -> None:
    html = result_html(PIXELS, Caption("", -0.1, ()), [])
    assert "empty caption" in html
    assert len(pictures(html)) == 1


def test_texts_are_no_markup() -> None:
    """A vocabulary of others may hold anything."""
    evil = '\u202e<img src=x onerror="alert(1)">'
    words = [Word(evil, one_hot(0, 0, 0.5))]
    caption = Caption(evil, -1.0, (evil,), 0.0, (Caption(evil, -2.0, (evil,)),))
    for html in (result_html(PIXELS, caption, words), fault_html(evil), frames_html(evil, 0, None)):
        assert "\\u202e" in html and "\u202e" not in html
        assert "<img src=x" not in html and 'onerror="' not in html
        assert "&lt;img src=x onerror=&quot;" in html


@pytest.mark.parametrize("full", [0.5, 1.0])
def test_full_strength_is_where_it_is_said_to_be(full: float) -> None:
    layer = np.asarray(heat(one_hot(3, 4, 0.5), full))
    assert layer[3, 4, 3] == round(235 * 0.5 / full)
    assert layer[..., 3].argmax() == 3 * 7 + 4


def test_the_examples_are_drawn_alike_at_every_call() -> None:
    first, second = draw_examples(), draw_examples()
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.picture, other.picture)
    html = examples_html(first)
    assert [int(n) for n in re.findall(r'data-number="(\d+)"', html)] == list(range(len(first)))
    assert "synthetic, not RadImageNet" in html
    assert {picture.shape for picture in pictures(html)} == {(112, 112)}


def test_no_two_results_share_an_id_or_the_name_of_their_buttons() -> None:
    """The browser would carry the choice over from one to the next."""
    one, other = result_html(PIXELS, CAPTION, WORDS), result_html(PIXELS, CAPTION, WORDS)
    for attribute in ("id", "name", "for"):
        first, second = (set(re.findall(rf' {attribute}="(.*?)"', html)) for html in (one, other))
        assert first and not first & second
    assert fault_html("x") != fault_html("x")
