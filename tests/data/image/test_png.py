from __future__ import annotations

import io
import zlib
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from png_files import chunk, png_file

from radcap.data.image.decode import ImageError, decode_image, decoding, image_pixels
from radcap.data.image.png import repack_png

LARGE = 10_000_000


def png(lines: bytes, width: int, height: int, colour: int, *, idats: int = 1) -> bytes:
    """A PNG of filtered lines as they are."""
    packed = zlib.compress(lines)
    cuts = [len(packed) * index // idats for index in range(idats + 1)]
    parts = [chunk(b"IDAT", packed[a:b]) for a, b in pairwise(cuts)]
    return png_file((width, height), *parts, colour=colour)


def encode(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).integers(0, 256, shape, dtype=np.uint8)


def outcome(data: bytes) -> bytes | str:
    """What Pillow alone makes of a file: pixels, or the reason why not."""
    try:
        with decoding(), Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            return image_pixels(image).tobytes()
    except ImageError as error:
        return error.reason


def mode(data: bytes) -> str:
    with Image.open(io.BytesIO(data)) as image:
        return image.mode


def test_grey_stored_as_rgb_becomes_grey_and_colour_stays() -> None:
    grey = np.repeat(noise(60, 50)[..., None], 3, axis=-1)
    slightly = grey.copy()
    slightly[59, 49, 2] ^= 1  # one bit of the last pixel
    for pixels, expected in ((grey, "L"), (slightly, "RGB"), (noise(60, 50), "L")):
        packed = repack_png(encode(pixels), max_pixels=LARGE)
        assert mode(packed) == expected
        found = np.asarray(Image.open(io.BytesIO(packed)).convert("RGB"))
        assert (found == (pixels if pixels.ndim == 3 else pixels[..., None])).all()


def test_only_the_plain_kind_is_touched() -> None:
    pixels = noise(20, 30, 3)
    plain = encode(pixels)
    info = PngImagePlugin.PngInfo()
    info.add_text("a", "b")
    others = [
        encode(pixels, pnginfo=info),
        encode(pixels, transparency=(0, 0, 0)),
        encode(noise(20, 30, 4)),
        encode((noise(20, 30) > 9) * np.uint16(999)),
        plain + b"more",
        plain[:-1],
        plain[:20] + b"x" + plain[21:],  # the header's checksum tells
        b"",
        b"\x89PNG\r\n\x1a\n",
    ]
    assert repack_png(plain, max_pixels=600) != plain
    assert repack_png(plain, max_pixels=599) == plain
    for data in others:
        assert repack_png(data, max_pixels=LARGE) is data


def test_more_pixels_than_the_header_says_are_not_inflated() -> None:
    bomb = png(bytes(100_000_000), 20, 20, 2)
    assert len(bomb) < 200_000
    assert repack_png(bomb, max_pixels=LARGE) is bomb


@pytest.mark.parametrize("idats", [1, 2, 7])
@pytest.mark.parametrize("kind", range(5))
@pytest.mark.parametrize("colour", [0, 2])
def test_every_filter_gives_pillows_picture(kind: int, colour: int, idats: int) -> None:
    lines = noise(9, 1 + (3 if colour else 1) * 11)
    lines[:, 0] = kind
    data = png(lines.tobytes(), 11, 9, colour, idats=idats)
    assert repack_png(data, max_pixels=LARGE) != data
    assert decode_image(data).tobytes() == outcome(data)


@settings(max_examples=150)
@given(
    filters=st.lists(st.integers(0, 6), min_size=1, max_size=6),
    width=st.integers(1, 9),
    is_grey=st.booleans(),
    extra=st.sampled_from([0, 0, 0, -1, -30, 1, 40]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=2),
    kept=st.sampled_from([1.0, 1.0, 1.0, 0.9, 0.5]),
    seed=st.integers(0, 99),
)
def test_a_damaged_file_is_what_it_is_to_pillow(
    filters: list[int],
    width: int,
    is_grey: bool,
    extra: int,
    changes: list[tuple[float, int]],
    kept: float,
    seed: int,
) -> None:
    lines = np.random.default_rng(seed).integers(0, 256, (len(filters), width, 3), dtype=np.uint8)
    if is_grey:
        lines[...] = lines[..., :1]
    raw = b"".join(bytes([f]) + line.tobytes() for f, line in zip(filters, lines, strict=True))
    raw = raw[:extra] if extra < 0 else raw + bytes(extra)
    data = bytearray(png(raw, width, len(filters), 2))
    for where, value in changes:
        data[int(where * len(data))] = value
    damaged = bytes(data[: int(kept * len(data))])
    try:
        found: bytes | str = decode_image(damaged).tobytes()
    except ImageError as error:
        found = error.reason
    expected = outcome(damaged)
    if found != "too large":
        assert found == expected
