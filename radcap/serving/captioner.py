"""Captions from Python: `Captioner.from_pretrained(source).caption(images)`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from radcap.config.schema import MAX_POSITIONS, RuntimeConfig
from radcap.errors import ConfigError, RadcapError
from radcap.forms.lists import place
from radcap.inference.captions import Caption, caption_attention, caption_images
from radcap.model.encoder import IMAGE_GRID
from radcap.model.weights import WeightsError
from radcap.runtime.select import open_runtime
from radcap.serving.pictures import Picture, not_a_picture, read_frame
from radcap.serving.precision import check_precision
from radcap.serving.pretrained import Pretrained, load_pretrained


class Captioner:
    """Captions pictures with a trained model. Not for diagnosis.

    Attributes:
        pretrained: the model, its tokenizer and where they came from.
    """

    def __init__(
        self,
        pretrained: Pretrained,
        *,
        device: str = "auto",
        precision: str = "fp32",
        batch_size: int = 16,
    ) -> None:
        """Bring a model to a device.

        Args:
            pretrained: see `load_pretrained`; its model moves to the device.
            device: auto (a TPU, else a GPU, else the CPU), cpu, cuda, tpu or xla_cpu.
            precision: fp32, or bf16, which changes captions now and then.
            batch_size: pictures captioned at a time.

        Raises:
            RadcapError: no such device here.
            ConfigError: an argument out of range.
        """
        check_precision(precision)
        if batch_size < 1:
            raise ConfigError(f"batch size {batch_size}: at least 1")
        config = RuntimeConfig(
            name=device,
            devices=None,
            precision=precision,
            threads=None,
            prefetch=1,
            compile=False,
        )
        if device == "cuda" and not torch.cuda.is_available():
            raise RadcapError("device cuda: torch finds no GPU here; take cpu or auto")
        self._runtime = open_runtime(config)
        self._runtime.check_batch_size(batch_size)
        self._model = pretrained.model
        place(self._model, self._runtime)
        self._batch_size = batch_size
        self.pretrained = pretrained

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        device: str = "auto",
        precision: str = "fp32",
        batch_size: int = 16,
    ) -> Captioner:
        """Load a trained captioner.

        Args:
            source: a run, a checkpoint, an exported folder, a weights file or a Hub id; see
                `radcap.serving.pretrained`.
            device, precision, batch_size: see the constructor.

        Raises:
            WeightsError: the weights are not there or not a captioner's.
        """
        return cls(
            load_pretrained(source), device=device, precision=precision, batch_size=batch_size
        )

    def caption(
        self,
        images: Picture | Iterable[Picture],
        *,
        num_beams: int = 1,
        max_len: int = 80,
        frame: int | None = None,
    ) -> list[str]:
        """Caption pictures.

        Args:
            images: paths (DICOM too), PIL images or arrays, also mixed; one of them for a list of
                one. See `radcap.serving.pictures.read_picture`.
            num_beams: 1 takes the likeliest word piece at every step; more search wider.
            max_len: word pieces at most.
            frame: of files with several, counted from 0; None for the first, with a warning.

        Returns:
            A caption for each, in their order.

        Raises:
            PictureError: one of them cannot be read.
            TypeError: something else than pictures.
        """
        pictures = _listed(images)
        captions = []
        for start in range(0, len(pictures), self._batch_size):
            chosen = pictures[start : start + self._batch_size]
            frames = [read_frame(one, frame=frame or 0) for one in chosen]
            for picture, read in zip(chosen, frames, strict=True):
                if frame is None and read.others:
                    warnings.warn(
                        f"{picture}: {read.others}, and the caption is of the first; frame= "
                        "chooses another, from 0",
                        stacklevel=2,
                    )
            pixels = np.stack([one.pixels for one in frames])
            captions += self.describe(pixels, num_beams=num_beams, max_len=max_len)
        return [caption.text for caption in captions]

    def describe(
        self, pixels: np.ndarray, *, num_beams: int = 1, max_len: int = 80
    ) -> list[Caption]:
        """Caption pictures that `read_picture` has read, at most a batch of them.

        Args:
            pixels: uint8 [N, 3, 224, 224].
            num_beams, max_len: see `caption`.

        Raises:
            WeightsError: the model's numbers grow beyond what the arithmetic can hold.
        """
        captions = caption_images(
            self._model,
            self._runtime,
            self.pretrained.tokenizer,
            torch.from_numpy(np.ascontiguousarray(pixels)),
            # A compiling device would compile anew for a batch of another size.
            batch_size=self._batch_size if self._runtime.compiles else len(pixels),
            max_new_tokens=max_len,
            num_beams=num_beams,
        )
        if not all(math.isfinite(caption.log_probability) for caption in captions):
            raise WeightsError(
                f"{self.pretrained.origin}: with these weights the arithmetic overflows, and "
                "there is no likeliest caption"
            )
        return captions

    def attention(self, pixels: np.ndarray, tokens: Sequence[str]) -> np.ndarray:
        """Where the decoder looks in a picture as it writes each word piece of a caption.

        It says what the decoder took from where, not why the caption is what it is: every image
        token has heard of its neighbours, and the encoder sees beyond a token's own square.

        Args:
            pixels: uint8 [3, 224, 224].
            tokens: word pieces, as `Caption.tokens`; of any caption.

        Returns:
            float32 [len(tokens), 7, 7]: cross-attention from the position that writes the word
            piece, the mean of all heads of all layers. A map sums to 1, and its squares lie over
            the picture as they stand, 32 pixels a side.

        Raises:
            ConfigError: more word pieces than the model has positions.
        """
        if len(tokens) > MAX_POSITIONS:
            raise ConfigError(f"{len(tokens)} word pieces: the model reads {MAX_POSITIONS} at most")
        tokenizer = self.pretrained.tokenizer
        ids = [tokenizer.convert_tokens_to_ids(piece) for piece in tokens]
        read = [tokenizer.cls_token_id, *ids][: len(tokens)]  # the last piece is written, not read
        width = max(len(read), 1)
        if self._runtime.compiles:  # one width for captions of most lengths, so that it does once
            width = min(-(-width // _ATTENTION_WIDTH) * _ATTENTION_WIDTH, MAX_POSITIONS)
        row = torch.zeros(1, width, dtype=torch.int32)  # no position sees what follows it
        row[0, : len(read)] = torch.tensor(read, dtype=torch.int32)
        weights = caption_attention(
            self._model,
            self._runtime,
            torch.from_numpy(np.ascontiguousarray(pixels))[None],
            row,
            batch_size=self._batch_size if self._runtime.compiles else 1,
        )
        return weights[0, : len(read)].unflatten(-1, (IMAGE_GRID, IMAGE_GRID)).numpy()


_ATTENTION_WIDTH = 32
_PICTURE = (str, PathLike, Image.Image, np.ndarray)
_NO_PICTURES = (bytes, bytearray, memoryview, Mapping, torch.Tensor)


def _listed(images: Picture | Iterable[Picture]) -> list[Picture]:
    """One picture or several as a list."""
    if isinstance(images, _PICTURE):
        return [images]
    # Bytes, a mapping or a tensor would give numbers, names or slices one by one.
    if isinstance(images, Iterable) and not isinstance(images, _NO_PICTURES):
        return list(images)
    raise not_a_picture(images)
