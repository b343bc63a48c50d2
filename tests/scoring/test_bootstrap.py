"""Intervals against the normal approximation, and what a resample is."""

from __future__ import annotations

import numpy as np
import pytest

from radcap.scoring import bootstrap
from radcap.scoring.bootstrap import interval, resampled_sums


def test_the_interval_of_a_mean_is_that_of_its_standard_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bootstrap, "RESAMPLES", 4000)
    values = np.random.default_rng(1).normal(3.0, 2.0, 2000)
    table = np.stack([values, np.ones(2000)], axis=1)
    ends = interval(resampled_sums(table), lambda s: s[0] / s[1])
    assert ends is not None
    half = 1.96 * values.std() / np.sqrt(2000)
    assert ends == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_a_resample_has_as_many_rows_and_keeps_them_whole() -> None:
    """A row's statistics are drawn together, so that ratios keep their partner."""
    counts = np.arange(1.0, 101.0)
    sums = resampled_sums(np.stack([np.ones(100), counts, 2 * counts], axis=1))
    assert sums.shape == (1000, 3)
    assert set(sums[:, 0]) == {100.0}
    np.testing.assert_allclose(sums[:, 2], 2 * sums[:, 1])
    assert len(np.unique(sums[:, 1])) > 300


def test_the_same_rows_give_the_same_interval() -> None:
    table = np.random.default_rng(2).random((50, 4))
    np.testing.assert_array_equal(resampled_sums(table), resampled_sums(table))


def test_what_no_resample_defines_has_no_interval() -> None:
    def share(sums: np.ndarray) -> float | None:
        return sums[0] / sums[1] if sums[1] else None

    assert interval(resampled_sums(np.zeros((5, 2))), share) is None
    assert interval(resampled_sums(np.zeros((0, 2))), share) is None
    assert interval(resampled_sums(np.ones((5, 2))), share) == (1.0, 1.0)


def test_an_interval_may_end_at_infinity() -> None:
    """Between two infinities there is no number to interpolate."""
    sums = np.linspace(0.0, 999.0, 1000)[:, None]

    def figure(limit: float) -> tuple[float, float] | None:
        return interval(sums, lambda s: float("inf") if s[0] >= limit else float(s[0]))

    assert figure(0.0) == (float("inf"), float("inf"))
    assert figure(500.0) == (24.0, float("inf"))
    assert figure(999.0) == (24.0, 975.0)
    assert figure(2000.0) == pytest.approx((24.975, 974.025))
