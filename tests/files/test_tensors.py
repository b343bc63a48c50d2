"""Files of tensors that claim to be more than they are, or do more than be read."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from bounds import bounded

from radcap.files.tensors import UNREADABLE, read_tensors
from radcap.model.captioner import ImageCaptioningModel
from radcap.model.weights import WeightsError, WeightsUnavailable, load_captioner_weights

TINY = ImageCaptioningModel(30, embed_dim=16, num_layers=1, num_heads=4)


def stride_0(*shape: int) -> torch.Tensor:
    return torch.zeros(1).expand(*shape)


def deflated(path: Path, content: Any, *, zeros: int = 0) -> None:
    """What torch.save writes, compressed, with a tensor of so many bytes in it."""
    stored = io.BytesIO()
    torch.save(content, stored)
    with zipfile.ZipFile(stored) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as to:
        for entry in source.infolist():
            with to.open(entry.filename, "w", force_zip64=True) as stream:
                stream.write(source.read(entry))
                if entry.filename.endswith("data/0"):
                    for _ in range(zeros >> 20):
                        stream.write(bytes(1 << 20))


def pickled(path: Path, body: bytes) -> None:
    """An archive such as torch.save's around a pickle."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", body)
        archive.writestr("archive/version", b"3\n")
        archive.writestr("archive/byteorder", b"little")


def repeatedly_encoded(times: int) -> bytes:
    """A pickle of eight bytes, written in hexadecimal so many times over."""
    call = b"c_codecs\nencode\n"
    text = call + b"X\x08\x00\x00\x00" + b"x" * 8 + b"X\x05\x00\x00\x00utf-8\x86R"
    return b"\x80\x02" + call * times + text + b"X\x03\x00\x00\x00hex\x86R" * times + b"."


def test_a_tensor_holds_the_numbers_that_it_claims(tmp_path: Path) -> None:
    state = TINY.state_dict()
    claims = {
        "embedding.weight": stride_0(30_522, 200_000),
        "fc_out.weight": stride_0(30_522, 200_000),
        "pos_encoder": stride_0(1, 2000, 200_000),
    }
    torch.save({**state, **claims}, tmp_path / "claims.bin")
    overlapping = {"a": torch.zeros(1_000_000).as_strided((1_000_000, 1_000_000), (1, 0))}
    torch.save(overlapping, tmp_path / "overlapping.bin")
    shared = torch.zeros(100_000)
    torch.save({str(n): shared for n in range(50)}, tmp_path / "shared.bin")
    nested = {"state": {0: {"exp_avg": stride_0(10**6, 10**6)}}}
    torch.save(nested, tmp_path / "nested.bin")
    with bounded(300):
        for name in ("claims", "overlapping", "shared", "nested"):
            with pytest.raises(UNREADABLE, match="more numbers than the file holds"):
                read_tensors(tmp_path / f"{name}.bin")
        with pytest.raises(WeightsError, match=r"claims\.bin: neither a safe PyTorch file"):
            load_captioner_weights(tmp_path / "claims.bin")


