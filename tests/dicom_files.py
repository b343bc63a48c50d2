"""DICOM files made by the tests, whose picture is known."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

PATIENT = "Doe^Jane^Secret"


def dicom(stored: np.ndarray, *, bits: int = 16, **header: Any) -> bytes:
    """A file of [H, W], [frames, H, W] with NumberOfFrames, or [H, W, 3] pixels."""
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(None, Dataset(), file_meta=meta, preamble=b"\0" * 128)
    dataset.PatientName, dataset.PatientID = PATIENT, "SECRET-ID"
    rgb = stored.shape[-1] == 3
    dataset.Rows, dataset.Columns = stored.shape[-3:-1] if rgb else stored.shape[-2:]
    dataset.SamplesPerPixel = 3 if rgb else 1
    if rgb:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "RGB" if rgb else "MONOCHROME2"
    dataset.BitsAllocated = 8 * stored.dtype.itemsize
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelData = stored.tobytes()
    for name, value in header.items():
        setattr(dataset, name, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def saved(dataset: Any) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def ramp(start: int = 0, dtype: type = np.int16) -> np.ndarray:
    """[32, 64], start to start + 2047."""
    return (start + np.arange(2048)).reshape(32, 64).astype(dtype)


def window(hu: np.ndarray, center: float, width: float) -> np.ndarray:
    """DICOM PS3.3 C.11.2.1.2.1, as grey levels."""
    return np.rint(255 * np.clip((hu - (center - 0.5)) / (width - 1) + 0.5, 0, 1)).astype(np.uint8)
