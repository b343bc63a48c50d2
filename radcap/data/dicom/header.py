"""What making a data set asks of a DICOM file's header: whose picture it is, and little else.

Patients are named in headers: no value goes into a message, and only what is asked for by its
keyword is given out as text.
"""

from __future__ import annotations

import hashlib
import io
import logging
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from radcap.data.image.decode import ImageError
from radcap.errors import ConfigError
from radcap.files.names import shown

# Value representations that are text or numbers, of a length that fits into a caption.
_PLAIN = (
    *("AS", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "SH", "SL", "SS", "ST"),
    *("SV", "TM", "UC", "UI", "UL", "US", "UT", "UV"),
)
# They say who it is. Names of persons have a representation of their own, which is not plain.
_OF_PERSONS = ("PatientID", "OtherPatientIDs", "IssuerOfPatientID", "PatientBirthDate")


@dataclass(frozen=True)
class Header:
    """What a header says.

    patient, study: SHA-256 of PatientID and StudyInstanceUID, 64 hexadecimal digits; None where the
        header has none.
    num_frames: pictures in the file, at least 1.
    is_burned_in: whether it says that the pixels hold text that tells who it is.
    texts: keyword -> text, of the keywords that were asked for and are there.
    """

    patient: str | None = None
    study: str | None = None
    num_frames: int = 1
    is_burned_in: bool = False
    texts: Mapping[str, str] = field(default_factory=dict)


def hashed(text: str) -> str | None:
    """SHA-256 of a name that is not to be kept; None of one that is empty."""
    text = text.strip(" \0\t\r\n")
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() if text else None


def check_keyword(keyword: str) -> None:
    """Refuse a keyword that names no text of a header, or says who the patient is.

    Raises:
        ConfigError: it is none, or there is no extra `dicom` here.
    """
    try:
        from pydicom.datadict import dictionary_VR, tag_for_keyword
    except ImportError:
        raise ConfigError("DICOM headers need pip install 'radcap[dicom]'") from None
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ConfigError(f"{shown(keyword)} is no keyword of DICOM, such as Modality")
    if keyword in _OF_PERSONS or dictionary_VR(tag) == "PN":
        raise ConfigError(f"{keyword} says who a person is; it does not go into a data set")
    if dictionary_VR(tag) not in _PLAIN:
        raise ConfigError(f"{keyword} holds no text")


def read_header(data: bytes, keywords: Collection[str] = ()) -> Header:
    """Read the header of a file that `radcap.data.dicom.pixels.read_dicom` has decoded.

    That is where a file that grows without bound when it is read is refused.

    Args:
        data: the file.
        keywords: those whose text is wanted; each has passed `check_keyword`.

    Raises:
        ImageError: the header is damaged.
    """
    import pydicom

    tags = ["PatientID", "StudyInstanceUID", "NumberOfFrames", "BurnedInAnnotation", *keywords]
    log = logging.getLogger("pydicom")
    before, log.disabled = log.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(
                io.BytesIO(data), force=True, stop_before_pixels=True, specific_tags=tags
            )
            values = {tag: _text_of(dataset.get(tag)) for tag in tags}
    # A damaged header makes pydicom raise anything, and its words may name the patient.
    except Exception:  # noqa: BLE001
        raise ImageError("a damaged DICOM header") from None
    finally:
        log.disabled = before
    frames = values["NumberOfFrames"]
    return Header(
        hashed(values["PatientID"]),
        hashed(values["StudyInstanceUID"]),
        max(1, int(frames)) if frames.isdecimal() and len(frames) < 10 else 1,
        values["BurnedInAnnotation"].upper() == "YES",
        {keyword: values[keyword] for keyword in keywords if values[keyword]},
    )


def _text_of(value: object) -> str:
    """A value as text on one line, several with commas between; empty where there is none."""
    if value is None:
        return ""
    several = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return ", ".join(" ".join(str(one).split()) for one in several)
