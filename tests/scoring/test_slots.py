"""Reading labels from captions: known real texts, every phantom caption, the real tokenizer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.bert.tokenization_bert_legacy import BasicTokenizer

from radcap.data.collate import load_tokenizer
from radcap.data.labels import (
    DISPLAY_NAMES,
    LOCATION_SYNONYMS,
    LOCATIONS,
    MODALITIES,
    PATHOLOGIES,
    Labels,
    display_name,
)
from radcap.data.phantom.grammar import derivations, label_distribution
from radcap.scoring.slots import (
    NOTHING,
    confusion,
    read_captions,
    read_slots,
    right_slots,
    slot_accuracy,
    words,
)

# The caption texts of the real set known from its data and from the model card.
REAL_CAPTIONS = [
    (
        "magnetic resonance imaging of the ankle foot foot with plantar plate tear present",
        ("mri", "ankle foot", "Plantar_plate_tear"),
    ),
    (
        "diagnostic magnetic resonance imaging of the ankle foot ankle displays bone inflammation",
        ("mri", "ankle foot", "bone_inflammation"),
    ),
    (
        "ct examination of the lung respiratory showing evidence of airspace opacity",
        ("ct", "lung", "airspace_opacity"),
    ),
    (
        "mr scan of the spine spinal with findings consistent with disc pathology",
        ("mri", "spine", "disc_pathology"),
    ),
    (
        "mri scan of the ankle foot foot with findings consistent with bone inflammation",
        ("mri", "ankle foot", "bone_inflammation"),
    ),
    (
        "ct scan of the lung chest with findings consistent with airspace opacity",
        ("ct", "lung", "airspace_opacity"),
    ),
    (
        "mri examination of the spine spinal column with findings consistent with disc pathology",
        ("mri", "spine", "disc_pathology"),
    ),
]
ALL_CAPTIONS = [(text, labels) for labels in label_distribution() for text in derivations(labels)]


@pytest.mark.parametrize(("caption", "labels"), REAL_CAPTIONS)
def test_real_captions(caption: str, labels: tuple[str, str, str]) -> None:
    assert read_slots(caption) == Labels(*labels, abnormal=True)


def test_every_phantom_caption_reads_back_exactly() -> None:
    wrong = [(text, labels) for text, labels in ALL_CAPTIONS if read_slots(text) != labels]
    assert not wrong
    assert len(ALL_CAPTIONS) == 40 * 160


def test_every_phantom_caption_reads_back_through_the_tokenizer() -> None:
    tokenizer = load_tokenizer()
    ids = tokenizer([text for text, _ in ALL_CAPTIONS])["input_ids"]
    decoded = tokenizer.batch_decode(ids, skip_special_tokens=True)
    wrong = [
        (text, labels)
        for text, (_, labels) in zip(decoded, ALL_CAPTIONS, strict=True)
        if read_slots(text) != labels
    ]
    assert not wrong


@pytest.mark.parametrize("pathology", PATHOLOGIES)
def test_every_spelling_of_a_pathology(pathology: str) -> None:
    spellings = {pathology, display_name(pathology), *DISPLAY_NAMES.get(pathology, ())}
    for text in spellings | {spelling.upper() for spelling in spellings}:
        assert read_slots(text).pathology == pathology


def test_the_vocabulary_is_unambiguous() -> None:
    """No phrase means two things, and no synonym is taken for a location or a finding."""
    names = [words(name) for name in (*MODALITIES, *LOCATIONS, *PATHOLOGIES)]
    synonyms = [words(text) for pair in LOCATION_SYNONYMS.values() for text in pair]
    assert len(set(names + synonyms)) == len(names + synonyms)


@pytest.mark.parametrize(
    ("text", "pathology"),
    [
        ("showing evidence of soft tissue fluid collection", "soft_tissue_fluid_collection"),
        ("showing evidence of soft tissue fluid", "soft_tissue_fluid"),
        ("displays soft tissue edema", "soft_tissue_edema"),
        ("displays edema", "edema"),
        ("an osteochondral pathology", None),
        ("with chondral pathology present", "chondral_pathology"),
        ("abnormal entire organ", "entire_organ"),
        ("an abnormal organ", None),
        ("no pathology seen", "normal"),
        ("extracted interim words", None),
        ("", None),
        ("?! 日本語 \x00 ++", None),
    ],
)
def test_longest_whole_words_win(text: str, pathology: str | None) -> None:
    assert read_slots(text).pathology == pathology


def test_location_name_goes_before_a_synonym() -> None:
    assert read_slots("ct of the chest").location == "lung"
    assert read_slots("head and knee").location == "knee"
    assert read_slots("foot").location == "ankle foot"


def test_abnormal_follows_the_pathology() -> None:
    assert read_slots("mri of the hip displays normal anatomy").abnormal is False
    assert read_slots("mri of the hip displays fracture").abnormal is True
    assert read_slots("mri of the hip").abnormal is None


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    slots = read_slots(text)
    assert slots.pathology is None or slots.pathology in PATHOLOGIES


def test_slot_accuracy_counts_what_the_rows_know() -> None:
    knee = Labels.of("mri", "knee", "fracture")
    scores = slot_accuracy(
        [
            ("mri scan of the knee leg displays fracture", knee),
            ("ct scan of the knee leg displays fracture", knee),
            ("mri scan of the knee leg displays normal anatomy", knee),
            ("mri scan", Labels(modality="mri")),
            ("gibberish", Labels()),
        ]
    )
    assert {slot: (score["correct"], score["count"]) for slot, score in scores.items()} == {
        "modality": (3, 4),
        "location": (3, 3),
        "pathology": (2, 3),
        "abnormal": (2, 3),
        "all": (1, 3),
    }
    assert scores["modality"]["accuracy"] == 0.75


def test_a_label_outside_the_vocabulary_is_read_by_its_spelling() -> None:
    labels = Labels.of("x-ray", "left_elbow", "Urolithiasis_")
    right, wrong = "x-ray of the left elbow displays urolithiasis", "x-ray displays fracture"
    scores = slot_accuracy([(right, labels), (wrong, labels)])
    assert [scores[slot]["correct"] for slot in ("modality", "location", "pathology")] == [2, 1, 1]


def test_labels_of_the_vocabulary_count_however_they_are_spelt() -> None:
    """Case, underscores and accents are spelling; the words are the label."""
    pairs = [
        ("ct examination of the knee leg displays normal anatomy", ("CT", "Knee", "Normal")),
        ("mri of the ankle foot displays acl pathology", ("MRI", "Ankle_Foot", "ACL pathology")),
        ("x-ray of the knee: meniere disease", ("X-Ray", "knee", "Ménière disease")),
        ("x-ray of the knee: meniere disease", ("x-ray", "KNEE", "Me\u0301nie\u0300re disease")),
    ]
    rows = [(text, Labels.of(*labels)) for text, labels in pairs]
    assert {score["accuracy"] for score in slot_accuracy(rows).values()} == {1.0}
    assert rows[0][1].abnormal is False
    tables = confusion(read_captions(rows), [labels for _, labels in rows])
    assert tables["modality"].keys() == {"X-Ray", "ct", "mri"}
    assert tables["location"]["knee"] == {"knee": 3}
    assert len(tables["pathology"]) == 3
    for table in tables.values():
        assert all(heard.keys() == {label} for label, heard in table.items())


_LETTERS = "aBzéÜñøßœ e\u0301İµ½ﬁ 中文字日 knee\u2019s-_.,;()/+*°\u00d7€"


@given(st.text(st.sampled_from(_LETTERS) | st.characters(max_codepoint=0x17F)))
def test_words_are_those_of_berts_basic_tokenizer(text: str) -> None:
    assert list(words(text)) == BasicTokenizer().tokenize(text.replace("_", " "))


@pytest.mark.parametrize("text", ["Ménière's disease", "naïve (b)-cell 50%", "a_b++ 中文", "don't"])
def test_a_text_and_its_word_pieces_have_the_same_words(text: str) -> None:
    tokenizer = load_tokenizer()
    decoded = tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True)
    assert words(decoded) == words(text)


def test_no_rows_no_accuracy() -> None:
    assert {score["accuracy"] for score in slot_accuracy([]).values()} == {None}


def test_confusion_counts_what_was_stated_for_what() -> None:
    fracture, normal = Labels.of("mri", "knee", "fracture"), Labels.of("mri", "knee", "normal")
    pairs = [
        ("mri of the knee displays fracture", fracture),
        ("ct of the knee displays normal anatomy", fracture),
        ("ct of the knee displays normal anatomy", fracture),
        ("mri of the hip displays fracture", normal),
        ("", normal),
        ("mri of the knee displays fracture", Labels(location="left_elbow")),
    ]
    said, labels = read_captions(pairs), [one for _, one in pairs]
    tables = confusion(said, labels)
    assert tables["modality"] == {"mri": {"ct": 2, "mri": 2, NOTHING: 1}}
    assert tables["location"] == {
        "knee": {"knee": 3, NOTHING: 1, "hip": 1},
        "left_elbow": {"knee": 1},
    }
    assert list(tables["location"]["knee"]) == ["knee", NOTHING, "hip"]  # frequent first
    assert tables["pathology"]["fracture"] == {"normal": 2, "fracture": 1}
    assert tables["abnormal"] == {
        "abnormal": {"normal": 2, "abnormal": 1},
        "normal": {"abnormal": 1, NOTHING: 1},
    }
    # The diagonals are what slot_accuracy counts.
    for slot, score in slot_accuracy(pairs).items():
        if slot != "all":
            right = sum(heard.get(true, 0) for true, heard in tables[slot].items())
            assert right == score["correct"]
            assert sum(sum(heard.values()) for heard in tables[slot].values()) == score["count"]


def test_right_slots_speaks_of_known_labels_alone() -> None:
    said = Labels.of("mri", "knee", "fracture")
    assert right_slots(said, Labels()) == {}
    assert right_slots(said, Labels(modality="ct", abnormal=True)) == {
        "modality": False,
        "abnormal": True,
    }
    assert right_slots(said, Labels.of("mri", "knee", "normal"))["all"] is False
