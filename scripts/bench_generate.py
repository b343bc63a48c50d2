"""Captions by radcap's cached greedy search against the model card's loop, on CPU and GPU."""

from __future__ import annotations

import torch
from bench_pairs import RATES_HEADER, machine_load, settled_clock, take_in_turn
from card_loop import VOCAB_SIZE, CardModel
from torch import Tensor

from radcap.host.console import say
from radcap.model.captioner import ImageCaptioningModel

_BATCH, _THREADS = 16, 2
_LENGTHS = {32: 5, 80: 3}  # new tokens -> pairs of timings
_START, _END = 101, 102  # [CLS] and [SEP] of bert-base-uncased, as in the card's loop


@torch.no_grad()
def card_generate(model: CardModel, images: Tensor, max_len: int) -> Tensor:
    """The card's loop: the whole prefix at every step, the output layer on its last position.

    Args:
        model: in evaluation mode.
        images: normalised floats [B, 3, 224, 224].
        max_len: new tokens at most.

    Returns:
        int64 ids [B, 1 + T], [CLS] first.
    """
    memory = model.encode_images(images)
    ids = torch.full((len(images), 1), _START, device=images.device)
    for _ in range(max_len):
        following = model.fc_out(model.decode(memory, ids)[:, -1]).argmax(dim=-1)
        if bool((following == _END).all()):
            break
        ids = torch.cat([ids, following[:, None]], dim=1)
    return ids


def bench_generate() -> None:
    """Print images a second of both, batch 16, float32, the card's sizes, 2 threads, or a GPU.

    Both have the same weights and must write the same ids; with random weights no caption ends
    before its limit.
    """
    torch.set_num_threads(_THREADS)
    _compare(torch.device("cpu"), f"{_THREADS} threads, {machine_load()}")
    if torch.cuda.is_available():
        _compare(torch.device("cuda"), torch.cuda.get_device_name())


def _compare(device: torch.device, described: str) -> None:
    torch.manual_seed(0)
    card = CardModel().eval()
    ours = ImageCaptioningModel(VOCAB_SIZE).eval()
    ours.load_state_dict(_own_names(card))
    card.to(device)
    ours.to(device)
    images = torch.randn(_BATCH, 3, 224, 224).to(device)
    read_every = 8 if device.type == "cuda" else 1  # as of the runtimes
    say(f"captions of {_BATCH} images, float32, {described}: images/s")
    say(f"tokens{RATES_HEADER}")
    for length, pairs in _LENGTHS.items():

        def theirs(length: int = length) -> Tensor:
            return card_generate(card, images, length)

        def own(length: int = length) -> Tensor:
            return ours.generate(
                images, max_len=length, start_id=_START, end_id=_END, read_every=read_every
            )

        found = own()
        assert found.shape[1] == 1 + length, "a caption ended early: the loops were cut short"
        same = (found == theirs().cpu()).all(dim=1).sum()
        # A GPU adds in another order for other shapes: a near tie may fall otherwise there.
        assert device.type == "cuda" or same == _BATCH, "other ids than the card's loop"
        note = "" if same == _BATCH else f"   {same} of {_BATCH} rows the same"
        timed = take_in_turn(theirs, own, pairs, settled_clock)
        say(f"{length:6d}{timed.rates_text(_BATCH)}{note}")


def _own_names(card: CardModel) -> dict[str, Tensor]:
    """The card's weights; radcap's encoder has torchvision's `features` under its own name."""
    return {
        name.replace("encoder.", "encoder.features.", 1) if name.startswith("encoder.") else name: w
        for name, w in card.state_dict().items()
    }
