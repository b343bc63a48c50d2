"""What a DICOM header says of how its picture is shown: right, empty, odd, or wrongly written."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from dicom_files import dicom, ramp, saved, window
from hypothesis import given, settings
from hypothesis import strategies as st

from radcap.data.dicom.pixels import read_dicom, read_dicom_frame
from radcap.data.image.decode import ImageError

pydicom = pytest.importorskip("pydicom")

GOOD: dict[str, Any] = {
    "RescaleSlope": "2",
    "RescaleIntercept": "-1024",
    "WindowCenter": "1000",
    "WindowWidth": "500",
}


def with_texts(data: bytes, **texts: str) -> bytes:
    """A file whose attributes hold these texts, whatever such an attribute should hold."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    dataset = pydicom.dcmread(io.BytesIO(data))
    for name, text in texts.items():
        tag = tag_for_keyword(name)
        assert tag is not None
        dataset.add_new(tag, "LO", text)
    data = saved(dataset)
    for name in texts:
        tag = tag_for_keyword(name)
        assert tag is not None
        start = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        assert data.count(start + b"LO") == 1
        data = data.replace(start + b"LO", start + dictionary_VR(tag).encode())
    return data


def table(
    first: int, entries: list[int], *, bits: int = 16, vr: str = "US", data: Any = None
) -> Any:
    """An item of a lookup table, its first number written as US or SS."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.add_new(0x00283002, vr, [len(entries) % 65_536, first, bits])
    item.add_new(0x00283006, "OW", np.array(entries, "<u2").tobytes() if data is None else data)
    return item


def whole(stored: np.ndarray) -> np.ndarray:
    """Its real range as grey levels."""
    low, high = float(stored.min()), max(float(stored.max()), float(stored.min()) + 1e-9)
    return np.rint((stored - low) / (high - low) * 255).astype(np.uint8)


HU = ramp() * 2.0 - 1024
ODD = ("", "N/A", "15,0", "nan", "1e999")


@pytest.mark.parametrize("text", ODD)
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("RescaleSlope",), window(ramp() - 1024.0, 1000, 500)),
        (("RescaleIntercept",), window(2.0 * ramp(), 1000, 500)),
        (("RescaleSlope", "RescaleIntercept"), window(ramp() + 0.0, 1000, 500)),
        (("WindowCenter",), whole(HU)),
        (("WindowWidth",), whole(HU)),
        (("VOILUTFunction",), window(HU, 1000, 500)),
        (("PresentationLUTShape",), window(HU, 1000, 500)),
        (("NumberOfFrames",), window(HU, 1000, 500)),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else "",
)
def test_an_odd_attribute_leaves_what_the_others_say(
    names: tuple[str, ...], expected: np.ndarray, text: str
) -> None:
    file = with_texts(dicom(ramp(), **GOOD), **dict.fromkeys(names, text))
    assert np.abs(read_dicom(file).astype(int) - expected).max() <= 1


@settings(max_examples=25)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                *GOOD,
                *("VOILUTFunction", "PresentationLUTShape", "PixelAspectRatio"),
                *("BurnedInAnnotation", "RescaleType", "LossyImageCompressionRatio"),
            ]
        ),
        st.text("0123456789.,-+eE\\ N/A", max_size=12),
        min_size=1,
        max_size=4,
    )
)
def test_no_text_in_the_place_of_a_number_loses_a_picture(texts: dict[str, str]) -> None:
    assert read_dicom(with_texts(dicom(ramp(), **GOOD), **texts)).shape == (32, 64)


def test_of_several_windows_the_first_that_is_one() -> None:
    expected = window(HU, 1000, 500)
    for center, width in (
        ("N/A\\1000", "400\\500"),
        ("40\\1000", "0\\500"),
        ("\\1000", "400\\500"),
        ("1000\\40", "500"),
        ("1000", "500\\400"),
    ):
        texts = {"WindowCenter": center, "WindowWidth": width}
        found = read_dicom(with_texts(dicom(ramp(), **GOOD), **texts))
        assert np.abs(found.astype(int) - expected).max() <= 1, texts
    texts = {"WindowCenter": "N/A\\1000", "WindowWidth": "400"}
    assert np.array_equal(read_dicom(with_texts(dicom(ramp(), **GOOD), **texts)), whole(HU))


def test_tables_that_are_none_leave_the_next_or_the_window() -> None:
    from pydicom.dataset import Dataset

    shown = window(HU, 1000, 500)
    no_data, no_facts = table(0, [0, 9]), table(0, [0, 9])
    del no_data.LUTData, no_facts.LUTDescriptor
    broken = [
        Dataset(),
        no_data,
        no_facts,
        table(0, [0, 9], data=b"\0\0"),
        table(0, [0, 9], bits=0),
        table(0, [0, 9], bits=17),
        table(0, [], data=bytes(100)),  # 65,536 entries, it says
    ]
    good = table(0, [*range(0, 4000, 2)], bits=12)
    by_table = np.rint(np.clip(np.rint(HU), 0, 1999) * 2 / 4095 * 255)
    for item in broken:
        assert np.array_equal(read_dicom(dicom(ramp(), VOILUTSequence=[item], **GOOD)), shown)
        found = read_dicom(dicom(ramp(), VOILUTSequence=[item, good], **GOOD))
        assert np.abs(found - by_table).max() <= 1
        found = read_dicom(dicom(ramp(), ModalityLUTSequence=[item], **GOOD))
        assert np.array_equal(found, shown)
    for name in ("VOILUTSequence", "ModalityLUTSequence"):
        assert np.array_equal(read_dicom(dicom(ramp(), **{name: []}, **GOOD)), shown)


def test_settings_of_a_frame_where_those_of_the_file_are_odd() -> None:
    from pydicom.dataset import Dataset

    rescale, voi, group = Dataset(), Dataset(), Dataset()
    rescale.RescaleSlope, rescale.RescaleIntercept = "2", "-1024"
    voi.WindowCenter, voi.WindowWidth = "1000", "500"
    group.PixelValueTransformationSequence, group.FrameVOILUTSequence = [rescale], [voi]
    for where in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        file = with_texts(dicom(ramp(), **{where: [group]}), **dict.fromkeys(GOOD, "N/A"))
        assert np.abs(read_dicom(file).astype(int) - window(HU, 1000, 500)).max() <= 1


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_modality_tables_of_any_depth(bits: int) -> None:
    entries = [round(i / 2047 * (2**bits - 1)) for i in range(2048)]
    found = read_dicom(dicom(ramp(), ModalityLUTSequence=[table(0, entries, bits=bits)]))
    assert (
        np.abs(found - np.rint(np.array(entries) / (2**bits - 1) * 255).reshape(32, 64)).max() <= 1
    )


@settings(max_examples=40)
@given(first=st.integers(-2000, 2000), sequence=st.sampled_from(["Modality", "VOI"]))
def test_a_table_begins_below_zero_where_pixels_may(first: int, sequence: str) -> None:
    """However its first number is called: the header's PixelRepresentation tells."""
    entries = list(range(0, 65_536, 32))
    stored = ramp(-1024)
    expected = np.array(entries)[np.clip(stored.astype(int) - first, 0, 2047)]
    expected = whole(expected) + 0.0 if sequence == "Modality" else expected / 65_535 * 255
    for vr, number in (("SS", first), ("US", first % 65_536)):
        file = dicom(stored, **{f"{sequence}LUTSequence": [table(number, entries, vr=vr)]})
        assert np.abs(read_dicom(file) - expected).max() <= 1
    # Unsigned pixels that begin above the signed range.
    high = (stored.astype(int) + 40_000).astype(np.uint16)
    for vr, number in (("SS", first + 40_000 - 65_536), ("US", first + 40_000)):
        file = dicom(high, **{f"{sequence}LUTSequence": [table(number, entries, vr=vr)]})
        assert np.abs(read_dicom(file) - expected).max() <= 1


