"""What a host must do to feed a step: pictures and megabytes a second, cores of decoding."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from radcap.config.schema import DataConfig
from radcap.data.image.decode import decode_image
from radcap.data.phantom.dataset import sample_pictures


@dataclass(frozen=True)
class Split:
    """What is known of a training split without opening it.

    Attributes:
        rows: rows; None if unknown.
        bytes_per_row: bytes downloaded for a row; None if unknown, or from no Hub.
    """

    rows: int | None
    bytes_per_row: float | None


# From the data set's card: 833,677 rows of both splits in 38,405,331,105 bytes.
_KNOWN = {
    ("raidium/RadImageNet-VQA", "alignment", "train"): 750_009,
    ("raidium/RadImageNet-VQA", "alignment", "val"): 83_668,
}
_BYTES_PER_ROW = 38_405_331_105 / 833_677
_PICTURES, _PASSES = 64, 5  # of `decoding_rate`


def training_split(data: DataConfig) -> Split:
    """The configured training split, as far as it is known without network."""
    if data.path is None and data.name == "phantom":
        return Split(data.phantom.train_rows, None)
    known = None if data.path else (str(data.hub_id), data.config, data.train_split)
    rows = _KNOWN.get(known) if known else None
    return Split(rows, _BYTES_PER_ROW if rows else None)


def decoding_rate() -> float:
    """Pictures that one core of this machine decodes in a second of processor time.

    Measured on phantom pictures, which have the size and form of the real ones (224 x 224, RGB,
    PNG): the median of several passes. Other work on the machine stretches the time that a pass
    takes, but not the part of it that a core works on it.
    """
    pictures = sample_pictures(_PICTURES)
    seconds = []
    for _ in range(_PASSES):
        start = time.process_time()
        for picture in pictures:
            decode_image(picture)
        seconds.append(time.process_time() - start)
    return _PICTURES / statistics.median(seconds)
