"""A clone without git-lfs has pointers in the place of its large files: every reader says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from radcap.data.image.decode import ImageError, decode_image
from radcap.data.open import open_source
from radcap.diagnosis.dataset import encoder_weights
from radcap.errors import RadcapError
from radcap.model.captioner import ImageCaptioningModel
from radcap.model.weights import load_encoder_weights
from radcap.serving.pictures import read_picture
from radcap.serving.pretrained import load_pretrained
from radcap.training.run.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

SAID = "a git-lfs pointer in the place of the file; git lfs pull fetches the file itself"
POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)


def tiny_model() -> ImageCaptioningModel:
    torch.manual_seed(0)
    return ImageCaptioningModel(30_522, embed_dim=8, num_layers=1, num_heads=4)


def told(read: Callable[[], object], *names: str | Path) -> str:
    """What a reader refuses with: one line that names a file and says what it is."""
    with pytest.raises((RadcapError, ValueError)) as caught:
        read()
    text = str(caught.value)
    assert text.endswith(SAID) and "\n" not in text
    assert all(str(name) in text for name in names), text
    return text


@pytest.mark.parametrize("name", ["x.bin", "x.pt", "x.safetensors"])
def test_weights(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(POINTER)
    told(lambda: load_pretrained(file), file)
    told(lambda: load_encoder_weights(tiny_model(), str(file)), file)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_an_exported_folder(tmp_path: Path, name: str) -> None:
    safetensors.torch.save_file(tiny_model().state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"num_heads": 4}))
    assert load_pretrained(tmp_path).architecture.num_heads == 4
    (tmp_path / name).write_bytes(POINTER)
    told(lambda: load_pretrained(tmp_path), tmp_path / name)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "manifest.json"])
def test_a_checkpoint(tmp_path: Path, name: str) -> None:
    path = save_checkpoint(tmp_path, Checkpoint(3, {"a": torch.ones(2)}, {}, {}, {}))
    (path / name).write_bytes(POINTER)
    told(lambda: load_checkpoint(path), path, name)


def test_parquet(tmp_path: Path) -> None:
    file = tmp_path / "alignment" / "train-00000-of-00001.parquet"
    file.parent.mkdir()
    file.write_bytes(POINTER)
    told(lambda: open_source(split="train", path=str(tmp_path), config="alignment"), file)


def test_pictures(tmp_path: Path) -> None:
    for name in ("a.png", "a.dcm"):
        (tmp_path / name).write_bytes(POINTER)
        told(lambda file=tmp_path / name: read_picture(file), tmp_path / name)  # type: ignore[misc]
    with pytest.raises(ImageError) as caught:  # of a row of a data set: a short reason to count by
        decode_image(POINTER)
    assert caught.value.reason == "git-lfs pointer"
    # Other texts are none, nor is a file that only begins like one.
    for content in (POINTER.replace(b"git-lfs.github", b"example"), POINTER + bytes(2000)):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(RadcapError, match="not a picture"):
            read_picture(tmp_path / "a.png")


def test_the_doctor(tmp_path: Path) -> None:
    from radcap.config.compose import compose

    file = tmp_path / "encoder.pth"
    file.write_bytes(POINTER)
    config = compose([f"model.encoder_weights={file}"])
    [check] = encoder_weights(config)
    assert check.found == f"{file}: {SAID}"
    shutil.copyfile(__file__, file)
    [check] = encoder_weights(config)
    assert SAID not in check.found