def test_a_table_after_rescaling_begins_below_zero_where_the_rescaled_may() -> None:
    entries = list(range(0, 65_536, 32))
    expected = np.rint(np.array(entries)[np.clip(np.arange(2048) - 24, 0, 2047)] / 65_535 * 255)
    rescale = {"RescaleSlope": "1", "RescaleIntercept": "-1024"}
    for vr, number in (("SS", -1000), ("US", 64_536)):
        file = dicom(
            ramp(dtype=np.uint16), VOILUTSequence=[table(number, entries, vr=vr)], **rescale
        )
        assert np.abs(read_dicom(file).ravel() - expected).max() <= 1
    # Signed pixels that no rescaled one is below zero of.
    rescale = {"RescaleSlope": "1", "RescaleIntercept": "32768"}
    for vr, number in (("SS", 33_792 - 65_536), ("US", 33_792)):
        file = dicom(ramp(1000), VOILUTSequence=[table(number, entries, vr=vr)], **rescale)
        assert np.abs(read_dicom(file).ravel() - expected).max() <= 1


def test_tables_of_8_bits_in_one_byte_each_or_in_two() -> None:
    entries = [*range(255, -1, -1)]
    stored = np.arange(2048).reshape(32, 64).astype(np.uint16) // 8
    packed = table(0, entries, bits=8, data=bytes(entries))
    for item in (table(0, entries, bits=8), packed):
        assert np.array_equal(read_dicom(dicom(stored, VOILUTSequence=[item])), 255 - stored)


