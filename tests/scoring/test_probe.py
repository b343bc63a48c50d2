"""The linear probe reads what stands still and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from radcap.scoring.probe import linear_probe, thumbnails


def test_thumbnails_are_means_of_squares() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 224, 224), dtype=np.uint8)
    small = thumbnails(images)
    assert small.shape == (3, 1024)
    assert small[2, 5 * 32 + 9] == pytest.approx(images[2, 35:42, 63:70].mean() / 255, rel=1e-5)
    with pytest.raises(ValueError, match="no even thumbnail"):
        thumbnails(images[:, :100])


def test_a_fixed_spot_is_found_and_a_wandering_one_is_not() -> None:
    rng = np.random.default_rng(0)
    labels = [str(label) for label in rng.integers(0, 4, 3000)]
    fixed = rng.normal(0, 0.1, (3000, 64))
    wandering = fixed.copy()
    for row, label in enumerate(labels):
        fixed[row, 10 + int(label)] += 1
        # A pair of spots at a distance that tells the label, anywhere on a ring.
        place = rng.integers(64)
        wandering[row, [place, (place + 3 + 5 * int(label)) % 64]] += 1
    for features, low, high in ((fixed, 0.95, 1.0), (wandering, 0.15, 0.35)):
        share = linear_probe(features[:2000], labels[:2000], features[2000:], labels[2000:])
        assert low <= share <= high
