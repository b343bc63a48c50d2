"""Word pieces of real captions -> words with their maps."""

from __future__ import annotations

import numpy as np

from radcap.data.collate import load_tokenizer
from radcap.data.phantom.grammar import derivations, label_distribution
from radcap.demo_app.words import words_of


def maps(count: int) -> np.ndarray:
    drawn = np.random.default_rng(0).random((count, 7, 7))
    return drawn / drawn.sum(axis=(1, 2), keepdims=True)


def test_pieces_that_go_on_join_the_word_before_and_share_its_map() -> None:
    pieces = ["chronic", "in", "##far", "##ct", "of", "cr", "##anial"]
    given = maps(len(pieces))
    words = words_of(pieces, given)
    assert [word.text for word in words] == ["chronic", "infarct", "of", "cranial"]
    np.testing.assert_allclose(words[0].attention, given[0])
    np.testing.assert_allclose(words[1].attention, (given[1] + given[2] + given[3]) / 3)
    np.testing.assert_allclose(words[3].attention, given[5:7].mean(axis=0))
    for word in words:
        assert abs(word.attention.sum() - 1) < 1e-9
        assert word.peak == word.attention.max()


def test_nothing_and_a_caption_that_begins_in_the_middle_of_a_word() -> None:
    assert words_of([], maps(0)) == []
    (word,) = words_of(["##ct"], maps(1))
    assert word.text == "ct"


def test_the_words_of_every_phantom_caption_are_its_own() -> None:
    tokenizer = load_tokenizer()
    captions = {text for labels in label_distribution() for text in derivations(labels)[:1]}
    assert len(captions) > 50
    for caption in captions:
        pieces = tokenizer.tokenize(caption)
        words = [word.text for word in words_of(pieces, maps(len(pieces)))]
        assert "".join(words) == "".join(caption.lower().split())
        if caption.replace(" ", "").isalpha():
            assert words == caption.split()
