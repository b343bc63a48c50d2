"""Greys of more than 8 bits keep all of them and their sense, however they are stored."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from png_files import chunk, png_file

from radcap.data.image.decode import ImageError, decode_image, has_several_frames
from radcap.serving.pictures import read_picture

# What is to be seen: no symmetry, 0 to 255.
_Y, _X = np.mgrid[:60, :80]
SEEN = np.rint(255 * (_X / 79 * 0.7 + (_Y / 59) ** 2 * 0.3)).astype(np.uint8)


def as_png(pixels: np.ndarray) -> np.ndarray:
    """The pixels of a plain picture of 8 bits."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return decode_image(file.getvalue())


def tiff(
    stored: np.ndarray,
    *,
    order: str = "<",
    photometric: int | None = 1,
    bits: int | None = None,
    packed: bool = False,
    more: tuple[tuple[int, int], ...] = (),
) -> bytes:
    """A grey TIFF of one strip.

    Args:
        stored: [H, W].
        order: of its bytes, < or >.
        photometric: 0 where white is zero; None leaves the tag out.
        bits: 12 packs two numbers into three bytes.
        packed: compressed by deflate.
        more: tags and values, as 32 bits.
    """
    height, width = stored.shape
    if bits == 12:
        left, right = stored[:, ::2].astype(int), stored[:, 1::2].astype(int)
        threes = (left >> 4, (left & 15) << 4 | right >> 8, right & 255)
        data = np.stack(threes, -1).astype(np.uint8).tobytes()
    else:
        data = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
    data = zlib.compress(data) if packed else data
    kind = {"u": 1, "i": 2, "f": 3}[stored.dtype.kind]
    tags = {
        256: width,
        257: height,
        258: bits or 8 * stored.dtype.itemsize,
        259: 8 if packed else 1,
    }
    tags |= {} if photometric is None else {262: photometric}
    tags |= {273: 8, 277: 1, 278: height, 279: len(data), 339: kind} | dict(more)
    start = 8 + len(data) + len(data) % 2
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    end = struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, start)
    return head + data + bytes(len(data) % 2) + end


def shades(dtype: str, least: float, greatest: float) -> np.ndarray:
    """SEEN in another range."""
    return (least + SEEN.astype(np.float64) / 255 * (greatest - least)).astype(dtype)


KINDS: list[tuple[str, np.ndarray, int | None]] = [
    ("12 bits", shades("u2", 100, 4000), 12),
    ("16 bits", shades("u2", 0, 65_535), None),
    ("16 bits, signed", shades("i2", -32_768, 3000), None),
    ("32 bits", shades("u4", 2**31 - 1000, 2**32 - 1), None),
    ("32 bits, signed", shades("i4", -(2**31), 2**31 - 1), None),
    ("float", shades("f4", -3.5, 0.25), None),
]


@pytest.mark.parametrize(("name", "values", "bits"), KINDS, ids=[kind[0] for kind in KINDS])
def test_greys_of_tiffs_keep_range_and_sense(
    name: str, values: np.ndarray, bits: int | None
) -> None:
    expected = as_png(SEEN).astype(int)
    opposite = -values if values.dtype.kind == "f" else ~values
    if bits == 12:
        opposite = 4095 - values
    for order in "<>":
        for packed in (False, True):
            for photometric, stored in ((1, values), (None, values), (0, opposite)):
                file = tiff(stored, order=order, photometric=photometric, bits=bits, packed=packed)
                found = decode_image(file)
                case = (name, order, packed, photometric)
                assert np.abs(found.astype(int) - expected).max() <= 1, case
                image = Image.open(io.BytesIO(file))
                if not packed:  # else Pillow takes the bytes of some in the wrong order
                    found = read_picture(image)
                    assert np.abs(found.astype(int) - expected).max() <= 1, case


def test_what_is_no_number_is_black_where_white_is_zero() -> None:
    values = np.linspace(-1, 1, 80 * 60, dtype=np.float32).reshape(60, 80)
    values[:, :40] = np.nan
    found = decode_image(tiff(values, photometric=0))
    assert found[0, :, :100].max() == 0
    assert found[0, 0, -1] > found[0, -1, -1] > 0


