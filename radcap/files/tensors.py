"""Files of tensors that anybody may have made: none runs code, and none grows when it is read."""

from __future__ import annotations

import pickle
import pickletools
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from radcap.files.reading import check_regular, open_regular

# What the readers raise for bytes that are no weights: torch's unpickler runs into whatever the
# first wrong byte means to it.
UNREADABLE = (
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    struct.error,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    safetensors.SafetensorError,
)

_ZIP = b"PK\x03\x04"
_END_OF_ZIP = b"PK\x05\x06"
_END_BYTES = 22  # without a comment, behind which readers would look for another end
_LENGTH_BYTES = 8  # of the names of a file of safetensors, which come after it
_MOST_PICKLE_BYTES = 1_000_000  # a thousand tensors take 200 kB
_PICKLES = 5  # of a file of torch before 1.6: two numbers, the system, the content, storages' names
_MOST_VALUES = 200_000
_MOST_DEPTH = 16
_SHARED = 2  # times that a byte of the file may be part of a tensor: two may be one
_SLACK = 65_536
# torch's own list of what is safe to call holds encoders, by which a few bytes grow without end.
_MODULES = {"collections", "torch", "torch._utils", "torch.serialization", "torch.storage"}
_MODULES |= {"torch._tensor", "torch.nn.parameter"}


def read_tensors(path: Path) -> Any:
    """What a file holds, tensors on the CPU: safetensors by its suffix, else what torch.save wrote.

    Raises:
        OSError: it cannot be read, or is no file.
        UNREADABLE: it holds something else, or claims to hold more than it has bytes.
    """
    size = check_regular(path)
    if path.suffix == ".safetensors":
        with open_regular(path) as stream:
            if int.from_bytes(stream.read(_LENGTH_BYTES), "little") > _MOST_PICKLE_BYTES:
                raise ValueError("more names than a model has")
        return safetensors.torch.load_file(path)
    with open_regular(path) as stream:
        if stream.read(len(_ZIP)) == _ZIP:
            _check_archive(stream, size)
        else:
            stream.seek(0)
            for _ in range(_PICKLES):
                _check_pickle(stream)
    content = torch.load(path, map_location="cpu", weights_only=True)
    _check_held(content, size)
    return content


def _check_archive(stream: BinaryIO, size: int) -> None:
    """Raise ValueError for an archive that is more than its bytes: torch never compresses."""
    stream.seek(-_END_BYTES, 2)
    if stream.read(len(_END_OF_ZIP)) != _END_OF_ZIP:
        raise ValueError("an archive that does not end as torch's do")
    with zipfile.ZipFile(stream) as archive:
        entries = archive.infolist()
        if any(one.compress_type != zipfile.ZIP_STORED for one in entries):
            raise ValueError("a compressed archive")
        if sum(one.file_size for one in entries) > size:
            raise ValueError("an archive that claims to hold more than it has bytes")
        for one in entries:
            if one.filename.endswith(".pkl"):
                if one.file_size > _MOST_PICKLE_BYTES:
                    raise ValueError("more than tensors and plain values")
                with archive.open(one) as pickled:
                    _check_pickle(pickled)


def _check_pickle(stream: Any) -> None:
    """Raise ValueError for a pickle that calls more than what makes a tensor."""
    start = stream.tell()
    for operation, argument, place in pickletools.genops(stream):
        if operation.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"):
            raise ValueError("more than tensors and plain values")
        if operation.name == "GLOBAL" and str(argument).partition(" ")[0] not in _MODULES:
            raise ValueError(f"{str(argument)[:60]} is neither a tensor nor a plain value")
        if place is not None and place - start > _MOST_PICKLE_BYTES:
            raise ValueError("more than tensors and plain values")


def _check_held(content: Any, size: int) -> None:
    """Raise ValueError for tensors of more numbers than the file has bytes for, and for loops."""
    seen, claimed = 0, 0
    waiting = [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if seen > _MOST_VALUES or depth > _MOST_DEPTH:
            raise ValueError("too many values, or a value that refers to itself")
        if isinstance(value, dict):
            waiting += ((entry, depth + 1) for entry in value.values())
        elif isinstance(value, list | tuple | set | frozenset):
            waiting += ((entry, depth + 1) for entry in value)
        elif isinstance(value, Tensor) and value.is_meta:
            raise ValueError("a tensor without its numbers")
        elif isinstance(value, Tensor) and value.layout == torch.strided:
            num_bytes = value.numel() * value.element_size()
            claimed += num_bytes
            if num_bytes > value.untyped_storage().nbytes() or claimed > _SHARED * size + _SLACK:
                raise ValueError("tensors of more numbers than the file holds")
