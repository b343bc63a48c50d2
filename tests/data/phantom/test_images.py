"""The phantom's pictures: every label leaves its own trace, and no linear reader finds it."""

from __future__ import annotations

import numpy as np
import pytest

from radcap.data.labels import LOCATIONS, NORMAL, PATHOLOGIES, Labels
from radcap.data.phantom import images as phantom_images
from radcap.data.phantom.grammar import draw_labels, label_distribution
from radcap.data.phantom.images import GLYPHS, SIDE, draw, mark_codes
from radcap.scoring.probe import linear_probe, thumbnails


@pytest.mark.parametrize("labels", label_distribution(), ids=str)
def test_every_label_has_a_picture(labels: Labels) -> None:
    image = draw(labels, np.random.default_rng(0))
    assert image.shape == (SIDE, SIDE)
    assert image.dtype == np.uint8
    assert (image == draw(labels, np.random.default_rng(0))).all()
    assert (image != draw(labels, np.random.default_rng(1))).mean() > 0.2


def test_every_pathology_has_a_mark_of_its_own_in_its_location() -> None:
    codes = mark_codes()
    assert set(codes) == set(PATHOLOGIES) - {NORMAL}
    for location in LOCATIONS:
        names = {each.pathology for each in label_distribution() if each.location == location}
        marks = [codes[name] for name in names - {NORMAL} if name is not None]
        assert len(set(marks)) == len(marks), location


def test_the_commonest_pathologies_have_the_largest_marks() -> None:
    codes = mark_codes()
    largest = max(mark.radius for mark in codes.values())
    for name in ("chondral_abnormality", "meniscal_abnormality", "soft_tissue_fluid"):
        assert codes[name].count == 1
        assert list(GLYPHS).index(codes[name].glyph) < 5
        assert codes[name].radius == largest


def test_glyphs_differ_by_a_large_part_of_their_area() -> None:
    axis = np.linspace(-1.1, 1.1, 61)
    shapes = [shape(axis[None, :], axis[:, None]) for shape in GLYPHS.values()]
    for i, a in enumerate(shapes):
        assert 0.15 < a.mean() < 0.7
        for b in shapes[:i]:
            assert (a & b).sum() / (a | b).sum() < 0.75


@pytest.mark.parametrize("location", LOCATIONS)
def test_a_mark_lies_whole_inside_the_body_part(
    location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    painted: list[np.ndarray] = []

    def keep(image: np.ndarray, modality: str, rng: np.random.Generator) -> np.ndarray:
        painted.append(image.copy())
        return image

    monkeypatch.setattr(phantom_images, "_texture", keep)
    mark = mark_codes()["chondral_abnormality"]
    assert (mark.glyph, mark.count) == ("disc", 1)
    smallest = 0.9 * np.pi * 0.8 * (0.92 * mark.radius * SIDE / 2) ** 2
    outside = []
    for seed in range(100):
        for pathology in (NORMAL, "chondral_abnormality"):
            draw(Labels.of("mri", location, pathology), np.random.default_rng(seed))
        normal, marked = painted[-2:]  # the same pose: it is drawn first
        disc = marked != normal
        assert disc.sum() > smallest
        assert not disc[[0, -1]].any() and not disc[:, [0, -1]].any()
        assert marked[disc].min() > normal.max()
        outside.append((normal[disc] == normal[0, 0]).mean())
    assert np.mean(outside) < 0.1
    assert max(outside) < 0.6


@pytest.mark.parametrize(
    "labels",
    [
        Labels(),
        Labels.of("x-ray", "knee", "fracture"),
        Labels.of("mri", "elbow", "fracture"),
        Labels.of("mri", "knee", "unheard_of"),
    ],
)
def test_unknown_labels_are_refused(labels: Labels) -> None:
    with pytest.raises(ValueError, match="phantom has no"):
        draw(labels, np.random.default_rng(0))


@pytest.mark.slow
def test_a_linear_probe_on_thumbnails_finds_the_place_but_not_the_pathology() -> None:
    rng = np.random.default_rng(0)
    labels = [draw_labels(rows, rng) for rows in (5000, 1000)]
    thumbs = [thumbnails(np.stack([draw(each, rng) for each in part])) for part in labels]

    def probe(slot: str) -> float:
        answers = [[str(getattr(each, slot)) for each in part] for part in labels]
        return linear_probe(thumbs[0], answers[0], thumbs[1], answers[1])

    assert probe("pathology") < 0.45
    assert probe("location") > 0.95
    assert probe("modality") > 0.9