def test_a_table_in_a_file_of_the_other_byte_order() -> None:
    from pydicom.uid import ExplicitVRBigEndian

    entries = list(range(0, 65_536, 32))
    data = np.array(entries, ">u2").tobytes()
    header = {"VOILUTSequence": [table(0, entries, data=data)]}
    dataset = pydicom.dcmread(io.BytesIO(dicom(ramp(dtype=np.uint16), **header)))
    dataset.PixelData = ramp(dtype=np.uint16).astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, little_endian=False, implicit_vr=False)
    expected = np.rint(np.array(entries) / 65_535 * 255).reshape(32, 64)
    assert np.abs(read_dicom(buffer.getvalue()) - expected).max() <= 1


@pytest.mark.parametrize("value", [-2000, -1, 63, -32_768])
def test_padding_is_below_zero_where_pixels_may_be(value: int) -> None:
    stored = ramp()
    stored[:8] = value
    plain = {
        "WindowCenter": "500",
        "WindowWidth": "2000",
        "PhotometricInterpretation": "MONOCHROME1",
    }
    expected = 255 - window(stored.astype(float), 500, 2000)
    expected[stored == value] = 0
    assert (expected[:8] == 0).all()
    for vr, number in (("SS", value), ("US", value % 65_536)):
        dataset = pydicom.dcmread(io.BytesIO(dicom(stored, **plain)))
        dataset.add_new("PixelPaddingValue", vr, number)
        assert np.array_equal(read_dicom(saved(dataset)), expected)
        # A range of them, either end first.
        for limit in (value - 40, value + 3):
            if limit < -32_768:
                continue
            dataset.add_new("PixelPaddingRangeLimit", vr, limit if vr == "SS" else limit % 65_536)
            low, high = sorted((value, limit))
            ranged = 255 - window(stored.astype(float), 500, 2000)
            ranged[(stored >= low) & (stored <= high)] = 0
            assert np.array_equal(read_dicom(saved(dataset)), ranged)


def test_padding_in_as_many_bits_as_pixels_have() -> None:
    stored = ramp(dtype=np.uint16) % 2000
    stored[:8] = 2096  # 63536, of which 12 bits count
    dataset = pydicom.dcmread(io.BytesIO(dicom(stored, bits=12)))
    dataset.add_new("PixelPaddingValue", "US", 63_536)
    grey = read_dicom(saved(dataset))
    assert (grey[:8] == 0).all()
    assert grey[8:].max() == 255
    small = (np.arange(2048).reshape(32, 64) % 100 - 50).astype(np.int8)
    small[:8] = -128
    for vr, number in (("SS", -128), ("US", 128), ("US", 65_408)):
        dataset = pydicom.dcmread(io.BytesIO(dicom(small, bits=8)))
        dataset.add_new("PixelPaddingValue", vr, number)
        grey = read_dicom(saved(dataset))
        assert (grey[:8] == 0).all() and 0 < int(grey[9, 1]) - int(grey[9, 0]) <= 4


