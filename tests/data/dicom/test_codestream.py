"""Sizes of compressed data, where encoders put them and where a hostile file may."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from radcap.data.dicom.codestream import stated_sizes


def encoded(kind: str, size: tuple[int, int] = (300, 20), **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.new("L", size).save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        encoded("JPEG"),
        encoded("JPEG", progressive=True),
        encoded("JPEG2000", no_jp2=True),
        encoded("JPEG2000"),
    ],
    ids=["JPEG", "progressive JPEG", "JPEG 2000", "JP2"],
)
def test_the_size_of_a_picture(data: bytes) -> None:
    assert list(stated_sizes(data)) == [(300, 20)]
    for end in range(0, 200, 7):  # cut anywhere
        assert set(stated_sizes(data[:end])) <= {(300, 20)}


def test_what_decoders_skip_hides_nothing() -> None:
    start, rest = encoded("JPEG")[:2], encoded("JPEG")[2:]
    thumbnail = encoded("JPEG", (9, 9))
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    for between in (b"\xff\xff\xff", b"\xff\xd0\xff\x01", b"junk", segment):
        assert list(stated_sizes(start + between + rest)) == [(300, 20)]


def test_other_data_states_none() -> None:
    for data in (b"", b"\xff", b"\xff\xd8", encoded("PNG"), bytes(100)):
        assert list(stated_sizes(data)) == []


def test_shipped_files_state_what_their_headers_say() -> None:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.encaps import get_frame

    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    names = ("MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "JPEG-lossy")
    for file in (folder / f"{name}.dcm" for name in names):
        dataset = pydicom.dcmread(file)
        data = get_frame(dataset.PixelData, 0, number_of_frames=1)
        assert list(stated_sizes(data)) == [(dataset.Columns, dataset.Rows)]
