"""Greedy decoding: cached against recomputed, where rows end, what is left behind."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from radcap.model.captioner import ImageCaptioningModel
from radcap.model.generate import decode_step, empty_cache

VOCAB_SIZE = 12
START, END, PAD = 1, 2, 0
IDS = {"start_id": START, "end_id": END, "pad_id": PAD}


def random_model(seed: int) -> ImageCaptioningModel:
    torch.manual_seed(seed)
    model = ImageCaptioningModel(VOCAB_SIZE, embed_dim=16, num_layers=2, num_heads=2)
    return model.double().eval()


def random_images(batch: int) -> Tensor:
    return torch.randint(0, 256, (batch, 3, 224, 224), dtype=torch.uint8)


@torch.no_grad()
def recomputed_caption(
    model: ImageCaptioningModel, image: Tensor, max_len: int, end_id: int = END
) -> list[int]:
    """One row, the whole prefix through the decoder at every step."""
    memory = model.encode_images(image[None])
    ids = [START]
    for _ in range(max_len):
        following = int(model.fc_out(model.decode(memory, torch.tensor([ids])))[0, -1].argmax())
        if following == end_id:
            break
        ids.append(following)
    return ids


@given(seed=st.integers(0, 2**31), batch=st.integers(1, 4), max_len=st.integers(1, 14))
@settings(max_examples=25)
def test_cached_ids_equal_recomputed_ones(seed: int, batch: int, max_len: int) -> None:
    model, images = random_model(seed), random_images(batch)
    rows = [recomputed_caption(model, image, max_len) for image in images]
    width = max(len(row) for row in rows)
    expected = [row + [PAD] * (width - len(row)) for row in rows]
    assert model.generate(images, max_len, **IDS).tolist() == expected


@torch.no_grad()
def test_cached_logits_equal_those_of_the_whole_prefix() -> None:
    model, tokens = random_model(0), torch.randint(1, VOCAB_SIZE, (3, 9))
    memory = torch.randn(3, 49, 16, dtype=torch.float64)
    whole = model.fc_out(model.decode(memory, tokens))
    memory_kv = model.decoder.project_memory(memory)
    cache = empty_cache(memory_kv, num_positions=20)
    for t in range(9):
        logits = decode_step(model, memory_kv, cache, tokens[:, t], torch.tensor([t]))
        torch.testing.assert_close(logits, whole[:, t])


@pytest.mark.parametrize("end_id", [2, 48, 96, 135, 200])
@pytest.mark.parametrize("read_every", [1, 3])
def test_each_row_ends_by_itself_and_the_loop_at_the_next_look_after_the_last(
    golden_model: ImageCaptioningModel, golden_images: Tensor, end_id: int, read_every: int
) -> None:
    captions = [recomputed_caption(golden_model, image, 20, end_id) for image in golden_images]
    assert len(captions[0]) != len(captions[1])
    width = max(map(len, captions))
    steps = []
    golden_model.fc_out.register_forward_hook(lambda *_: steps.append(1))
    ids = golden_model.generate(
        golden_images, 20, start_id=START, end_id=end_id, pad_id=PAD, read_every=read_every
    )
    assert ids.tolist() == [row + [PAD] * (width - len(row)) for row in captions]
    # All after START, and END unless the limit comes first.
    assert len(steps) == min(-(-width // read_every) * read_every, 20)


def test_mode_and_gradients_are_left_as_they_were() -> None:
    model = random_model(0).train()
    model.decoder.eval()
    images = random_images(1)
    modes = [module.training for module in model.modules()]
    statistics = {name: entry.clone() for name, entry in model.named_buffers()}
    ids = model.generate(images, 3, **IDS)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(entry, statistics[name]) for name, entry in model.named_buffers())
    assert torch.equal(ids, model.eval().generate(images, 3, **IDS))
    assert torch.is_grad_enabled()


def test_ids_come_from_the_tokenizer() -> None:
    model, images = random_model(3), random_images(2)
    tokenizer = SimpleNamespace(cls_token_id=START, sep_token_id=END, pad_token_id=PAD)
    found = model.generate(images, 6, tokenizer=tokenizer)
    assert torch.equal(found, model.generate(images, 6, **IDS))


def test_wrong_arguments_are_refused() -> None:
    model, images = random_model(0), random_images(1)
    for max_len in (0, 2001):
        with pytest.raises(ValueError, match="max_len"):
            model.generate(images, max_len, **IDS)
    with pytest.raises(ValueError, match="start_id 101 is outside the vocabulary of 12"):
        model.generate(images, 5)
