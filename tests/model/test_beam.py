"""Beam search against one that recomputes every prefix, and against all captions there are."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from radcap.model.beam import beam_search
from radcap.model.captioner import ImageCaptioningModel

VOCAB_SIZE = 12
START, END, PAD = 1, 2, 0
IDS = {"start_id": START, "end_id": END, "pad_id": PAD}


def random_model(seed: int, vocab_size: int = VOCAB_SIZE) -> ImageCaptioningModel:
    """A model that looks at its images: a random encoder gives all of them the same memory."""
    torch.manual_seed(seed)
    model = ImageCaptioningModel(vocab_size, embed_dim=16, num_layers=2, num_heads=2)
    pattern = torch.randn(8, 49, 16, dtype=torch.float64) * 3
    model.encode_images = lambda images: pattern[images[:, 0, 0, 0].long()]
    with torch.no_grad():
        for layer in model.decoder.layers:
            layer.multihead_attn.out_proj.weight *= 3
        model.fc_out.bias[END] += 0.3  # captions of several lengths
    return model.double().eval()


def random_images(batch: int) -> Tensor:
    """Image i is the i-th of the model's patterns."""
    return torch.arange(batch, dtype=torch.uint8)[:, None, None, None].expand(batch, 3, 224, 224)


@torch.no_grad()
def next_log_probs(model: ImageCaptioningModel, memory: Tensor, ids: list[int]) -> Tensor:
    """[V], the whole prefix through the decoder."""
    return model.fc_out(model.decode(memory, torch.tensor([ids])))[0, -1].log_softmax(dim=-1)


@torch.no_grad()
def recomputed_beams(
    model: ImageCaptioningModel, image: Tensor, max_len: int, num_beams: int
) -> list[tuple[list[int], float]]:
    """The `num_beams` best (ids without START, log-probability), likeliest first."""
    memory = model.encode_images(image[None])
    beams: list[tuple[list[int], float, bool]] = [([], 0.0, False)]
    for _ in range(max_len):
        candidates = []
        for ids, total, ended in beams:
            if ended:
                candidates.append((ids, total, True))
                continue
            for token, gained in enumerate(next_log_probs(model, memory, [START, *ids]).tolist()):
                longer = ids if token == END else [*ids, token]
                candidates.append((longer, total + gained, token == END))
        beams = sorted(candidates, key=lambda beam: -beam[1])[:num_beams]
        if all(ended for _, _, ended in beams):
            break
    return [(ids, total) for ids, total, _ in beams]


@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 3),
    max_len=st.integers(1, 8),
    num_beams=st.integers(2, 6),
)
@settings(max_examples=15)
def test_beams_equal_those_of_recomputed_prefixes(
    seed: int, batch: int, max_len: int, num_beams: int
) -> None:
    model, images = random_model(seed), random_images(batch)
    found = model.search(images, max_len, num_beams=num_beams, **IDS)
    for row, image in enumerate(images):
        expected = recomputed_beams(model, image, max_len, num_beams)
        lengths = [len(ids) for ids, _ in expected]
        assert found.lengths[row].tolist() == lengths
        width = found.ids.shape[2] - 1
        padded = [[START, *ids] + [PAD] * (width - len(ids)) for ids, _ in expected]
        assert found.ids[row].tolist() == padded
        totals = torch.tensor([total for _, total in expected])
        torch.testing.assert_close(found.log_probs[row], totals, atol=1e-4, rtol=0)


@torch.no_grad()
def test_as_many_beams_as_words_find_the_likeliest_of_all_captions_of_two() -> None:
    model, images = random_model(4, vocab_size=9), random_images(2)
    found = model.search(images, 2, num_beams=9, **IDS)
    for row, image in enumerate(images):
        memory = model.encode_images(image[None])
        first = next_log_probs(model, memory, [START])
        scores = {(): float(first[END])}
        for one, two in itertools.product([t for t in range(9) if t != END], range(9)):
            second = next_log_probs(model, memory, [START, one])
            caption = (one,) if two == END else (one, two)
            scores[caption] = float(first[one] + second[two])
        best = sorted(scores, key=lambda caption: -scores[caption])[:9]
        kept = [
            tuple(ids[1 : 1 + n])
            for ids, n in zip(found.ids[row].tolist(), found.lengths[row].tolist(), strict=True)
        ]
        assert kept == best


def test_one_beam_is_greedy() -> None:
    model, images = random_model(7), random_images(3)
    greedy = model.search(images, 10, **IDS)
    beam = beam_search(model, images, 10, num_beams=1, **IDS)
    assert torch.equal(greedy.ids, beam.ids)
    assert torch.equal(greedy.lengths, beam.lengths)
    torch.testing.assert_close(greedy.log_probs, beam.log_probs)
    assert torch.equal(model.generate(images, 10, **IDS), greedy.ids[:, 0])


@torch.no_grad()
def test_greedy_log_probability_is_that_of_the_caption_and_its_end() -> None:
    model, images = random_model(2), random_images(4)
    found = model.search(images, 6, **IDS)
    assert len(set(found.lengths[:, 0].tolist())) > 1
    for row, image in enumerate(images):
        memory = model.encode_images(image[None])
        ids = found.ids[row, 0, : 1 + int(found.lengths[row, 0])].tolist()
        ending = [END] if len(ids) <= 6 else []
        total = sum(
            float(next_log_probs(model, memory, ids[:t])[token])
            for t, token in enumerate([*ids, *ending])
            if t
        )
        assert float(found.log_probs[row, 0]) == pytest.approx(total, abs=1e-4)


def test_generate_gives_the_likeliest_beam_alone_and_no_column_of_the_others() -> None:
    model, images = random_model(3), random_images(2)
    found = model.search(images, 8, num_beams=4, **IDS)
    ids = model.generate(images, 8, num_beams=4, **IDS)
    width = 1 + int(found.lengths[:, 0].max())
    assert torch.equal(ids, found.ids[:, 0, :width])


def test_no_image_gives_no_caption() -> None:
    model = random_model(0)
    for num_beams in (1, 3):
        assert model.generate(random_images(0), 4, num_beams=num_beams, **IDS).shape == (0, 1)


@pytest.mark.parametrize("num_beams", [0, VOCAB_SIZE + 1])
def test_wrong_numbers_of_beams_are_refused(num_beams: int) -> None:
    with pytest.raises(ValueError, match="num_beams must be in"):
        random_model(0).generate(random_images(1), 4, num_beams=num_beams, **IDS)
