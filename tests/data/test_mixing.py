"""How well batches of a sorted set are mixed, at the real size and frequencies."""

from __future__ import annotations

import numpy as np
import pytest

from radcap.data.order import Order, wide_window
from radcap.data.phantom.grammar import label_distribution
from radcap.data.shelf import SPOOLED_BYTES

ROWS, BATCH, BYTES_PER_ROW = 750_009, 336, 39_200
LANES, WINDOW_BYTES = 64, 4_000_000_000  # of configs/data/radimagenet_vqa.yaml
BATCHES = 200


def classes_of_rows() -> np.ndarray:
    """The class of every row of the sorted split: int64 [ROWS], real frequencies."""
    shares = label_distribution()
    labels = sorted(shares, key=lambda one: tuple(str(part) for part in vars(one).values()))
    ends = np.cumsum([shares[one] for one in labels])
    return np.searchsorted(ends * ROWS / ends[-1], np.arange(ROWS), side="right")


def entropy(classes: np.ndarray) -> float:
    """Nats of the distribution of classes in a batch."""
    shares = np.bincount(classes) / len(classes)
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())


@pytest.mark.parametrize("group_rows", [100, 2580])
def test_a_batch_has_nearly_the_class_entropy_of_independent_draws(group_rows: int) -> None:
    classes = classes_of_rows()
    assert len(np.unique(classes)) >= 90
    sizes = [group_rows] * (ROWS // group_rows) + [ROWS % group_rows]
    num_bytes = [rows * BYTES_PER_ROW for rows in sizes]
    window_bytes = wide_window(num_bytes, LANES, WINDOW_BYTES, SPOOLED_BYTES)
    order = Order(
        sizes, num_bytes, seed=0, batch_size=BATCH, lanes=LANES, window_bytes=window_bytes
    )
    starts = np.concatenate([[0], np.cumsum(sizes)])
    # Evenly over the epoch; its very last batch is a short one.
    chosen = np.linspace(0, order.batches_per_epoch - 1, BATCHES, endpoint=False).astype(int)
    found = []
    for batch in chosen:
        slots = order.slots(0, int(batch))
        found.append(entropy(classes[starts[slots.group] + slots.row]))
    rng = np.random.default_rng(0)
    drawn = [entropy(rng.choice(classes, BATCH)) for _ in range(BATCHES)]
    ratio = float(np.mean(found) / np.mean(drawn))
    print(f"row groups of {group_rows} rows: {ratio:.3f} of the entropy of independent draws")
    assert ratio >= 0.97
