"""Captions of images alone, filled up to a batch of one size."""

from __future__ import annotations

import pytest
import torch
from evaluation.known import looking_model
from torch import Tensor
from transformers import BertTokenizer

from radcap.data.collate import load_tokenizer
from radcap.inference.captions import caption_attention, caption_images
from radcap.model.captioner import ImageCaptioningModel
from radcap.runtime.native import NativeRuntime

IMAGES = torch.randint(
    256, (3, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizer:
    return load_tokenizer()


@pytest.fixture(scope="module")
def model() -> ImageCaptioningModel:
    return looking_model(num_layers=1, num_heads=8)


@pytest.fixture(scope="module")
def runtime() -> NativeRuntime:
    return NativeRuntime("cpu", precision="fp32", threads=1)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_filled_up_batch_gives_the_captions_of_its_images(
    model: ImageCaptioningModel, runtime: NativeRuntime, tokenizer: BertTokenizer, num_beams: int
) -> None:
    options = {"max_new_tokens": 5, "num_beams": num_beams}
    expected = model.search(IMAGES, 5, num_beams=num_beams)
    for batch_size in (3, 5):
        found = caption_images(model, runtime, tokenizer, IMAGES, batch_size=batch_size, **options)
        assert len(found) == 3
        for one, ids, log_probs in zip(found, expected.ids, expected.log_probs, strict=True):
            beams = [one, *one.alternatives]
            assert len(beams) == num_beams
            assert [b.text for b in beams] == [
                tokenizer.decode(row, skip_special_tokens=True) for row in ids
            ]
            assert [b.log_probability for b in beams] == pytest.approx(log_probs.tolist(), rel=1e-5)


def test_attention_is_of_the_images_alone(
    model: ImageCaptioningModel, runtime: NativeRuntime
) -> None:
    tokens = torch.randint(
        200, 30_000, (3, 6), dtype=torch.int32, generator=torch.Generator().manual_seed(1)
    )

    def look(images: Tensor, tokens: Tensor, batch_size: int) -> Tensor:
        return caption_attention(model, runtime, images, tokens, batch_size=batch_size)

    found = look(IMAGES, tokens, 4)
    assert found.shape == (3, 6, 49) and found.dtype == torch.float32
    for number in range(3):
        one = slice(number, number + 1)
        torch.testing.assert_close(look(IMAGES[one], tokens[one], 1)[0], found[number])
