"""What makes a training step fast changes no curve by more than another dropout seed does."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from radcap.config.schema import OptimizerConfig
from radcap.data.collate import encode_captions, load_tokenizer
from radcap.data.phantom.grammar import draw_caption, draw_labels
from radcap.data.phantom.images import draw
from radcap.forms.lists import place
from radcap.model.captioner import ImageCaptioningModel
from radcap.runtime.native import NativeRuntime
from radcap.training.step import TrainStep

STEPS, BATCH, BATCHES, WINDOW = 200, 4, 25, 20
RATE, VOCABULARY = 1e-3, 30_522
OPTIMIZER = OptimizerConfig(
    lr=RATE, encoder_lr_scale=1.0, betas=[0.9, 0.999], eps=1e-8, weight_decay=0.0, clip_norm=None
)


class Rows(NamedTuple):
    images: Tensor
    tokens: Tensor
    pad_id: int = 0


@pytest.fixture(scope="module")
def batches() -> list[Rows]:
    """Phantom rows, 100 in all."""
    rng = np.random.default_rng(0)
    labels = draw_labels(BATCH * BATCHES, rng)
    rng.shuffle(labels)  # type: ignore[arg-type]
    captions = [draw_caption(one, rng) for one in labels]
    tokens = torch.from_numpy(encode_captions(load_tokenizer(), captions, 32)[0])
    greys = torch.from_numpy(np.stack([draw(one, rng) for one in labels]))
    images = greys[:, None].repeat(1, 3, 1, 1)
    return [Rows(*both) for both in zip(images.split(BATCH), tokens.split(BATCH), strict=True)]


def make_model() -> ImageCaptioningModel:
    torch.manual_seed(0)
    return ImageCaptioningModel(VOCABULARY, 32, 1, 4, batch_norm_momentum=0.1).train()


def plain(batches: list[Rows], dropout_seed: int) -> list[float]:
    """Eager float32, all positions, torch's own dropout, cross-entropy and Adam."""
    model = make_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    torch.manual_seed(dropout_seed)
    losses = []
    for step in range(STEPS):
        images, tokens, _ = batches[step % BATCHES]
        logits = model(images, tokens[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten().long(), ignore_index=0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def fast(batches: list[Rows]) -> list[float]:
    """The trainer's own step in bf16, as a CPU that multiplies it is told by default."""
    runtime = NativeRuntime("cpu", precision="fp32", threads=1, training_precision="bf16")
    model = make_model()
    place(model, runtime)
    step = TrainStep(model, runtime.make_adam(model, OPTIMIZER), runtime, pad_id=0)
    torch.manual_seed(3)
    given = runtime.batches(batches[i % BATCHES] for i in range(STEPS))
    return [step(images, tokens)["loss"].item() for _, images, tokens in given]


def windows(losses: list[float]) -> Tensor:
    return torch.tensor(losses).view(-1, WINDOW).mean(dim=1)


@pytest.mark.slow
def test_two_hundred_steps_are_those_of_plain_float32(batches: list[Rows]) -> None:
    """Means of twenty losses, against float32 with two dropout seeds.

    Their largest distance, 0.02 of losses that fall from 9.8 to 2.3, is chance. The trainer's
    curve has a seed of its own and must not be twice as far from the middle of the two.
    """
    ours = windows(fast(batches))
    one, other = windows(plain(batches, 1)), windows(plain(batches, 2))
    noise = (one - other).abs().max().item()
    assert 0.001 < noise < 0.1
    assert (ours - (one + other) / 2).abs().max().item() <= 2 * noise
    assert ours[-1] < 0.3 * ours[0]