@pytest.mark.parametrize("text", ["", "none"])
def test_padding_that_says_nothing(text: str) -> None:
    file = dicom(ramp(), **GOOD)
    names = ("PixelPaddingValue", "PixelPaddingRangeLimit")
    dataset = pydicom.dcmread(io.BytesIO(file))
    for name in names:
        dataset.add_new(name, "LO", text)
    assert np.array_equal(read_dicom(saved(dataset)), read_dicom(file))
    # All of it is no picture: then it is not meant so.
    dataset = pydicom.dcmread(io.BytesIO(dicom(ramp())))
    dataset.add_new("PixelPaddingValue", "SS", -5)
    dataset.add_new("PixelPaddingRangeLimit", "SS", 5000)
    assert np.array_equal(read_dicom(saved(dataset)), whole(ramp()))


def floats(values: np.ndarray, **header: Any) -> Any:
    """A dataset of FloatPixelData or DoubleFloatPixelData."""
    width = 8 * values.dtype.itemsize
    dataset = pydicom.dcmread(io.BytesIO(dicom(values, bits=width, **header)))
    name = "FloatPixelData" if width == 32 else "DoubleFloatPixelData"
    setattr(dataset, name, values.tobytes())
    for other in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(dataset, other)
    return dataset


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_padding_of_floats(dtype: Any) -> None:
    values = np.linspace(-1, 1, 2048).reshape(32, 64).astype(dtype)
    value = 1e30 if dtype is np.float32 else 1.1e300
    values[:8], values[8, :9] = dtype(value), np.nan
    prefix = "Float" if dtype is np.float32 else "DoubleFloat"
    expected = whole(values.ravel()[8 * 64 + 9 :])
    for header in ({}, {"PhotometricInterpretation": "MONOCHROME1"}):
        dataset = floats(values, **header)
        setattr(dataset, f"{prefix}PixelPaddingValue", value)
        grey = read_dicom(saved(dataset))
        assert (grey[:8] == 0).all() and (grey[8, :9] == 0).all()
        shown = 255 - grey if header else grey
        assert np.abs(shown.ravel()[8 * 64 + 9 :].astype(int) - expected).max() <= 1
        setattr(dataset, f"{prefix}PixelPaddingRangeLimit", 0.5)
        assert (read_dicom(saved(dataset))[values >= 0.5] == 0).all()
    # That of integers says nothing of floats.
    dataset = floats(np.where(values > 2, 3, values).astype(dtype))
    dataset.add_new("PixelPaddingValue", "SS", 3)
    assert (read_dicom(saved(dataset))[:8] == 255).all()


@pytest.mark.parametrize(("vr", "first"), [("SS", -100), ("US", 65_436)])
def test_the_first_colour_of_a_palette_may_be_below_zero(vr: str, first: int) -> None:
    stored = (np.arange(2048).reshape(32, 64) % 200 - 100).astype(np.int16)
    header = {"PhotometricInterpretation": "PALETTE COLOR"}
    dataset = pydicom.dcmread(io.BytesIO(dicom(stored, **header)))
    ramps = {"Red": np.arange(200), "Green": 200 - np.arange(200), "Blue": np.full(200, 7)}
    for number, (colour, levels) in enumerate(ramps.items()):
        dataset.add_new(0x00281101 + number, vr, [200, first, 8])
        setattr(dataset, f"{colour}PaletteColorLookupTableData", levels.astype(np.uint8).tobytes())
    expected = np.stack([levels[stored + 100] for levels in ramps.values()], -1)
    assert np.array_equal(read_dicom(saved(dataset)), expected)
    # In segments: one that lists all its entries.
    for colour, levels in ramps.items():
        data = bytes([0, 200, *levels.astype(np.uint8)])
        delattr(dataset, f"{colour}PaletteColorLookupTableData")
        setattr(dataset, f"Segmented{colour}PaletteColorLookupTableData", data)
    assert np.array_equal(read_dicom(saved(dataset)), expected)


