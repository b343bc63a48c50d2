"""A linear probe: how much of a label can be read off a picture without looking for anything.

Ridge regression from the pixels of a small thumbnail to the label. It finds what always stands in
the same place; a mark that may lie anywhere it does not find.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

THUMBNAIL_SIDE = 32
# The probe gets the best of these, on the very rows it is judged by: an upper bound.
_PENALTIES = (100.0, 1000.0, 10000.0)


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Means over squares of pixels: float32 [N, 32 * 32] in [0, 1] from uint8 grey [N, H, W].

    Raises:
        ValueError: a side is no multiple of 32.
    """
    count, height, width = images.shape
    if height % THUMBNAIL_SIDE or width % THUMBNAIL_SIDE:
        raise ValueError(f"pictures of {height} x {width} have no even thumbnail")
    shape = (count, THUMBNAIL_SIDE, height // THUMBNAIL_SIDE, THUMBNAIL_SIDE, -1)
    means = images.reshape(shape).mean((2, 4), dtype=np.float32) / 255
    return means.reshape(count, -1)


def linear_probe(
    train: np.ndarray, train_labels: Sequence[str], test: np.ndarray, test_labels: Sequence[str]
) -> float:
    """The probe's share of right answers on `test`.

    Args:
        train, test: features, float [N, F].
        train_labels, test_labels: one for each row; the probe knows those of `train`.
    """
    names, numbers = np.unique(train_labels, return_inverse=True)
    mean, spread = train.mean(0), train.std(0) + 1e-3
    a = np.c_[(train - mean) / spread, np.ones(len(train))]
    b = np.c_[(test - mean) / spread, np.ones(len(test))]
    gram, moments = a.T @ a, a.T @ np.eye(len(names))[numbers]
    shares = []
    for penalty in _PENALTIES:
        weights = np.linalg.solve(gram + penalty * np.eye(len(gram)), moments)
        shares.append(float(np.mean(names[(b @ weights).argmax(1)] == np.asarray(test_labels))))
    return max(shares)
