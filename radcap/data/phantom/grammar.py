"""Labels and captions of the phantom data set, and the lowest loss they allow.

A caption is `<modality phrase> of the <location> <synonym> <finding>`, each part drawn uniformly:
5 phrases, 2 synonyms, 4 finding forms. What the labels do not fix is chance, so no model can do
better than the entropy of that draw; it is computed here from the grammar, not measured.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from radcap.data.labels import (
    CT_COUNT,
    CT_ENTIRE_ORGAN,
    CT_ENTIRE_ORGAN_SHARE,
    CT_LOCATION_SHARES,
    CT_LUNG_SHARES,
    CT_NORMAL_SHARE,
    FINDING_FORMS,
    LOCATION_SYNONYMS,
    MODALITY_PHRASES,
    MRI_COUNT,
    MRI_LOCATION_COUNTS,
    MRI_PATHOLOGY_COUNTS,
    MRI_SHARED_COUNTS,
    NORMAL,
    Labels,
    display_name,
)


def derivations(labels: Labels) -> list[str]:
    """Every caption the grammar can give for these labels, once for each equally likely derivation.

    Two derivations that spell the same text stand twice.

    Raises:
        ValueError: the modality, location or pathology is missing or has no words in the grammar.
    """
    modality, location, pathology = labels.modality, labels.location, labels.pathology
    if modality not in MODALITY_PHRASES or location not in LOCATION_SYNONYMS or not pathology:
        raise ValueError(f"the phantom grammar has no caption for {labels}")
    finding = display_name(pathology)
    return [
        f"{phrase} of the {location} {synonym} {form.format(finding)}"
        for phrase in MODALITY_PHRASES[modality]
        for synonym in LOCATION_SYNONYMS[location]
        for form in FINDING_FORMS
    ]


@lru_cache(maxsize=1024)
def caption_distribution(labels: Labels) -> Mapping[str, float]:
    """Probability of each caption given the labels: derivations that spell the same text add up."""
    texts = derivations(labels)
    counts = Counter(texts)
    return MappingProxyType({text: count / len(texts) for text, count in counts.items()})


def conditional_entropy(labels: Labels) -> float:
    """Entropy of the caption given its labels, in nats a caption: the expected loss of an oracle.

    Raises:
        ValueError: as `derivations`.
    """
    return -math.fsum(p * math.log(p) for p in caption_distribution(labels).values())


def draw_caption(labels: Labels, rng: np.random.Generator) -> str:
    """One caption for these labels, each derivation equally likely."""
    texts = derivations(labels)
    return texts[int(rng.integers(len(texts)))]


@lru_cache(maxsize=1)
def label_distribution() -> Mapping[Labels, float]:
    """Probability of every label combination, in the order of the stored rows.

    27.5 % ct. MRI keeps the real count of every pathology and of every location; how a recurring
    name splits over its locations is filled in by iterative proportional fitting (Deming and
    Stephan, 1940). CT follows the assumptions stated in `radcap.data.labels`.
    """
    weights: dict[Labels, float] = {}
    for location, names in MRI_PATHOLOGY_COUNTS.items():
        for name, count in names.items():
            weights[Labels.of("mri", location, name)] = float(count)
    weights |= _shared_counts()

    abdomen = MRI_PATHOLOGY_COUNTS["abdomen"]
    abdomen_share = 1 - CT_ENTIRE_ORGAN_SHARE
    abnormal = {
        "lung": CT_LUNG_SHARES,
        "abdomen": {
            name: abdomen_share * count / sum(abdomen.values()) for name, count in abdomen.items()
        }
        | {CT_ENTIRE_ORGAN: CT_ENTIRE_ORGAN_SHARE},
    }
    for location, share in CT_LOCATION_SHARES.items():
        rows = CT_COUNT * share
        weights[Labels.of("ct", location, NORMAL)] = rows * CT_NORMAL_SHARE
        for name, part in abnormal[location].items():
            weights[Labels.of("ct", location, name)] = rows * (1 - CT_NORMAL_SHARE) * part

    total = CT_COUNT + MRI_COUNT
    # ASCII order of the raw labels, capitals first, as the real rows stand.
    return MappingProxyType({labels: weights[labels] / total for labels in sorted(weights)})


def _shared_counts() -> dict[Labels, float]:
    """MRI rows of each recurring name in each of its locations."""
    locations = list(MRI_LOCATION_COUNTS)
    own = [sum(MRI_PATHOLOGY_COUNTS[location].values()) for location in locations]
    room = np.array(list(MRI_LOCATION_COUNTS.values()), float) - own
    totals = np.array([count for count, _ in MRI_SHARED_COUNTS.values()], float)
    table = np.array(
        [
            [float(place in places) for place in locations]
            for _, places in MRI_SHARED_COUNTS.values()
        ]
    )
    for _ in range(200):
        table *= (totals / table.sum(1))[:, None]
        table *= room / table.sum(0)
    return {
        Labels.of("mri", location, name): float(table[i, j])
        for i, name in enumerate(MRI_SHARED_COUNTS)
        for j, location in enumerate(locations)
        if table[i, j]
    }


def draw_labels(rows: int, rng: np.random.Generator) -> list[Labels]:
    """Labels of `rows` rows drawn independently, then sorted by modality, location, pathology."""
    distribution = label_distribution()
    probabilities = np.array(list(distribution.values()))
    counts = rng.multinomial(rows, probabilities / probabilities.sum())
    return [
        labels
        for labels, count in zip(distribution, counts.tolist(), strict=True)
        for _ in range(count)
    ]


def floor_nats(labels: Iterable[Labels]) -> float:
    """Sum of the conditional entropies of these rows' captions, in nats."""
    return math.fsum(rows * conditional_entropy(each) for each, rows in Counter(labels).items())
