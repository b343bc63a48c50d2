"""Pictures of every kind become the pixels that the same picture gives as a PNG."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from bounds import bounded
from PIL import Image

from radcap.data.image.decode import decode_image
from radcap.serving.pictures import PictureError, read_frame, read_picture


def pattern(height: int = 60, width: int = 80) -> np.ndarray:
    """uint8 grey, no symmetry, values 0 to 255."""
    y, x = np.mgrid[:height, :width]
    return np.rint(255 * (x / (width - 1) * 0.7 + (y / (height - 1)) ** 2 * 0.3)).astype(np.uint8)


def png_pixels(array: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return decode_image(buffer.getvalue())


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def test_lossless_files_arrays_and_images_give_the_same_pixels(tmp_path: Path) -> None:
    grey, expected = pattern(), png_pixels(pattern())
    assert expected.std() > 40
    wide = grey.astype(np.uint16) * 16 + 100  # 12 of 16 bits, from 100 on
    pictures = {
        "png": save(tmp_path / "a.png", grey),
        "no extension": save(tmp_path / "a", grey, format="PNG"),
        "wrong extension": save(tmp_path / "a.dcm", grey, format="PNG"),
        "tiff": save(tmp_path / "a.tif", grey),
        "tiff of 16 bits": save(tmp_path / "wide.tiff", wide),
        "tiff of floats": save(tmp_path / "float.tiff", grey.astype(np.float32) / 255 - 3),
        "png of 16 bits": save(tmp_path / "wide.png", wide),
        "webp": save(tmp_path / "a.webp", np.stack([grey] * 3, -1), lossless=True),
        "path as text": str(tmp_path / "a.png"),
        "image": Image.fromarray(grey),
        "image of 16 bits": Image.fromarray(wide),
        "array": grey,
        "array with an axis of channels": grey[:, :, None],
        "array of RGB": np.stack([grey] * 3, axis=-1),
        "array of floats": grey / 255.0,
        "array of int16": grey.astype(np.int16) - 1024,
    }
    for name, picture in pictures.items():
        found = read_picture(picture)
        assert (found.dtype, found.shape) == (np.uint8, (3, 224, 224)), name
        assert np.abs(found.astype(int) - expected).max() <= 1, name
    lossy = read_picture(save(tmp_path / "a.jpg", grey, quality=95))
    assert np.abs(lossy.astype(int) - expected).mean() < 2


@pytest.mark.parametrize("name", ["a.tif", "a.gif"])
def test_a_frame_of_several(tmp_path: Path, name: str) -> None:
    frames = [pattern(), 255 - pattern(), pattern().T.copy().reshape(60, 80)]
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(tmp_path / name, save_all=True, append_images=images[1:])
    for number, frame in enumerate(frames):
        found = read_frame(tmp_path / name, frame=number).pixels
        assert np.abs(found.astype(int) - png_pixels(frame)).max() <= 1
    with pytest.raises(PictureError, match="no frame 3: the frames are 0 to 2"):
        read_frame(tmp_path / name, frame=3)
    with pytest.raises(PictureError, match="no frame 1: there is a single one, 0"):
        read_frame(save(tmp_path / "single.png", frames[0]), frame=1)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"this is text\n", "not a picture that radcap can read"),
        (b"\x89PNG\r\n\x1a\n and then nothing", "not a picture that radcap can read"),
        (b"\x08\x00" + b"\xff" * 400, "(DICOM|not a picture)"),
        (b"\0" * 128 + b"DICM" + b"\xff" * 40, "(DICOM|not a picture)"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(PictureError, match=f"bad.png: .*{reason}"):
        read_picture(tmp_path / "bad.png")


def test_files_and_arrays_that_cannot_be(tmp_path: Path) -> None:
    for path, reason in [(tmp_path / "none.png", "No such file"), (tmp_path, "Is a directory")]:
        with pytest.raises(PictureError, match=reason):
            read_picture(path)
    with pytest.raises(PictureError, match="no such file"):
        read_picture("a\0b")
    for array, reason in [
        (np.zeros((5, 4, 2)), r"an array of shape \[5, 4, 2\]"),
        (np.zeros(5), r"an array of shape \[5\]"),
        (np.zeros((0, 4)), "without numbers"),
        (np.array([["a"]]), "without numbers"),
        (np.full((4, 4), np.nan), "not a picture"),
        (np.zeros((1, 70_000), np.uint8), "more pixels"),
    ]:
        with pytest.raises(PictureError, match=f"ndarray: .*{reason}"):
            read_picture(array)
    with pytest.raises(TypeError, match="not int"):
        read_picture(3)  # type: ignore[arg-type]


def test_images_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.png", np.random.default_rng(0).integers(0, 256, (90, 90), "u1"))
    (tmp_path / "half.png").write_bytes(whole.read_bytes()[:4000])
    closed = Image.open(whole)
    closed.close()
    for image, message in [
        (Image.open(tmp_path / "half.png"), "half.png: the picture ends too early"),
        (closed, "whole.png: not a picture"),
        (Image.new("L", (0, 5)), "Image: not a picture"),
        (Image.new("1", (8000, 8000)), "Image: more pixels than radcap decodes"),
    ]:
        with pytest.raises(PictureError, match=message):
            read_picture(image)


def test_files_without_an_end_are_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "huge.png").open("wb") as stream:
        stream.truncate((2 << 30) + 1)  # without taking room
    os.mkfifo(tmp_path / "pipe.png")
    for path, message in [
        (tmp_path / "huge.png", "huge.png: more than 2 GiB"),
        (tmp_path / "pipe.png", "pipe.png: neither a file nor a folder"),
        ("/dev/zero", "/dev/zero: neither a file nor a folder"),
    ]:
        with pytest.raises(PictureError, match=message):
            read_picture(path)


@pytest.mark.parametrize("name", ["pipe.png", "zero.png", "pipe.dcm", "pipe"])
def test_a_pipe_or_a_device_is_no_picture(tmp_path: Path, name: str) -> None:
    if name.startswith("pipe"):
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to("/dev/zero")
    with bounded(100), pytest.raises(PictureError, match="neither a file nor a folder"):
        read_picture(tmp_path / name)
