from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radcap.data.labels import Labels
from radcap.data.records import Example, Skipped, parse_row

HUMAN = {"from": "human", "value": "<image>\nDescribe."}


def answer(value: Any, role: str = "template") -> dict[str, Any]:
    return {"from": role, "value": value}


def test_a_whole_row(row: Any) -> None:
    raw = row(3)
    assert parse_row(raw) == Example(
        raw["image"]["bytes"], "row number 3", Labels("mri", "knee", "fracture", True)
    )


@pytest.mark.parametrize("role", ["template", "gpt", "assistant", "anything", None])
def test_the_caption_is_found_by_position_not_by_role(row: Any, role: str) -> None:
    parsed = parse_row(row(0, conversations=[HUMAN, answer("a  scan\n", role)]))
    assert isinstance(parsed, Example) and parsed.caption == "a scan"


def test_an_answer_before_the_question_is_not_the_caption(row: Any) -> None:
    turns = [answer("greeting"), HUMAN, answer("caption")]
    parsed = parse_row(row(0, conversations=turns))
    assert isinstance(parsed, Example) and parsed.caption == "caption"


@pytest.mark.parametrize(
    "conversations",
    [
        None, [], [HUMAN], [answer("x"), HUMAN], [answer("x")], [HUMAN, answer(None)],
        [HUMAN, answer("")], [HUMAN, answer(" \n\t ")], [None, None], "text", [HUMAN, None],
    ],
)  # fmt: skip
def test_rows_without_a_caption(row: Any, conversations: Any) -> None:
    parsed = parse_row(row(0, conversations=conversations))
    assert parsed == Skipped("no caption")


@pytest.mark.parametrize("image", [None, {}, {"bytes": None, "path": "a.png"}, "a.png"])
def test_rows_without_an_image(row: Any, image: Any) -> None:
    assert parse_row(row(0, image=image)) == Skipped("no image")


@pytest.mark.parametrize("metadata", [None, {}, {"modality": None, "is_abnormal": None}, "x"])
def test_metadata_may_be_missing(row: Any, metadata: Any) -> None:
    parsed = parse_row(row(0, metadata=metadata))
    assert isinstance(parsed, Example) and parsed.labels == Labels()


scalars = st.none() | st.booleans() | st.integers() | st.sampled_from(["", " ", "human", b"", b"x"])
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["bytes", "from", "value", "modality", "is_abnormal"]), inner
        )
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["image", "conversations", "metadata"]), anything, max_size=3)
)
def test_no_row_crashes(raw: dict[str, Any]) -> None:
    assert isinstance(parse_row(raw), Example | Skipped)


def test_the_answer_to_one_of_several_questions_is_no_caption(row: Any) -> None:
    turns = [HUMAN, answer("knee"), {"from": "human", "value": "Normal?"}, answer("no")]
    assert parse_row(row(0, conversations=turns)) == Skipped("questions")
    parsed = parse_row(row(0, conversations=[*turns[:2], turns[2]]))
    assert isinstance(parsed, Example) and parsed.caption == "knee"  # nobody answered the second


@pytest.mark.parametrize(
    ("content", "is_caption"),
    [
        *(("anatomy", False), ("pathology_open", False), ("Abnormality", False)),
        ("instruct", False),
        *(("description", True), ("", True), (None, True), (5, True)),
    ],
)
def test_a_row_that_says_that_it_asks_is_no_caption(
    row: Any, content: Any, is_caption: bool
) -> None:
    raw = row(0)
    raw["metadata"] = {**raw["metadata"], "content_type": content}
    assert isinstance(parse_row(raw), Example) is is_caption
