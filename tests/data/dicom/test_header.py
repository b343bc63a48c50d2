"""What is asked of a DICOM header, and that it says nothing else."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")

from dicom_files import dicom  # noqa: E402

from radcap.data.dicom.header import Header, check_keyword, hashed, read_header  # noqa: E402
from radcap.data.image.decode import ImageError  # noqa: E402
from radcap.errors import ConfigError  # noqa: E402


def header(*keywords: str, **values: Any) -> Header:
    return read_header(dicom(np.zeros((4, 4), np.int16), **values), keywords)


def test_who_it_is_comes_out_hashed_and_what_is_asked_for_as_text() -> None:
    found = header(
        "Modality",
        "ImageType",
        "StudyDescription",
        "SliceThickness",
        **{"PatientID": " P-1 ", "StudyInstanceUID": "1.2.840.1", "Modality": "MR"},
        **{"ImageType": ["ORIGINAL", "PRIMARY"], "NumberOfFrames": 1, "SliceThickness": "2.5"},
    )
    assert found.patient == hashlib.sha256(b"P-1").hexdigest() == hashed("P-1\0")
    assert found.study == hashlib.sha256(b"1.2.840.1").hexdigest()
    assert found.texts == {
        "Modality": "MR",
        "ImageType": "ORIGINAL, PRIMARY",
        "SliceThickness": "2.5",
    }
    assert "P-1" not in repr(found)


@pytest.mark.parametrize("value", ["", "  ", None])
def test_nothing_is_known_of_an_empty_header(value: str | None) -> None:
    assert header(PatientID=value) == Header()


@pytest.mark.parametrize(("value", "is_burned_in"), [("YES", True), ("NO", False), ("", False)])
def test_burned_in_annotation(value: str, is_burned_in: bool) -> None:
    assert header(PatientID="", BurnedInAnnotation=value).is_burned_in is is_burned_in


def test_frames_are_counted() -> None:
    data = dicom(np.zeros((3, 4, 4), np.int16), NumberOfFrames=3)
    assert read_header(data).num_frames == 3


@pytest.mark.parametrize(
    ("keyword", "message"),
    [
        ("PatientName", "who a person is"),
        ("ReferringPhysicianName", "who a person is"),
        ("PatientID", "who a person is"),
        ("Modalty", "no keyword of DICOM"),
        ("PixelData", "holds no text"),
        ("VOILUTSequence", "holds no text"),
    ],
)
def test_what_may_not_be_asked_for(keyword: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_keyword(keyword)


def test_a_damaged_header_is_a_picture_error() -> None:
    data = bytearray(dicom(np.zeros((4, 4), np.int16), PatientID="SECRET"))
    at = data.index(b"SECRET") - 8
    data[at + 4 : at + 8] = b"\xff\xff\xff\xff"  # no such kind of value, of an impossible length
    try:
        found = read_header(bytes(data))
    except ImageError as error:
        assert "SECRET" not in str(error) and error.__cause__ is None
    else:
        assert "SECRET" not in repr(found)
