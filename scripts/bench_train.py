"""radcap's training step against the model card's, on the CPU and, where there is one, a GPU."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from bench_pairs import RATES_HEADER, machine_load, settled_clock, take_in_turn
from card_loop import VOCAB_SIZE, CardModel, card_step
from torch import Tensor

from radcap.config.schema import OptimizerConfig, RuntimeConfig
from radcap.data.collate import encode_captions, load_tokenizer
from radcap.data.phantom.grammar import draw_caption, draw_labels
from radcap.forms.lists import place
from radcap.host.console import say
from radcap.model.captioner import ImageCaptioningModel
from radcap.model.encoder import IMAGENET_MEAN, IMAGENET_STD
from radcap.runtime.select import open_runtime
from radcap.training.step import TrainStep

_TARGETS, _THREADS, _BATCHES = 32, 2, 4
_CPU_BATCH, _CPU_PAIRS = 16, 8
_GPU_BATCHES, _GPU_PAIRS, _GPU_STEPS = (16, 256), 5, 20
_RATE = 1e-4
_OPTIMIZER = OptimizerConfig(
    lr=_RATE, encoder_lr_scale=1.0, betas=[0.9, 0.999], eps=1e-8, weight_decay=0.0, clip_norm=None
)


class Rows(NamedTuple):
    """images uint8 [B, 3, 224, 224] of noise; tokens int32 [B, T + 1], captions of the phantom."""

    images: Tensor
    tokens: Tensor
    pad_id: int


def bench_train() -> None:
    """Print images a second of both, dropout on, the same rows for both.

    The card's side has its images normalised and on the device beforehand.
    """
    batches = draw_batches(_CPU_BATCH)
    ends = torch.cat([(rows.tokens != rows.pad_id).sum(dim=1) for rows in batches])
    say(
        f"training steps, {_TARGETS} target tokens, captions of the phantom data set: "
        f"{ends.float().mean():.1f} tokens with [CLS] and [SEP], at most {ends.max()}"
    )
    own, described = own_steps("cpu", batches)
    card = card_steps("cpu", batches)
    say(f"{described}; {machine_load()}; the card's loop in float32, eager; images/s")
    say(f"batch{RATES_HEADER}")
    card()
    own()
    found = take_in_turn(card, own, _CPU_PAIRS)
    say(f"{_CPU_BATCH:5d}{found.rates_text(_CPU_BATCH)}")
    if torch.cuda.is_available():
        _bench_gpu()


def _bench_gpu() -> None:
    for batch_size, compile in itertools.product(_GPU_BATCHES, (False, True)):
        batches = draw_batches(batch_size)
        own, described = own_steps("cuda", batches, compile=compile)
        card = card_steps("cuda", batches)
        # Every shape is compiled, then recorded.
        many_card, many_own = repeated(card, _GPU_STEPS), repeated(own, _GPU_STEPS)
        many_card()
        many_own()
        how = "by torch.compile" if compile else "eager"
        say(f"{described}, {how}; the card's loop in float32, eager; images/s")
        say(f"batch{RATES_HEADER}")
        found = take_in_turn(many_card, many_own, _GPU_PAIRS, settled_clock)
        say(f"{batch_size:5d}{found.rates_text(batch_size * _GPU_STEPS)}")
        del own, card, many_own, many_card
        gc.collect()
        torch.cuda.empty_cache()


def draw_batches(batch_size: int) -> list[Rows]:
    """Batches of rows of the phantom's labels in their frequencies, with their captions."""
    rng = np.random.default_rng(0)
    labels = draw_labels(_BATCHES * batch_size, rng)
    captions = [draw_caption(labels[i], rng) for i in rng.permutation(len(labels))]
    tokenizer = load_tokenizer()
    ids, _ = encode_captions(tokenizer, captions, _TARGETS)
    generator = torch.Generator().manual_seed(0)
    shape = (batch_size, 3, 224, 224)
    return [
        Rows(
            torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
            tokens,
            tokenizer.pad_token_id,
        )
        for tokens in torch.from_numpy(ids).split(batch_size)
    ]


def card_steps(device: str, batches: list[Rows]) -> Callable[[], None]:
    """The card's step on the next batch, at every call."""
    torch.manual_seed(0)
    model = CardModel().to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=_RATE)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    rows = itertools.cycle(
        [
            (((rows.images / 255 - mean) / std).to(device), rows.tokens.long().to(device))
            for rows in batches
        ]
    )
    return lambda: card_step(model, optimizer, *next(rows))


def own_steps(
    device: str, batches: list[Rows], *, compile: bool = False
) -> tuple[Callable[[], None], str]:
    """The trainer's step on the next batch, at every call, as it is by default on that device."""
    config = RuntimeConfig(
        name=device, devices=None, precision=None, threads=None, prefetch=1, compile=compile
    )
    runtime = open_runtime(config, threads=_THREADS)
    runtime.seed(0)
    model = ImageCaptioningModel(VOCAB_SIZE)
    place(model, runtime)
    optimizer = runtime.make_adam(model, _OPTIMIZER)
    step = TrainStep(model, optimizer, runtime, pad_id=batches[0].pad_id)
    rows = runtime.batches(itertools.cycle(batches))

    def train() -> None:
        _, images, tokens = next(rows)
        step(images, tokens)

    return train, runtime.describe(training=True)


def repeated(work: Callable[[], None], times: int) -> Callable[[], None]:
    def many() -> None:
        for _ in range(times):
            work()

    return many
