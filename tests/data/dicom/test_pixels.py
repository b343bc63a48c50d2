"""DICOM: files made here, whose picture is known, and those that pydicom ships."""

from __future__ import annotations

import io
import re
import sys
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bounds import bounded
from dicom_files import dicom, ramp, saved, window
from PIL import Image

from radcap.data.dicom.pixels import is_dicom, read_dicom
from radcap.data.image.decode import ImageError
from radcap.serving.pictures import PictureError, read_picture

pydicom = pytest.importorskip("pydicom")

SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"


def test_rescale_and_the_first_window_of_several() -> None:
    data = dicom(
        ramp(),
        RescaleSlope="2",
        RescaleIntercept="-1024",
        WindowCenter=["40", "600"],
        WindowWidth=["400", "1600"],
    )
    hu = ramp().astype(float) * 2 - 1024
    assert np.abs(read_dicom(data).astype(int) - window(hu, 40, 400)).max() <= 1
    # Values that fill a part of the window only are not stretched over all greys.
    narrow = dicom(ramp(1000)[:, :1].copy(), WindowCenter="2000", WindowWidth="4000")
    assert np.array_equal(read_dicom(narrow), window(ramp(1000)[:, :1].astype(float), 2000, 4000))


def test_without_a_window_the_real_range_without_its_padding() -> None:
    stored = ramp(300)
    stored[0, :8] = -2000
    grey = read_dicom(dicom(stored, PixelPaddingValue=-2000))
    assert (grey[0, :8] == 0).all()
    assert (grey[0, 8], grey[-1, -1]) == (0, 255)
    assert abs(int(grey[16, 0]) - 128) <= 1
    for width in ("0", "-4"):  # windows that the standard does not allow
        assert np.array_equal(
            read_dicom(dicom(ramp(), WindowCenter="10", WindowWidth=width)),
            read_dicom(dicom(ramp())),
        )


def test_monochrome1_is_inverted() -> None:
    options = {"WindowCenter": "1024", "WindowWidth": "2048"}
    plain = read_dicom(dicom(ramp(), **options))
    inverted = read_dicom(dicom(ramp(), PhotometricInterpretation="MONOCHROME1", **options))
    assert np.array_equal(inverted, 255 - plain)
    assert plain[0, 0] == 0


def test_sigmoid_window_and_lookup_table() -> None:
    data = dicom(ramp(), WindowCenter="1000", WindowWidth="500", VOILUTFunction="SIGMOID")
    expected = 255 / (1 + np.exp(-4 * (ramp().astype(float) - 1000) / 500))
    assert np.abs(read_dicom(data) - expected).max() <= 1

    from pydicom.dataset import Dataset

    item = Dataset()
    item.LUTDescriptor = [4, 1000, 16]
    item.LUTData = np.array([0, 65_535, 16_384, 32_768], dtype="<u2").tobytes()
    values = np.array([[0, 1000], [1001, 1002], [1003, 2000]], dtype=np.uint16)
    grey = read_dicom(dicom(values, VOILUTSequence=[item]))
    assert grey.tolist() == [[0, 0], [255, 64], [128, 128]]
    # Of the table's whole output range, however little of it the picture uses.
    item.LUTDescriptor, item.LUTData = [256, 0, 12], np.arange(256, dtype="<u2").tobytes()
    narrow = read_dicom(dicom(ramp()[:2, :50].copy().astype(np.uint16), VOILUTSequence=[item]))
    assert (narrow.min(), narrow.max()) == (0, round(113 * 255 / 4095))


@pytest.mark.parametrize(
    ("function", "share"),
    [
        ("LINEAR", lambda x: (x - (1000 - 0.5)) / (500 - 1) + 0.5),
        ("LINEAR_EXACT", lambda x: (x - 1000) / 500 + 0.5),
        ("SIGMOID", lambda x: 1 / (1 + np.exp(-4 * (x - 1000) / 500))),
    ],
)
def test_windows_of_integers_and_of_floats(function: str, share: Callable) -> None:
    options = {"WindowCenter": "1000", "WindowWidth": "500", "VOILUTFunction": function}
    expected = np.rint(255 * np.clip(share(ramp().astype(float)), 0, 1)).astype(int)
    assert np.array_equal(read_dicom(dicom(ramp(), **options)), expected)
    dataset = pydicom.dcmread(io.BytesIO(dicom(ramp(dtype=np.float32), bits=32, **options)))
    dataset.FloatPixelData = dataset.PixelData
    for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(dataset, name)
    assert np.array_equal(read_dicom(saved(dataset)), expected)


def test_the_narrowest_window_is_a_step() -> None:
    grey = read_dicom(dicom(ramp(), WindowCenter="1000", WindowWidth="1"))
    assert np.array_equal(grey, np.where(ramp() > 999, 255, 0))


