from __future__ import annotations

from typing import Any

import numpy as np
from command_line import run_interpreter
from hypothesis import given, settings
from hypothesis import strategies as st

from radcap.data.collate import VOCABULARY, CaptionEncoder, encode_captions, load_tokenizer

PAD, CLS, SEP, UNK, MASK = 0, 101, 102, 100, 103
REAL = "magnetic resonance imaging of the ankle foot foot with plantar plate tear present"
TOKENIZER = load_tokenizer()


def test_the_vocabulary_is_the_files() -> None:
    words = VOCABULARY.read_text(encoding="utf-8").splitlines()
    assert len(TOKENIZER) == TOKENIZER.vocab_size == len(words) == 30_522
    ids, _ = encode_captions(TOKENIZER, ["imaging"], 4)
    assert ids.tolist() == [[CLS, words.index("imaging"), SEP, PAD, PAD]]


def test_form_of_a_row() -> None:
    ids, cut = encode_captions(TOKENIZER, [REAL, ""], 32)
    assert ids.shape == (2, 33) and ids.dtype == np.int32 and cut.tolist() == [False, False]
    assert TOKENIZER.decode(ids[0], skip_special_tokens=True) == REAL
    assert ids[1].tolist() == [CLS, SEP] + [PAD] * 31


def test_a_long_caption_keeps_its_end_token_and_is_counted() -> None:
    ids, cut = encode_captions(TOKENIZER, ["word " * 500, "word " * 31, "word " * 32], 32)
    assert cut.tolist() == [True, False, True]
    assert ids[:, -1].tolist() == [SEP] * 3


@settings(max_examples=60)
@given(
    st.lists(
        st.text(max_size=60) | st.sampled_from(["[SEP]", "a [PAD] b", "[CLS][MASK]", "[UNK]x"]),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 40),
)
def test_special_ids_stand_only_where_we_put_them(captions: list[str], max_length: int) -> None:
    ids, _ = encode_captions(TOKENIZER, captions, max_length)
    assert ids.shape == (len(captions), max_length + 1)
    for row in ids.tolist():
        end = row.index(SEP)
        assert row[0] == CLS
        assert not {PAD, CLS, SEP, MASK} & set(row[1:end])
        assert row[end + 1 :] == [PAD] * (max_length - end)


def test_rows_do_not_depend_on_their_neighbours() -> None:
    together, _ = encode_captions(TOKENIZER, [REAL, "ct scan", "word " * 80], 16)
    alone = [encode_captions(TOKENIZER, [text], 16)[0][0] for text in (REAL, "ct scan")]
    assert (together[:2] == np.stack(alone)).all()


def test_no_caption_at_all() -> None:
    ids, cut = encode_captions(TOKENIZER, [], 8)
    assert ids.shape == (0, 9) and cut.shape == (0,)


def test_what_is_remembered_is_what_is_encoded(monkeypatch: Any) -> None:
    monkeypatch.setattr("radcap.data.collate._REMEMBERED", 3)
    encode = CaptionEncoder(TOKENIZER, 8)
    for captions in (["ct", REAL, "ct"], [], [REAL, "word"], ["ct"], ["a", "b", "ct"], [REAL]):
        for found, expected in zip(
            encode(captions), encode_captions(TOKENIZER, captions, 8), strict=True
        ):
            assert found.dtype == expected.dtype and found.shape == expected.shape
            assert (found == expected).all()


def test_no_warning_and_no_network(monkeypatch: Any) -> None:
    program = (
        "import socket, warnings; warnings.simplefilter('error');"
        "socket.socket.connect = lambda *a: 1 / 0;"
        "from radcap.data.collate import load_tokenizer, encode_captions;"
        "t = load_tokenizer(); print(encode_captions(t, ['lung'], 3)[0].tolist())"
    )
    done = run_interpreter("-W", "error", "-c", program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[[101, 11192, 102, 0]]"
