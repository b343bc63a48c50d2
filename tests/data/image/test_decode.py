from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from png_files import chunk, png_file

from radcap.data.image.decode import IMAGE_SIZE, ImageError, decode_image, scale_to_bytes

SHAPE = (3, IMAGE_SIZE, IMAGE_SIZE)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int, height: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth(width: int = 300, height: int = 200) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return np.stack([255 * x, 255 * y, 255 * (1 - x)], axis=-1).astype(np.uint8)


def card_transform(image: Image.Image) -> np.ndarray:
    """The model card's: Resize((256, 256)), then CenterCrop(224)."""
    resized = image.convert("RGB").resize((256, 256), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((16, 16, 240, 240))).transpose(2, 0, 1)


def reason(data: bytes, **options: int) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, **options)
    return caught.value.reason


@pytest.mark.parametrize(
    "size", [(224, 224), (1, 1), (3, 500), (482, 512), (256, 256), (100, 75), (1000, 700)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_one_resize_equals_the_cards_two_steps(size: tuple[int, int], channels: int) -> None:
    image = Image.fromarray(noise(*size, channels))
    ours = decode_image(encode(image)).astype(int)
    assert np.abs(ours - card_transform(image)).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_native_size_is_exact(channels: int) -> None:
    for seed in range(5):
        image = Image.fromarray(noise(224, 224, channels, seed=seed))
        assert (decode_image(encode(image)) == card_transform(image)).all()


def test_grey_stored_as_rgb_is_the_same_picture_as_grey() -> None:
    grey = Image.fromarray(noise(224, 224, 1))
    assert (decode_image(encode(grey)) == decode_image(encode(grey.convert("RGB")))).all()


@pytest.mark.parametrize("size", [(224, 224), (1500, 1200), (4000, 600)])
def test_large_jpegs_are_decoded_small_but_true(size: tuple[int, int]) -> None:
    image = Image.fromarray(smooth(*size))
    data = encode(image, "JPEG", quality=95)
    difference = decode_image(data).astype(int) - card_transform(Image.open(io.BytesIO(data)))
    assert np.abs(difference).mean() < 0.6


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("1", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("RGB", "PNG"), ("RGBA", "PNG"),
        ("PA", "TIFF"), ("P", "GIF"), ("L", "JPEG"), ("CMYK", "JPEG"), ("CMYK", "TIFF"),
        ("YCbCr", "TIFF"), ("LAB", "TIFF"), ("RGB", "WEBP"), ("RGB", "BMP"), ("RGB", "PPM"),
        ("RGB", "JPEG2000"),
    ],
)  # fmt: skip
def test_every_mode_gives_the_same_picture(mode: str, kind: str) -> None:
    image = Image.fromarray(np.repeat(smooth()[..., :1], 3, axis=-1))
    if mode == "LAB":
        stored = Image.merge("LAB", (image.convert("L"), *(Image.new("L", image.size, 128),) * 2))
    else:
        stored = image.convert(mode)
    # Pillow 12 does not read the uncompressed YCbCr that it writes.
    options = {"compression": "tiff_lzw"} if (mode, kind) == ("YCbCr", "TIFF") else {}
    decoded = decode_image(encode(stored, kind, **options))
    assert decoded.shape == SHAPE and decoded.dtype == np.uint8
    difference = np.abs(decoded.astype(int) - card_transform(image))
    assert difference.mean() < (130 if mode == "1" else 12)


def test_colours_under_full_transparency_do_not_show() -> None:
    pixels = np.full((50, 50, 4), 200, dtype=np.uint8)
    pixels[..., 3] = 0
    assert decode_image(encode(Image.fromarray(pixels))).max() == 0
    pixels[..., 3] = 128
    assert np.abs(decode_image(encode(Image.fromarray(pixels))).astype(int) - 100).max() <= 1


def test_transparency_colour_of_a_png_is_black() -> None:
    image = Image.new("RGB", (30, 30), (255, 0, 0))
    assert decode_image(encode(image, transparency=(255, 0, 0))).max() == 0
    assert decode_image(encode(image))[0].min() == 255


def ramp(kind: Any, low: float, high: float) -> np.ndarray:
    return np.tile(np.linspace(low, high, 512), (256, 1)).astype(kind)


@pytest.mark.parametrize(
    ("pixels", "kind"),
    [
        (ramp(np.uint16, 0, 65_535), "PNG"),
        (ramp(np.uint16, 1_000, 5_095), "PNG"),
        (ramp(np.uint16, 0, 65_535), "TIFF"),
        (ramp(">u2", 0, 4_095), "TIFF"),
        (ramp(np.int32, -100_000, 3_000_000), "TIFF"),
        (ramp(np.float32, -1.5, 0.25), "TIFF"),
    ],
)
def test_deep_greys_keep_their_range(pixels: np.ndarray, kind: str) -> None:
    if pixels.dtype == ">u2":
        image = Image.frombytes("I;16B", pixels.shape[::-1], pixels.tobytes())
    else:
        image = Image.fromarray(pixels)
    line = decode_image(encode(image, kind))[0, 112].astype(int)
    assert (np.diff(line) >= 0).all()
    assert len(np.unique(line)) > 200
    assert line.min() < 20 and line.max() > 235  # the crop takes 6 % off each end


def test_floats_that_are_not_numbers() -> None:
    pixels = ramp(np.float32, 0, 1)
    pixels[:10] = np.nan
    pixels[10:20] = np.inf
    assert len(np.unique(decode_image(encode(Image.fromarray(pixels), "TIFF")))) > 200
    assert reason(encode(Image.fromarray(np.full_like(pixels, np.nan)), "TIFF")) == "undecodable"


def test_constant_deep_grey() -> None:
    assert decode_image(encode(Image.fromarray(np.full((9, 9), 700, np.uint16)))).max() == 0


def test_scaling_at_the_edges_of_floats() -> None:
    values = np.array([0, 5, 10, np.inf, -np.inf, np.nan])
    assert scale_to_bytes(values).tolist() == [0, 128, 255, 0, 0, 0]
    assert scale_to_bytes(np.array([-1.7e308, 0, 1.7e308])).tolist() == [0, 128, 255]
    assert scale_to_bytes(np.array([0, 1e-320, 2e-320])).tolist() == [0, 128, 255]
    assert scale_to_bytes(np.array([[7, 7]])).tolist() == [[0, 0]]
    with pytest.raises(ImageError, match="undecodable"):
        scale_to_bytes(np.array([np.nan, np.inf]))


@settings(max_examples=12)
@given(st.sampled_from(["u1", "i2", "u2", "i4", "f4", "f8"]), st.integers(1, 3000))
def test_scaling_in_blocks_is_scaling_at_once(kind: str, height: int) -> None:
    values = np.random.default_rng(height).normal(0, 50, (height, 700)).astype(kind)
    exact = values.astype(np.float64)
    exact = (exact - exact.min()) * (255.0 / (exact.max() - exact.min()))
    assert np.array_equal(scale_to_bytes(values), np.rint(exact))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation_is_honoured(orientation: int, kind: str) -> None:
    from PIL import ImageOps

    image = Image.fromarray(smooth())
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(image, kind, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.abs(decode_image(data).astype(int) - card_transform(upright)).mean() < 1


@pytest.mark.parametrize("size", [(30_000, 30_000), (10_000, 10_000), (1, 70_000)])
def test_size_is_checked_from_the_header(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decoded.append)
    header = png_file(size, chunk(b"IDAT", zlib.compress(b"\0" * 1000)), colour=2)
    assert reason(header) == "too large"
    assert not decoded


def test_the_size_of_the_first_frame_is_checked_too() -> None:
    frames = [Image.new("L", (60, 60)), Image.new("L", (20, 20), 255)]
    data = encode(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    assert decode_image(data, frame=1, max_pixels=3600).min() == 255
    assert reason(data, frame=1, max_pixels=3599) == "too large"
    data = encode(frames[1], "TIFF", save_all=True, append_images=frames[:1])
    assert reason(data, frame=1, max_pixels=3599) == "too large"


def test_max_pixels() -> None:
    data = encode(Image.fromarray(noise(20, 20)))
    assert reason(data, max_pixels=399) == "too large"
    assert decode_image(data, max_pixels=400).shape == SHAPE


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (65_000, 1), (1, 65_000)])
def test_extreme_shapes_are_bounded(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(Image.new("RGB", size, (9, 9, 9)))
    resize, pixels = Image.Image.resize, [0]

    def counting(image: Image.Image, size: tuple[int, int], *words: Any, **options: Any) -> Any:
        pixels.append(size[0] * size[1])
        return resize(image, size, *words, **options)

    monkeypatch.setattr(Image.Image, "resize", counting)
    assert (decode_image(data) == 9).all()
    # Scaling the shorter side to 256 first would make a million times more of it.
    assert sum(pixels) == IMAGE_SIZE**2


def test_broken_files_have_reasons() -> None:
    whole = encode(Image.fromarray(noise(100, 100)), "JPEG")
    assert reason(b"") == "empty"
    assert reason(b"<html><body>404</body></html>") == "undecodable"
    assert reason(whole[: len(whole) // 2]) == "truncated"
    assert reason(encode(Image.fromarray(noise(100, 100)))[:5000]) == "truncated"
    assert reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n") == "undecodable"


@settings(max_examples=150)
@given(
    st.sampled_from(["PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP", "JPEG2000", "PPM"]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12),
    st.floats(0.05, 1),
)
def test_damaged_files_end_in_an_image_or_an_image_error(
    kind: str, changes: list[tuple[float, int]], kept: float
) -> None:
    data = bytearray(encode(Image.fromarray(noise(20, 20)), kind))
    for where, value in changes:
        data[int(where * len(data))] = value
    try:
        assert decode_image(bytes(data[: int(kept * len(data))])).shape == SHAPE
    except ImageError as error:
        assert error.reason in {"empty", "undecodable", "truncated", "too large"}


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_a_frame_after_too_many_others_is_refused_before_they_are_decoded(kind: str) -> None:
    """To show one of these, its reader decodes all before."""
    frames = [Image.new("L", (20, 20), 20 * number) for number in range(7)]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    assert decode_image(data, frame=4, max_pixels=400).min() > 0
    assert "frame 5 comes after more pixels" in reason(data, frame=5, max_pixels=400)
    assert "no frame 7" in reason(data, frame=7, max_pixels=400)