def test_padding_is_black_whatever_black_is() -> None:
    stored = ramp(dtype=np.uint16)
    stored[0], stored[1] = 4095, 4000
    picture = {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 4095}
    grey = read_dicom(dicom(stored, **picture))
    assert (grey[0] == 0).all()
    assert (grey[1, 0], grey[2, 0]) == (0, 255)
    grey = read_dicom(dicom(stored, PixelPaddingRangeLimit=3990, **picture))
    assert (grey[:2] == 0).all()
    assert (grey[2, 0], grey[-1, -1]) == (255, 0)
    window = {"WindowCenter": "1024", "WindowWidth": "2048"}
    assert (read_dicom(dicom(ramp(), PixelPaddingValue=2047, **window))[-1, -2:] == [255, 0]).all()


def test_frames_with_settings_of_their_own() -> None:
    from pydicom.dataset import Dataset

    def group(**settings: Any) -> Dataset:
        rescale, voi, outer = Dataset(), Dataset(), Dataset()
        rescale.RescaleSlope, rescale.RescaleIntercept = settings["slope"], "0"
        voi.WindowCenter, voi.WindowWidth = settings["center"], "1000"
        outer.PixelValueTransformationSequence = [rescale]
        outer.FrameVOILUTSequence = [voi]
        return outer

    frames = np.stack([ramp(), ramp()])
    data = dicom(
        frames,
        NumberOfFrames=2,
        PerFrameFunctionalGroupsSequence=[
            group(slope="1", center="500"),
            group(slope="2", center="1500"),
        ],
    )
    first, second = (read_dicom(data, frame=number) for number in (0, 1))
    assert np.abs(first.astype(int) - window(ramp().astype(float), 500, 1000)).max() <= 1
    assert np.abs(second.astype(int) - window(2.0 * ramp(), 1500, 1000)).max() <= 1
    with pytest.raises(ImageError, match="no frame 2: the frames are 0 to 1"):
        read_dicom(data, frame=2)
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.WindowCenter = dataset.WindowWidth = None  # there, but empty
    assert np.array_equal(read_dicom(saved(dataset), frame=1), second)


def test_colour_is_kept() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert np.array_equal(read_dicom(dicom(rgb, bits=8)), rgb)


def test_without_preamble_extension_or_stated_syntax() -> None:
    shipped = (SHIPPED / "MR_small_implicit.dcm").read_bytes()
    assert is_dicom(shipped[:132])
    meta_length = int.from_bytes(shipped[140:144], "little")
    stripped = shipped[144 + meta_length :]
    assert is_dicom(stripped)
    assert np.array_equal(read_dicom(stripped), read_dicom(shipped))
    assert not is_dicom(b"\x89PNG\r\n\x1a\n" + bytes(200))


def test_without_the_extra_a_file_is_told_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(PictureError, match=r"CT_small.dcm: .*pip install 'radcap\[dicom\]'"):
        read_picture(SHIPPED / "CT_small.dcm")


def test_a_picture_too_large_is_refused_by_its_header() -> None:
    data = dicom(ramp(), Rows=20_000, Columns=20_000)
    with pytest.raises(ImageError, match="too large"):
        read_dicom(data)


@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000"])
def test_compressed_data_larger_than_its_header_says(kind: str) -> None:
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000, JPEGBaseline8Bit

    stream = io.BytesIO()
    options = {"no_jp2": True} if kind == "JPEG2000" else {}
    Image.new("L", (120, 70), 128).save(stream, kind, **options)
    dataset = pydicom.dcmread(io.BytesIO(dicom(np.zeros((70, 120), np.uint8), bits=8)))
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if kind == "JPEG" else JPEG2000
    dataset.PixelData = encapsulate([stream.getvalue()])
    dataset["PixelData"].is_undefined_length = True
    assert read_dicom(saved(dataset)).shape == (70, 120)
    dataset.Rows = dataset.Columns = 64
    with pytest.raises(ImageError, match="too large"):
        read_dicom(saved(dataset), max_pixels=64 * 64)


def test_a_deflated_file_is_not_inflated_without_end() -> None:
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    dataset = pydicom.dcmread(io.BytesIO(dicom(ramp())))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert np.array_equal(read_dicom(saved(dataset)), read_dicom(dicom(ramp())))
    dataset.add_new(0x00091001, "OB", bytes(30_000_000))
    assert len(saved(dataset)) < 100_000
    with pytest.raises(ImageError, match="too large"):
        read_dicom(saved(dataset), max_pixels=3_000_000)


def test_a_large_picture_takes_little_more_memory_than_its_file() -> None:
    data = dicom(np.zeros((2000, 3000), np.uint16), WindowCenter="500", WindowWidth="1000")
    rgb = dicom(np.zeros((2000, 3000, 3), np.uint8), bits=8)
    for file in (data, rgb):
        read_dicom(file)
        tracemalloc.start()
        read_dicom(file)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 3 * len(file) + 60e6


