"""Captions from Python: pictures of every kind, batches, beams, arithmetic."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from radcap import Captioner
from radcap.errors import ConfigError, RadcapError
from radcap.model.attention import cross_attention
from radcap.model.captioner import ImageCaptioningModel
from radcap.model.weights import WeightsError
from radcap.serving.captioner import Caption
from radcap.serving.pictures import PictureError, read_picture


@pytest.fixture(scope="module")
def captioner(weights_file: Path) -> Captioner:
    return Captioner.from_pretrained(weights_file, device="cpu", batch_size=2)


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.integers(0, 40 * (i + 1), (30, 40 + i), dtype=np.uint8) for i in range(5)]


def test_paths_images_and_arrays_in_any_mix(
    captioner: Captioner, pictures: list[np.ndarray], tmp_path: Path
) -> None:
    expected = captioner.caption(pictures, max_len=6)
    assert len(expected) == 5
    assert all(isinstance(text, str) and len(text.split()) > 1 for text in expected)
    files = [tmp_path / f"{number}.png" for number in range(5)]
    for file, picture in zip(files, pictures, strict=True):
        Image.fromarray(picture).save(file)
    mixed = [files[0], str(files[1]), Image.open(files[2]), pictures[3], files[4]]
    assert captioner.caption(mixed, max_len=6) == expected
    assert captioner.caption(iter(mixed), max_len=6) == expected
    for one in mixed:
        assert captioner.caption(one, max_len=6) in [[text] for text in expected]
    assert captioner.caption([]) == []
    with pytest.raises(PictureError, match=r"none\.png"):
        captioner.caption([files[0], tmp_path / "none.png"])


def test_of_several_frames_the_first_is_told_and_any_other_can_be_had(
    captioner: Captioner, pictures: list[np.ndarray], tmp_path: Path
) -> None:
    frames = [Image.fromarray(picture[:30, :40]) for picture in (pictures[0], pictures[4])]
    file, single = tmp_path / "two.tif", tmp_path / "one.tif"
    frames[0].save(file, save_all=True, append_images=frames[1:])
    frames[1].save(single)
    with pytest.warns(UserWarning) as told:
        first = captioner.caption([single, file], max_len=6)
    assert [str(one.message) for one in told] == [
        f"{file}: the file holds several frames, and the caption is of the first; frame= chooses "
        "another, from 0"
    ]
    assert told[0].filename == __file__
    assert first == captioner.caption([frames[1], frames[0]], max_len=6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert captioner.caption(file, frame=0, max_len=6) == first[1:]
        assert captioner.caption(file, frame=1, max_len=6) == first[:1]


@pytest.mark.parametrize(
    ("nothing", "said"),
    [
        (None, "not NoneType"),
        (5, "not int"),
        ({"image": "a.png"}, "not dict"),
        (b"\x89PNG", "not bytes; Image.open(io.BytesIO(data)) makes a PIL image"),
        (
            torch.zeros(3, 40, 40),
            "not Tensor; tensor.permute(1, 2, 0).cpu().numpy() makes an array",
        ),
        (torch.zeros(2, 3, 40, 40), "not Tensor; tensor.permute(1, 2, 0)"),
        ([None], "not NoneType"),
        ([torch.zeros(3, 40, 40)], "not Tensor; tensor.permute(1, 2, 0)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_picture_is_named_with_its_remedy(
    captioner: Captioner, nothing: Any, said: str
) -> None:
    with pytest.raises(TypeError) as caught:
        captioner.caption(nothing)
    text = str(caught.value)
    assert text.startswith("a picture is a path, a PIL image or an array, not ")
    assert said in text and "\n" not in text


def test_arrays_of_another_order_are_told_how_to_be_turned(captioner: Captioner) -> None:
    for shape, said in (
        ((3, 40, 50), "array.transpose(1, 2, 0) puts its channels last"),
        ((2, 40, 50, 3), "list(array) gives its pictures one by one"),
    ):
        with pytest.raises(PictureError) as caught:
            captioner.caption(np.zeros(shape, np.uint8))
        assert str(caught.value) == (
            f"ndarray: an array of shape {list(shape)}: not [H, W], [H, W, 1], [H, W, 3] or "
            f"[H, W, 4]; {said}"
        )


def test_a_caption_is_what_the_model_generates(
    captioner: Captioner, pictures: list[np.ndarray], small_model: ImageCaptioningModel
) -> None:
    model = captioner.pretrained.model
    pixels = np.stack([read_picture(picture) for picture in pictures[:2]])
    ids = model.generate(torch.from_numpy(pixels), max_len=7)
    tokenizer = captioner.pretrained.tokenizer
    expected = tokenizer.batch_decode(ids, skip_special_tokens=True)
    found = captioner.describe(pixels, max_len=7)
    assert [caption.text for caption in found] == expected
    for caption, row in zip(found, ids, strict=True):
        assert list(caption.tokens) == tokenizer.convert_ids_to_tokens(row[1:].tolist())
        assert caption.log_probability < 0
        assert caption.seconds > 0
        assert caption.alternatives == ()


def test_beams_bring_alternatives_the_likeliest_first(
    captioner: Captioner, pictures: list[np.ndarray]
) -> None:
    pixels = read_picture(pictures[0])[None]
    (greedy,) = captioner.describe(pixels, max_len=5)
    (found,) = captioner.describe(pixels, max_len=5, num_beams=4)
    assert len(found.alternatives) == 3
    ranked: list[Caption] = [found, *found.alternatives]
    totals = [caption.log_probability for caption in ranked]
    assert totals == sorted(totals, reverse=True)
    assert len({caption.tokens for caption in ranked}) == 4
    assert found.log_probability >= greedy.log_probability - 1e-5
    assert captioner.caption(pictures[0], max_len=5, num_beams=4) == [found.text]


def test_attention_is_that_of_the_position_that_writes_the_word_piece(
    captioner: Captioner, pictures: list[np.ndarray]
) -> None:
    model, tokenizer = captioner.pretrained.model, captioner.pretrained.tokenizer
    pixels = read_picture(pictures[0])
    (caption,) = captioner.describe(pixels[None], max_len=6)
    maps = captioner.attention(pixels, caption.tokens)
    assert maps.shape == (6, 7, 7) and maps.dtype == np.float32
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), 1, rtol=1e-5)
    pieces = [tokenizer.cls_token, *caption.tokens]
    with torch.no_grad():
        memory = model.encode_images(torch.from_numpy(pixels.copy())[None])
        for position in range(6):  # what it has read then, and no more
            ids = torch.tensor([tokenizer.convert_tokens_to_ids(pieces[: position + 1])])
            expected = cross_attention(model, memory, ids)[:, 0, :, -1].mean(dim=(0, 1))
            np.testing.assert_allclose(maps[position].ravel(), expected, rtol=1e-4)
    # Of a caption as long as several widths of the graph, and of none.
    long = captioner.attention(pixels, [*caption.tokens, *["knee"] * 60])
    np.testing.assert_allclose(long[:6], maps, rtol=1e-4)
    assert long.shape == (66, 7, 7)
    assert captioner.attention(pixels, []).shape == (0, 7, 7)
    with pytest.raises(ConfigError, match="2001 word pieces"):
        captioner.attention(pixels, ["knee"] * 2001)


def test_other_arithmetic_stays_near(
    weights_file: Path, captioner: Captioner, pictures: list[np.ndarray]
) -> None:
    other = Captioner.from_pretrained(weights_file, device="cpu", precision="bf16")
    pixels = np.stack([read_picture(picture) for picture in pictures])
    near = other.describe(pixels, max_len=1)
    exact = captioner.describe(pixels, max_len=1)
    for one, two in zip(near, exact, strict=True):
        assert one.log_probability != two.log_probability
        assert one.log_probability == pytest.approx(two.log_probability, abs=0.2)
    looked = captioner.attention(pixels[0], near[0].tokens)
    np.testing.assert_allclose(other.attention(pixels[0], near[0].tokens), looked, atol=0.02)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_here_is_refused(weights_file: Path) -> None:
    with pytest.raises(RadcapError, match="device cuda: torch finds no GPU here"):
        Captioner.from_pretrained(weights_file, device="cuda")


def test_wrong_arguments_are_refused(weights_file: Path) -> None:
    for options, message in [
        ({"precision": "fp16"}, "precision fp16: there are fp32 and bf16"),
        ({"precision": "int8"}, "int8 is no more, use bf16"),
        ({"batch_size": 0}, "batch size 0: at least 1"),
    ]:
        with pytest.raises(ConfigError, match=message):
            Captioner.from_pretrained(weights_file, **{"device": "cpu", **options})


def test_arithmetic_that_overflows_is_told(
    small_model: ImageCaptioningModel, tmp_path: Path, pictures: list[np.ndarray]
) -> None:
    state = dict(small_model.state_dict())
    state["fc_out.weight"] = torch.full_like(state["fc_out.weight"], 3e38)
    state["decoder.layers.1.norm3.bias"] = torch.full((16,), 9.0)
    torch.save(state, tmp_path / "huge.bin")
    captioner = Captioner.from_pretrained(tmp_path / "huge.bin", device="cpu")
    with pytest.raises(WeightsError, match="with these weights the arithmetic overflows"):
        captioner.caption(pictures[0], max_len=3)
