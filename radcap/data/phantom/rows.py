"""Rows of the phantom data set's three configs: their columns, types and question texts.

Column names and types follow the real data set's card, the null-typed `metadata.correct_text` of
alignment included. The card leaves the metadata types of instruct and benchmark open: there
`correct_text` is a string here.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa

from radcap.data.labels import DISPLAY_NAMES, LOCATIONS, NORMAL, PATHOLOGIES, Labels, display_name

HUMAN_PROMPT = "<image>\nDescribe the medical imaging features and anatomical details."

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_TURNS = pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))


def _metadata_type(correct_text: pa.DataType) -> pa.DataType:
    return pa.struct(
        [
            ("content_type", pa.string()),
            ("correct_text", correct_text),
            ("is_abnormal", pa.bool_()),
            ("location", pa.string()),
            ("modality", pa.string()),
            ("pathology", pa.string()),
            ("question_id", pa.string()),
        ]
    )


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """An arrow type as the `datasets` library writes it into a parquet file's metadata."""
    if kind == _IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    return {"dtype": str(kind), "_type": "Value"}


def _schema(*columns: tuple[str, pa.DataType]) -> pa.Schema:
    features = {name: _feature(kind) for name, kind in columns}
    info = json.dumps({"info": {"features": features}})
    return pa.schema(list(columns), metadata={"huggingface": info})


SCHEMAS: dict[str, pa.Schema] = {
    "alignment": _schema(
        ("image", _IMAGE), ("conversations", _TURNS), ("metadata", _metadata_type(pa.null()))
    ),
    "instruct": _schema(
        ("image", _IMAGE), ("conversations", _TURNS), ("metadata", _metadata_type(pa.string()))
    ),
    "benchmark": _schema(
        ("image", _IMAGE),
        ("question", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("answer", pa.string()),
        ("question_type", pa.string()),
        ("metadata", _metadata_type(pa.string())),
    ),
}


def rows(
    config: str, image: dict[str, Any], labels: Labels, caption: str, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """The rows one image gives: one in alignment and instruct, nine questions in benchmark."""
    if config == "alignment":
        turns = [_turn("human", HUMAN_PROMPT), _turn("template", caption)]
        return [
            {
                "image": image,
                "conversations": turns,
                "metadata": _metadata(labels, "description", None, "description"),
            }
        ]
    questions = _questions(labels, rng)
    if config == "instruct":
        turns = [
            turn
            for question in questions
            for turn in (
                _turn("human", _with_choices(question)),
                _turn("template", question["answer"]),
            )
        ]
        turns[0]["value"] = "<image>\n" + turns[0]["value"]
        metadata = _metadata(labels, "instruct", questions[0]["answer"], "instruct")
        return [{"image": image, "conversations": turns, "metadata": metadata}]
    assert config == "benchmark", config
    return [
        {
            "image": image,
            **{key: question[key] for key in ("question", "choices", "answer", "question_type")},
            "metadata": _metadata(
                labels, question["content_type"], question["answer"], f"question-{number}"
            ),
        }
        for number, question in enumerate(questions)
    ]


def _turn(role: str, value: str) -> dict[str, str]:
    return {"from": role, "value": value}


def _metadata(
    labels: Labels, content_type: str, correct_text: str | None, question_id: str
) -> dict[str, Any]:
    return {
        "content_type": content_type,
        "correct_text": correct_text,
        "is_abnormal": labels.abnormal,
        "location": labels.location,
        "modality": labels.modality,
        "pathology": labels.pathology,
        "question_id": question_id,
    }


def _answer_name(pathology: str) -> str:
    """Question texts call a normal image's pathology "no pathology seen"."""
    return DISPLAY_NAMES[NORMAL][1] if pathology == NORMAL else display_name(pathology)


def _questions(labels: Labels, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Nine questions on one image: location and pathology {open, yes, no, choice}, abnormality."""
    assert labels.location is not None and labels.pathology is not None

    def others(names: tuple[str, ...], own: str) -> list[str]:
        pool = [name for name in names if name != own]
        return [pool[i] for i in rng.choice(len(pool), 3, replace=False)]

    places = others(LOCATIONS, labels.location)
    own = _answer_name(labels.pathology)
    findings = [_answer_name(name) for name in others(PATHOLOGIES, labels.pathology)]
    is_there = "Is there evidence of {} in this image?"
    which_place = "What is the correct anatomical region for this scan?"
    which_finding = "What is the most likely pathology in this image?"
    return [
        _question("anatomy", "Which body part is visible in this image?", labels.location),
        _question("anatomy", f"Is the {labels.location} visible in the image?", "yes"),
        _question("anatomy", f"Is the {places[0]} visible in the image?", "no"),
        _choice("anatomy", which_place, labels.location, places, rng),
        _question(
            "abnormality", "Is there an abnormality present?", "yes" if labels.abnormal else "no"
        ),
        _question("pathology", f"What condition is affecting the {labels.location}?", own),
        _question("pathology", is_there.format(own), "yes"),
        _question("pathology", is_there.format(findings[0]), "no"),
        _choice("pathology", which_finding, own, findings, rng),
    ]


def _question(content_type: str, question: str, answer: str) -> dict[str, Any]:
    return {
        "question": question,
        "choices": None,
        "answer": answer,
        "question_type": "closed" if answer in ("yes", "no") else "open",
        "content_type": content_type,
    }


def _choice(
    content_type: str, question: str, own: str, others: list[str], rng: np.random.Generator
) -> dict[str, Any]:
    choices = [[own, *others][i] for i in rng.permutation(4)]
    return {
        "question": question,
        "choices": choices,
        "answer": "ABCD"[choices.index(own)],
        "question_type": "multiple_choice",
        "content_type": content_type,
    }


def _with_choices(question: dict[str, Any]) -> str:
    options = zip("ABCD", question["choices"] or (), strict=False)
    return "\n".join([question["question"], *(f"{letter}. {text}" for letter, text in options)])


def dataset_card(notice: str) -> str:
    """README.md of the written folder, with the header by which `load_dataset` finds the splits."""
    splits = {"alignment": ("train", "val"), "instruct": ("train", "val"), "benchmark": ("test",)}
    lines = ["---", f"pretty_name: radcap phantom ({notice})", "license: mit", "configs:"]
    for config, names in splits.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        for split in names:
            lines += [f"  - split: {split}", f"    path: {config}/{split}-*.parquet"]
    return "\n".join(
        [
            *lines,
            "---",
            "# radcap phantom",
            "",
            f"**{notice[0].upper()}{notice[1:]}.** Drawn by radcap to try its code without the",
            "real data: same configs, columns and label spellings as RadImageNet-VQA, no real",
            "image and no real patient in it. `floor.json` holds the lowest loss to expect on it.",
            "",
        ]
    )