def test_more_colours_than_a_byte_counts() -> None:
    stored = ramp(dtype=np.uint16)
    dataset = pydicom.dcmread(io.BytesIO(dicom(stored, PhotometricInterpretation="PALETTE COLOR")))
    levels = np.arange(2048) // 8
    for number, colour in enumerate(("Red", "Green", "Blue")):
        dataset.add_new(0x00281101 + number, "US", [2048, 0, 8])
        setattr(dataset, f"{colour}PaletteColorLookupTableData", levels.astype("u1").tobytes())
    assert np.array_equal(read_dicom(saved(dataset)), np.stack([stored // 8] * 3, -1))


def test_inverted_as_either_attribute_says() -> None:
    plain = window(HU, 1000, 500)
    for photometric, shape, expected in (
        ("MONOCHROME2", "IDENTITY", plain),
        ("MONOCHROME2", "INVERSE", 255 - plain),
        ("MONOCHROME1", "INVERSE", 255 - plain),
        ("MONOCHROME1", "IDENTITY", 255 - plain),
    ):
        header = {"PhotometricInterpretation": photometric, "PresentationLUTShape": shape}
        assert np.array_equal(read_dicom(dicom(ramp(), **GOOD, **header)), expected)


def test_colours_without_a_word_of_their_planes() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    dataset = pydicom.dcmread(io.BytesIO(dicom(rgb, bits=8)))
    for value in (None, 7):
        dataset.PlanarConfiguration = value
        assert np.array_equal(read_dicom(saved(dataset)), rgb)
    del dataset.PlanarConfiguration
    assert np.array_equal(read_dicom(saved(dataset)), rgb)
    planes = pydicom.dcmread(io.BytesIO(dicom(rgb, bits=8)))
    planes.PlanarConfiguration, planes.PixelData = 1, rgb.transpose(2, 0, 1).tobytes()
    assert np.array_equal(read_dicom(saved(planes)), rgb)


def test_frames_are_counted() -> None:
    assert read_dicom_frame(dicom(ramp()))[1] == 1
    frames = np.stack([ramp(), ramp(5)])
    data = dicom(frames, NumberOfFrames=2)
    shown, count = read_dicom_frame(data, frame=1)
    assert count == 2 and np.array_equal(shown, whole(ramp(5)))
    for text in ("", "N/A", "0", "-3", "2,0", "1e999"):
        shown, count = read_dicom_frame(with_texts(data, NumberOfFrames=text), frame=1)
        assert count == 2 and np.array_equal(shown, whole(ramp(5)))
        assert read_dicom_frame(with_texts(dicom(ramp()), NumberOfFrames=text))[1] == 1


@pytest.mark.parametrize(
    "name",
    [
        *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated"),
        *("BitsStored", "PixelRepresentation"),
    ],
)
def test_what_a_picture_needs_is_missed_by_its_name(name: str) -> None:
    for remove in (True, False):
        dataset = pydicom.dcmread(io.BytesIO(dicom(ramp())))
        if remove:
            delattr(dataset, name)
        else:
            setattr(dataset, name, None)
        with pytest.raises(ImageError) as caught:
            read_dicom(saved(dataset))
        assert str(caught.value) == f"a DICOM file that does not say its {name}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BitsAllocated", 12),
        ("BitsStored", 17),
        ("PixelRepresentation", 2),
        ("SamplesPerPixel", 2),
        ("PhotometricInterpretation", "GREY"),
    ],
)
def test_a_header_that_no_pixels_fit_is_told(name: str, value: Any) -> None:
    dataset = pydicom.dcmread(io.BytesIO(dicom(np.concatenate([ramp(), ramp()]))))
    dataset.Rows = 32
    setattr(dataset, name, value)
    with pytest.raises(ImageError) as caught:
        read_dicom(saved(dataset))
    assert str(caught.value) == "a DICOM file whose header does not describe its pixels"


def test_pixels_that_end_too_early() -> None:
    whole_file = dicom(ramp())
    for missing in (2, 1000, 4000):
        with pytest.raises(ImageError) as caught:
            read_dicom(whole_file[:-missing])
        assert caught.value.reason == "truncated"