def test_compressed_copies_show_the_same_picture() -> None:
    plain = read_picture(SHIPPED / "MR_small.dcm")
    names = ("RLE", "bigendian", "expb", "implicit", "jp2klossless", "jpeg_ls_lossless")
    for name in names:
        assert np.array_equal(read_picture(SHIPPED / f"MR_small_{name}.dcm"), plain), name
    bands = read_picture(SHIPPED / "SC_rgb_rle.dcm")
    assert bands[0, 0, 0] > 200
    assert bands[1, 0, 0] < 50
    for name in ("SC_rgb_rle_16bit", "SC_rgb_rle_32bit", "SC_ybr_full_422_uncompressed"):
        difference = read_picture(SHIPPED / f"{name}.dcm").astype(int) - bands
        assert np.abs(difference).mean() < 2, name


# Of the files that pydicom ships without pixels: plans, reports, directories, names in all scripts.
NO_PICTURE = "a DICOM file without a picture"
REFUSED = {
    "JPEG-lossy.dcm": (
        "compressed as JPEG Extended (Process 2 and 4), which cannot be decoded here: its data is "
        "damaged, or of a kind that no decoder of radcap[dicom] knows"
    ),
    "JPEG2000-embedded-sequence-delimiter.dcm": (
        "its compressed data is said to have 3,722,445,056 x 1,024 pixels: too large"
    ),
    "MR_truncated.dcm": "the picture ends too early",
    "meta_missing_tsyntax.dcm": "a DICOM file that does not say its Rows",
    "nested_priv_SQ.dcm": "a DICOM file that does not say its Rows",
    "no_meta.dcm": "not a picture that radcap can read",  # its first byte is not its own
}


def test_every_shipped_file_is_a_picture_or_a_line_without_the_patient() -> None:
    names = sorted(path for path in SHIPPED.parent.rglob("*.dcm"))
    names += [path for path in SHIPPED.rglob("*") if path.name.startswith(("DICOMDIR", "IM0"))]
    assert len(names) > 150
    pictures = 0
    for path in names:
        try:
            pixels = read_picture(path)
        except PictureError as error:
            assert "\n" not in str(error)
            reason = str(error).removeprefix(f"{path}: ")
            assert reason == REFUSED.get(path.name, NO_PICTURE)
            if reason == NO_PICTURE:
                assert b"\xe0\x7f\x10\x00" not in path.read_bytes()
            for value in identifying_values(path):
                assert value not in reason, path
        else:
            assert pixels.shape == (3, 224, 224)
            pictures += 1
    assert pictures >= 50


def identifying_values(path: Path) -> list[str]:
    """What a file's header says of the patient, of four characters at least."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            header = pydicom.dcmread(path, force=True, stop_before_pixels=True)
            names = [name for name in header.dir() if re.match("Patient|Institution|.*Date", name)]
            values = [str(header.get(name)) for name in names]
        except Exception:  # noqa: BLE001 a header that is damaged on purpose
            return []
    return [value for value in values if len(value) >= 4]


@pytest.mark.parametrize("text", [b"DOE^JANE 19610203 X", b"DOE^JANE\n1961-02-03"])
def test_a_transfer_syntax_that_is_none_is_not_quoted(text: bytes) -> None:
    good = dicom(ramp())
    data = good.replace(b"1.2.840.10008.1.2.1\0", text + b"\0")
    assert len(data) == len(good) and data != good
    with pytest.raises(ImageError) as caught:
        read_dicom(data)
    assert str(caught.value).startswith("compressed as an unknown transfer syntax, which cannot")


def test_the_patient_is_never_named(
    capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    good = dicom(ramp(), PatientBirthDate="19700101")
    damaged = [good[:n] for n in range(140, len(good), 97)]
    # Values that pydicom complains of, quoting them.
    damaged.append(good.replace(b"SECRET-ID", b"SECRET\\ID").replace(b"19700101", b"SECRET!!"))
    for data in damaged:
        try:
            read_dicom(data)
        except ImageError as error:
            assert "ecret" not in str(error).lower()
            assert error.__cause__ is None
    said = "".join(capfd.readouterr()) + "".join(str(warning.message) for warning in recwarn)
    assert "secret" not in said.lower()
    assert "jane" not in said.lower()


@pytest.mark.parametrize("megabytes", [40, 390])
def test_a_deflated_file_does_not_grow_as_no_picture_does(megabytes: int) -> None:
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    dataset = pydicom.dcmread(io.BytesIO(dicom(ramp())))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.add_new(0x00091001, "OB", bytes(megabytes << 20))
    data = saved(dataset)
    del dataset
    assert len(data) < megabytes << 11
    with bounded(100), pytest.raises(ImageError, match="too large"):
        read_dicom(data)
