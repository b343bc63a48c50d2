"""Captions of images on a runtime's device, and where the decoder looks as it writes them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from math import isfinite

import torch
from torch import Tensor
from transformers import BertTokenizer

from radcap.model.attention import cross_attention
from radcap.model.captioner import ImageCaptioningModel
from radcap.runtime.base import Runtime


@dataclass(frozen=True)
class Caption:
    """A caption of an image. Not for diagnosis.

    Attributes:
        text: the caption.
        log_probability: natural logarithm of its probability, its end included where it has one.
        tokens: its word pieces.
        seconds: of the image's share in its batch.
        alternatives: with several beams the other captions they found, the likeliest first.
    """

    text: str
    log_probability: float
    tokens: tuple[str, ...]
    seconds: float = 0.0
    alternatives: tuple[Caption, ...] = ()


def caption_images(
    model: ImageCaptioningModel,
    runtime: Runtime,
    tokenizer: BertTokenizer,
    images: Tensor,
    *,
    batch_size: int,
    max_new_tokens: int,
    num_beams: int = 1,
) -> list[Caption]:
    """Caption a batch of images on the runtime's device.

    On a compiling device, batches of one size run the same graphs, and their rows are spread over
    the devices like those of a data batch: keep to one `batch_size` there.

    Args:
        model: on the runtime's device.
        tokenizer: gives the special tokens and the captions' text.
        images: uint8 [N, 3, 224, 224] on the host.
        batch_size: at least N; filled up with black images.
        max_new_tokens: longest caption generated.
        num_beams: see `ImageCaptioningModel.generate`.

    Returns:
        The captions of the N images. A log-probability is not finite where the weights are too
        large for the arithmetic.
    """
    start = time.perf_counter()
    with runtime.purpose("generate"), runtime.arithmetic():
        found = model.search(
            runtime.upload_rows(_filled_up(images, batch_size)),
            max_len=max_new_tokens,
            num_beams=num_beams,
            start_id=tokenizer.cls_token_id,
            end_id=tokenizer.sep_token_id,
            pad_id=tokenizer.pad_token_id,
            step_boundary=runtime.step_boundary,
            read_every=runtime.read_every,
        )
    seconds = (time.perf_counter() - start) / max(len(images), 1)
    captions = []
    for beams in zip(*(part[: len(images)].tolist() for part in found), strict=True):
        best, *others = (
            Caption(
                str(tokenizer.decode(ids, skip_special_tokens=True)),
                log_prob,
                tuple(tokenizer.convert_ids_to_tokens(ids[1 : 1 + length])),
                seconds,
            )
            for ids, length, log_prob in zip(*beams, strict=True)
        )
        # A small vocabulary has too few captions for all beams.
        captions.append(
            replace(best, alternatives=tuple(o for o in others if isfinite(o.log_probability)))
        )
    return captions


@torch.no_grad()
def caption_attention(
    model: ImageCaptioningModel,
    runtime: Runtime,
    images: Tensor,
    tokens: Tensor,
    *,
    batch_size: int,
) -> Tensor:
    """Where the decoder looks while it reads captions, on the runtime's device.

    On a compiling device, keep to one `batch_size` and one T.

    Args:
        model: on the runtime's device, in evaluation mode.
        images: uint8 [N, 3, 224, 224] on the host.
        tokens: int32 [N, T] on the host, the start token first.
        batch_size: at least N; filled up with black images.

    Returns:
        float32 [N, T, 49] on the CPU: cross-attention, the mean of all heads of all layers.
    """
    with runtime.purpose("generate"), runtime.arithmetic():
        memory = model.encode_images(runtime.upload_rows(_filled_up(images, batch_size)))
        ids = runtime.upload_rows(_filled_up(tokens, batch_size))
        weights = cross_attention(model, memory, ids).float().mean(dim=(0, 2))
    return weights.cpu()[: len(images)]


def _filled_up(rows: Tensor, batch_size: int) -> Tensor:
    """`batch_size` rows in all, zeros below those given."""
    return torch.cat([rows, rows.new_zeros(batch_size - len(rows), *rows.shape[1:])])