@pytest.mark.parametrize("orientation", [3, 6])
def test_orientation_of_deep_tiffs(orientation: int) -> None:
    turned = {3: SEEN[::-1, ::-1], 6: np.rot90(SEEN, -1)}[orientation]
    for order in "<>":
        stored = shades("u2", 500, 40_000)
        found = decode_image(tiff(~stored, order=order, photometric=0, more=((274, orientation),)))
        assert np.abs(found.astype(int) - as_png(turned.copy())).max() <= 1


def png(
    channels: np.ndarray, *, interlaced: bool = False, more: tuple[tuple[bytes, bytes], ...] = ()
) -> bytes:
    """A PNG of 16 bits a channel: uint16 [H, W, 1 to 4]."""
    height, width, count = channels.shape
    steps = [(0, 0, 1, 1)]
    if interlaced:  # https://www.w3.org/TR/png-3/#8Interlace
        steps = [
            (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
            (1, 0, 2, 1),
        ]  # fmt: skip
    lines = b""
    for top, left, down, across in steps:
        part = channels[top::down, left::across].astype(">u2")
        lines += b"".join(b"\0" + line.tobytes() for line in part if line.size)
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[count]
    parts = [chunk(kind, body) for kind, body in (*more, (b"IDAT", zlib.compress(lines)))]
    return png_file((width, height), *parts, colour=colour, bits=16, interlaced=interlaced)


@pytest.mark.parametrize("interlaced", [False, True])
def test_sixteen_bits_keep_their_lower_half_in_any_number_of_channels(interlaced: bool) -> None:
    low = shades("u2", 20, 500)  # two values of the upper half
    opaque = np.full_like(low, 65_535)
    expected = as_png(SEEN).astype(int)
    for channels in ((low,), (low, opaque), (low, low, low), (low, low, low, opaque)):
        file = png(np.stack(channels, -1), interlaced=interlaced)
        assert np.abs(decode_image(file).astype(int) - expected).max() <= 1, len(channels)


def test_opacity_of_sixteen_bits() -> None:
    low = shades("u2", 20, 500)
    hidden = low.copy()
    hidden[:, :40] = 65_535  # unseen, and no part of the range
    for colours in ((hidden,), (hidden, hidden, hidden)):
        alpha = np.full_like(low, 32_768)
        alpha[:, :40] = 0
        found = decode_image(png(np.stack([*colours, alpha], -1)))[0].astype(int)
        seen = SEEN[:, 40:].astype(float)
        half = (seen - seen.min()) / (seen.max() - seen.min()) * 127.5
        expected = as_png(np.hstack([np.zeros_like(half), half]).round().astype(np.uint8))[0]
        assert np.abs(found - expected).max() <= 1
        nothing = np.stack([*colours, np.zeros_like(low)], -1)
        assert decode_image(png(nothing)).max() == 0
    marked = low.copy()
    marked[:, :40] = 65_535
    file = png(marked[..., None], more=((b"tRNS", b"\xff\xff"),))
    found = decode_image(file)[0]
    assert found[:, :100].max() == 0 and found[:, 130:].max() > 200


def test_colours_of_sixteen_bits_stay_colours() -> None:
    values = np.stack([shades("u2", 0, 60_000), shades("u2", 9000, 0), shades("u2", 7, 7)], -1)
    found = decode_image(png(values)).astype(int)
    expected = as_png((values >> 8).astype(np.uint8))
    assert np.abs(found - expected).max() <= 1


def test_opacity_of_an_array_is_no_part_of_its_range() -> None:
    expected = as_png(SEEN).astype(int)
    low = shades("u2", 20, 500)
    for colour, opaque in ((low, 65_535), (low / np.float32(7e4), 1.0)):
        array = np.stack([colour, colour, colour, np.full_like(colour, opaque)], -1)
        assert np.abs(read_picture(array).astype(int) - expected).max() <= 1


def saved(kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(SEEN).convert("RGB").save(file, kind, **options)
    return file.getvalue()


@settings(max_examples=25)
@given(
    st.sampled_from(["PNG", "WEBP", "JPEG"]),
    st.one_of(
        st.binary(min_size=1, max_size=40),
        st.binary(max_size=30).map(lambda rest: b"Exif\0\0MM\0*\0\0\0\x08" + rest),
        st.binary(max_size=30).map(lambda rest: b"Exif\0\0II*\0\x08\0\0\0\1\0" + rest),
    ),
)
def test_exif_of_garbage_loses_no_picture(kind: str, garbage: bytes) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    plain = decode_image(saved(kind, **options)).astype(int)
    file = saved(kind, exif=garbage, **options)
    assert garbage.removeprefix(b"Exif\0\0") in file
    found = decode_image(file).astype(int)
    if np.shape(found) == np.shape(plain):  # some of it may say how to turn the picture
        turned = [plain, plain[..., ::-1], plain[:, ::-1], plain[:, ::-1, ::-1]]
        turned += [one.swapaxes(1, 2) for one in turned]
        assert min(np.abs(found - one).max() for one in turned) <= 1


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"iCCP", b"name\0\5nonsense"),
        (b"zTXt", b"name\0\0nonsense"),
        (b"zTXt", b"name\0\7"),
        (b"iTXt", b"name\0\1\0\0\0nonsense"),
        (b"pHYs", b"\0"),
        (b"gAMA", b"\0"),
        (b"sRGB", b""),
        (b"cHRM", b"\0\0\0"),
    ],
)
def test_chunks_that_tell_of_a_png_do_not_lose_it(kind: bytes, body: bytes) -> None:
    low = shades("u2", 20, 500)[..., None]
    expected = decode_image(png(low))
    assert np.array_equal(decode_image(png(low, more=((kind, body),))), expected)
    whole = chunk(kind, body)
    damaged = png(low, more=((kind, body),)).replace(whole, whole[:-1] + bytes([whole[-1] ^ 1]))
    assert np.array_equal(decode_image(damaged), expected)
    # What stands upright by its EXIF does so with another chunk damaged.
    exif = Image.Exif()
    exif[0x0112] = 3
    upright = ((b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")), (kind, body))
    turned = decode_image(png(low[::-1, ::-1]))
    assert np.abs(decode_image(png(low, more=upright)).astype(int) - turned).max() <= 1
    noise = np.random.default_rng(0).integers(0, 9999, (90, 90, 1))
    with pytest.raises(ImageError, match="truncated"):
        decode_image(png(noise, more=((kind, body),))[:9000])


@pytest.mark.parametrize(
    ("marker", "body"),
    [
        (0xE0, b"JFIF\0"),
        (0xE2, b"ICC_PROFILE\0"),
        (0xEE, b"Adobe"),
    ],
)
def test_segments_that_tell_of_a_jpeg_do_not_lose_it(marker: int, body: bytes) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    segment = bytes([0xFF, marker]) + struct.pack(">H", 2 + len(body)) + body
    for mode in ("RGB", "CMYK"):  # the colours of the second are told by a segment of Adobe's
        file = io.BytesIO()
        Image.fromarray(SEEN).convert("RGB").convert(mode).save(file, "JPEG", exif=exif)
        good = file.getvalue()
        bad = good[:2] + b"\xff" + segment + good[2:]
        assert np.array_equal(decode_image(bad), decode_image(good))
        assert decode_image(good)[0, 0, 0] > decode_image(good)[0, -1, -1]
        with pytest.raises(ImageError, match="truncated"):
            decode_image(bad[:-100])
        with pytest.raises(ImageError):
            decode_image(bad[:40])


def test_whether_a_file_holds_several_frames() -> None:
    one, two = Image.new("L", (9, 9)), Image.new("L", (9, 9), 255)
    for kind in ("TIFF", "GIF", "PNG", "WEBP"):
        for others in ([], [two]):
            file = io.BytesIO()
            options: dict[str, Any] = {"save_all": True, "append_images": others} if others else {}
            one.save(file, kind, **options)
            assert has_several_frames(file.getvalue()) == bool(others), kind
    assert not has_several_frames(b"nothing")


def test_a_pointer_is_no_picture() -> None:
    text = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
    with pytest.raises(ImageError) as caught:
        decode_image(text)
    assert caught.value.reason == "git-lfs pointer"