def test_nothing_grows_when_it_is_read(tmp_path: Path) -> None:
    deflated(tmp_path / "bomb.bin", {"a": torch.zeros(1)}, zeros=300 << 20)
    deflated(tmp_path / "small.bin", {"a": torch.zeros(1)})
    assert (tmp_path / "bomb.bin").stat().st_size < 400_000
    stored = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, stored)
    (tmp_path / "commented.bin").write_bytes(stored.getvalue()[:-2] + b"\x01\x00x")
    pickled(tmp_path / "hex.bin", repeatedly_encoded(27))
    pickled(tmp_path / "bytes.bin", b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.")
    pickled(tmp_path / "long.bin", b"\x80\x02" + b"]" * 2_000_000 + b".")
    pickled(tmp_path / "stack.bin", b"\x80\x04\x8c\x07_codecs\x8c\x06encode\x93.")
    laughs = (
        b"\x80\x02]"
        + b"q\x00"
        + b"".join(
            b"](" + b"h" + bytes([n]) * 1 + (b"h" + bytes([n])) * 9 + b"eq" + bytes([n + 1])
            for n in range(20)
        )
    )
    pickled(tmp_path / "laughs.bin", laughs + b".")
    pickled(tmp_path / "itself.bin", b"\x80\x02]q\x00h\x00a.")
    with bounded(300):
        for name in (
            "bomb",
            "small",
            "commented",
            "hex",
            "bytes",
            "long",
            "stack",
            "laughs",
            "itself",
        ):
            with pytest.raises(UNREADABLE):
                read_tensors(tmp_path / f"{name}.bin")


def test_the_form_before_torch_1_6_is_read_and_bounded(tmp_path: Path) -> None:
    state = {"a": torch.arange(6.0).view(2, 3), "b": torch.arange(3)}
    torch.save(state, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    read = read_tensors(tmp_path / "old.bin")
    assert all(torch.equal(read[name], tensor) for name, tensor in state.items())
    claims = {"a": stride_0(10**6, 10**6)}
    torch.save(claims, tmp_path / "claims.bin", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "old.bin").read_bytes()
    # A storage of 2 ** 31 - 1 numbers, which the file does not hold.
    forged = whole.replace(b"K\x06", b"J\xff\xff\xff\x7f", 1)
    assert forged != whole
    (tmp_path / "forged.bin").write_bytes(forged)
    hexed = repeatedly_encoded(27)
    begin = b"".join(pickle.dumps(one, 2) for one in (0x1950A86A20F9469CFC6C, 1001, {}))
    (tmp_path / "hex.bin").write_bytes(begin + hexed + pickle.dumps([], 2))
    with bounded(300):
        for name in ("claims", "forged", "hex"):
            with pytest.raises(UNREADABLE):
                read_tensors(tmp_path / f"{name}.bin")


def test_safetensors_that_claim_more(tmp_path: Path) -> None:
    for name, header in {
        "beyond": b'{"a":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}',
        "twice": b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        "deep": b"[" * 100_000,
    }.items():
        file = tmp_path / f"{name}.safetensors"
        file.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
        with bounded(300), pytest.raises(UNREADABLE):
            read_tensors(file)
    file.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with bounded(300), pytest.raises(UNREADABLE):
        read_tensors(file)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".safetensors"])
def test_a_pipe_or_a_device_for_weights_is_refused(tmp_path: Path, suffix: str) -> None:
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"zero{suffix}").symlink_to("/dev/zero")
    with bounded(300):
        for name in ("pipe", "zero"):
            with pytest.raises(WeightsUnavailable, match="neither a file nor a folder"):
                load_captioner_weights(tmp_path / f"{name}{suffix}")


def test_honest_files_are_read_as_before(tmp_path: Path) -> None:
    state = TINY.state_dict()
    torch.save(state, tmp_path / "a.bin")
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))], betas=(0.5, 0.9))
    optimizer.param_groups[0]["params"][0].grad = torch.ones(3)
    optimizer.step()
    torch.save(
        {"adam": optimizer.state_dict(), "words": ["a", 1, 2.5, None, True]}, tmp_path / "o.pt"
    )
    for file in (tmp_path / "a.bin", tmp_path / "a.safetensors"):
        read = read_tensors(file)
        assert read.keys() == state.keys()
        assert all(torch.equal(read[name], tensor) for name, tensor in state.items())
    read = read_tensors(tmp_path / "o.pt")
    assert read["words"] == ["a", 1, 2.5, None, True]
    assert torch.equal(read["adam"]["state"][0]["exp_avg"], torch.full((3,), 0.5))
    # A view of half of another entry, and one that is turned.
    whole = torch.arange(12.0).view(3, 4)
    torch.save({"whole": whole, "half": whole[:, ::2], "turned": whole.T}, tmp_path / "views.pt")
    assert torch.equal(read_tensors(tmp_path / "views.pt")["turned"], whole.T)
