"""What a host must do to feed a step."""

from __future__ import annotations

import time

import numpy as np
import pytest

from radcap.aot import feed
from radcap.aot.feed import decoding_rate
from radcap.data.image.decode import decode_image


def test_a_core_is_measured_by_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A core that is kept from a picture most of the time decodes it no slower."""
    waited_s = 0.05
    decoded = []

    def decode_beside_other_work(picture: bytes) -> np.ndarray:
        time.sleep(waited_s)
        decoded.append(decode_image(picture))
        return decoded[-1]

    monkeypatch.setattr(feed, "decode_image", decode_beside_other_work)
    monkeypatch.setattr(feed, "_PICTURES", 4)
    monkeypatch.setattr(feed, "_PASSES", 3)
    rate = decoding_rate()
    assert len(decoded) == 12 and decoded[0].shape == (3, 224, 224)
    assert rate > 2 / waited_s  # by the time on the wall it is below 1 / waited_s, whatever runs
