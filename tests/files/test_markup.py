"""Texts of others inside Markdown and HTML: TensorBoard's own renderer shows them as they read."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.plugin_util import markdown_to_safe_html

from radcap.files.markup import code, html, plain
from radcap.host.console import printable

NASTY = [
    "a|b",
    "![x](http://127.0.0.1:9/leak.png) knee",
    "[click](javascript:alert(1)) knee",
    "**bold** <b>html</b> `code` _it_ ~~s~~ &lt; &#60; \\* \\",
    "\x1b]0;owned\x07 \x1b[31mred\x9b1m \u202egnihton",
    "knee\n\n# Certified\n| a | b |\n| --- | --- |\u2028x\x0by",
    "<script>alert(1)</script> http://x.example www.x.example $x$ :+1: a@b.c",
    "[ref]: http://x.example",
    "\x02klzzwxh:0000\x03",
]
TEXTS = st.text(st.characters(codec="utf-8")) | st.sampled_from(NASTY)


class Page(HTMLParser):
    """The tags of a page, and the text of each cell of its tables' bodies."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []
        self._inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        if tag == "td":
            self.cells.append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "td"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.cells[-1] += data


def shown(text: str) -> str:
    return printable(" ".join(text.split()))


@settings(max_examples=60)
@given(st.lists(TEXTS, min_size=2, max_size=2))
def test_a_row_of_a_table_is_that_row_whatever_is_in_it(texts: list[str]) -> None:
    one, two = map(plain, texts)
    page = Page(markdown_to_safe_html(f"| a | b |\n| --- | --- |\n| {one} | {two} |"))
    assert page.cells == [shown(text).strip(" ") for text in texts]
    assert page.tags == ["table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td"]


@pytest.mark.parametrize("text", NASTY)
def test_no_name_leaves_its_code_span_or_its_line(text: str) -> None:
    span = code(text)
    page = Page(markdown_to_safe_html(f"so {span} it is"))
    assert page.tags == ["p", "code"]
    assert span.count("`") == 2 and len(span.splitlines()) == 1
    assert "|" not in span and printable(span) == span


@given(TEXTS)
def test_what_is_in_html_is_text(text: str) -> None:
    page = Page(f'<table><td title="{html(text)}">{html(text)}</td></table>')
    assert page.tags == ["table", "td"]
    assert page.cells == [printable(text)]


def test_ordinary_captions_stay_as_they_are() -> None:
    text = "CT of the lung (axial), 3.5 mm; nodule in the left upper lobe - no change?"
    assert plain(text) == text == html(text)
    assert plain("a\x1b|b") == "a&#92;x1b&#124;b"
