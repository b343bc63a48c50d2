"""Captions of the phantom set and the exact floor of the loss on them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from radcap.data.collate import encode_captions, load_tokenizer
from radcap.data.labels import (
    CT_COUNT,
    MRI_COUNT,
    MRI_LOCATION_COUNTS,
    MRI_SHARED_COUNTS,
    PATHOLOGIES,
    Labels,
    display_name,
)
from radcap.data.phantom import grammar as phantom_grammar
from radcap.data.phantom.dataset import read_floor, write_phantom
from radcap.data.phantom.grammar import (
    caption_distribution,
    conditional_entropy,
    derivations,
    draw_caption,
    floor_nats,
    label_distribution,
)
from radcap.data.records import Example, parse_row

KNEE = Labels.of("mri", "knee", "acl_pathology")


def next_token_log_probs(rows: list[list[int]]) -> dict[tuple[int, ...], dict[int, float]]:
    """The exact next-token oracle of equally likely token rows: prefix -> token -> ln p."""
    after: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for row in rows:
        for end in range(1, len(row)):
            after[tuple(row[:end])][row[end]] += 1
    return {
        prefix: {token: math.log(n / counts.total()) for token, n in counts.items()}
        for prefix, counts in after.items()
    }


def oracle_loss(captions: list[str], labels: list[Labels]) -> tuple[float, int]:
    """Token-level cross-entropy of the oracle over captions: (sum of nats, target tokens)."""
    tokenizer = load_tokenizer()
    tries = {
        each: next_token_log_probs(tokenizer(derivations(each))["input_ids"])
        for each in set(labels)
    }
    ids, cut = encode_captions(tokenizer, captions, 32)
    assert not cut.any()
    nats, tokens = 0.0, 0
    for row, each in zip(ids.tolist(), labels, strict=True):
        row = [token for token in row if token != tokenizer.pad_token_id]
        for end in range(1, len(row)):
            nats -= tries[each][tuple(row[:end])][row[end]]
            tokens += 1
    return nats, tokens


def test_the_floor_is_the_token_oracles_loss(tmp_path) -> None:
    import pyarrow.parquet as pq

    write_phantom(tmp_path / "set", train_rows=250, val_rows=150, processes=1)
    for split, floor in read_floor(tmp_path / "set").items():
        examples = [
            parse_row(row)
            for path in sorted((tmp_path / "set" / "alignment").glob(f"{split}-*"))
            for row in pq.read_table(path).to_pylist()
        ]
        assert all(isinstance(example, Example) for example in examples)
        nats, tokens = oracle_loss(
            [example.caption for example in examples], [example.labels for example in examples]
        )
        assert floor.rows == len(examples)
        assert floor.tokens == tokens
        assert floor.nats_per_caption == pytest.approx(nats / len(examples), abs=1e-9)
        assert floor.nats_per_token == pytest.approx(nats / tokens, abs=1e-9)


def test_every_caption_fits_the_length_of_training() -> None:
    tokenizer = load_tokenizer()
    texts = [text for labels in label_distribution() for text in derivations(labels)]
    assert not encode_captions(tokenizer, texts, 32)[1].any()


def test_entropy_of_forty_equal_captions() -> None:
    assert len(set(derivations(KNEE))) == 40
    assert conditional_entropy(KNEE) == pytest.approx(math.log(40), abs=1e-12)
    for text in derivations(KNEE):
        assert caption_distribution(KNEE)[text] == pytest.approx(1 / 40)
    assert floor_nats([KNEE] * 7) == pytest.approx(7 * math.log(40))


def test_collisions_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two derivations of one text: 20 texts of 1/20, not 40 of 1/40."""
    monkeypatch.setattr(phantom_grammar, "LOCATION_SYNONYMS", {"knee": ("leg", "leg")})
    caption_distribution.cache_clear()
    try:
        text = "mr scan of the knee leg displays acl pathology"
        assert caption_distribution(KNEE)[text] == pytest.approx(1 / 20)
        assert conditional_entropy(KNEE) == pytest.approx(math.log(20))
    finally:
        caption_distribution.cache_clear()


def test_unequal_collisions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of 1/2, 1/4, 1/4: entropy 1.5 ln 2, and the oracle's mean loss over draws nears it."""
    monkeypatch.setattr(phantom_grammar, "MODALITY_PHRASES", {"mri": ("mr", "mr", "a", "b")})
    monkeypatch.setattr(phantom_grammar, "LOCATION_SYNONYMS", {"knee": ("leg",)})
    monkeypatch.setattr(phantom_grammar, "FINDING_FORMS", ("shows {}",))
    caption_distribution.cache_clear()
    try:
        assert conditional_entropy(KNEE) == pytest.approx(1.5 * math.log(2))
        rng = np.random.default_rng(0)
        chances = [caption_distribution(KNEE)[draw_caption(KNEE, rng)] for _ in range(4000)]
        assert -np.mean(np.log(chances)) == pytest.approx(1.5 * math.log(2), abs=0.03)
    finally:
        caption_distribution.cache_clear()


def test_captions_outside_the_grammar() -> None:
    assert "a cat" not in caption_distribution(KNEE)
    other = derivations(Labels.of("mri", "knee", "pcl_pathology"))[0]
    assert other not in caption_distribution(KNEE)
    for labels in (
        Labels.of("x-ray", "knee", "fracture"),
        Labels.of("mri", "elbow", "fracture"),
        Labels.of("mri", "knee", None),
    ):
        with pytest.raises(ValueError, match="no caption"):
            derivations(labels)


def test_a_pathology_outside_the_vocabulary_has_captions() -> None:
    labels = Labels.of("mri", "knee", "New_finding_")
    assert "mr scan of the knee leg displays new finding" in derivations(labels)


def test_every_derivation_is_drawn() -> None:
    rng = np.random.default_rng(0)
    drawn = Counter(draw_caption(KNEE, rng) for _ in range(8000))
    assert len(drawn) == 40
    assert min(drawn.values()) > 140 and max(drawn.values()) < 265  # 200 expected, 4.5 sigma


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Plantar_plate_tear", "plantar plate tear"),
        ("achilles_pathology_", "achilles pathology"),
        ("ca++_tendinosis", "ca++ tendinosis"),
        ("pituatary_lesion", "pituatary lesion"),
        ("normal", "normal anatomy"),
        ("entire_organ", "abnormal entire organ"),
    ],
)
def test_display_names(label: str, name: str) -> None:
    assert display_name(label) == name


def test_label_distribution_keeps_the_real_counts() -> None:
    distribution = label_distribution()
    total = CT_COUNT + MRI_COUNT
    assert (CT_COUNT, MRI_COUNT) == (228_902, 604_775)
    assert sum(distribution.values()) == pytest.approx(1, abs=1e-12)
    assert list(distribution) == sorted(distribution)
    assert {labels.pathology for labels in distribution} == set(PATHOLOGIES)

    by_location: Counter[str] = Counter()
    by_name: Counter[str] = Counter()
    for labels, probability in distribution.items():
        if labels.modality == "mri":
            by_location[labels.location] += probability * total
            by_name[labels.pathology] += probability * total
    assert by_location == pytest.approx(MRI_LOCATION_COUNTS, rel=1e-9)
    for name, (count, _) in MRI_SHARED_COUNTS.items():
        assert by_name[name] == pytest.approx(count, rel=1e-6)
    assert by_name["lisfranc_pathology"] == pytest.approx(47)
    assert len(by_name) == 89
