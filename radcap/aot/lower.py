"""`python -m radcap.aot.lower`: record the trainer's programs as StableHLO.

Runs in a process of its own; the environment has to name one virtual CPU device (see
`radcap.aot.jobs`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from radcap.aot.scopes import name_modules
from radcap.aot.trace import Program, TracingRuntime
from radcap.config.compose import from_yaml
from radcap.config.schema import Config
from radcap.data.collate import VOCABULARY
from radcap.forms.lists import place
from radcap.model.captioner import ImageCaptioningModel
from radcap.model.encoder import IMAGE_SIZE
from radcap.model.generate import begin_search, greedy_step
from radcap.training.build import make_model
from radcap.training.step import TrainStep, validation_sums


def lower(config: Config, num_devices: int, batch_size: int) -> Iterator[tuple[str, Program]]:
    """Record the programs of `config.preflight.graph`.

    Args:
        config: the run's; its encoder weights are not looked at.
        num_devices: over which the batch is spread.
        batch_size: rows of a global batch.

    Yields:
        Name and program: `train`, or `eval`, or `start` and `token` for captions.
    """
    graph = config.preflight.graph
    runtime = TracingRuntime(
        num_devices=num_devices,
        precision=config.runtime.precision or "bf16",
        forward="decoding" if graph == "generate" else "loss",
    )
    with torch.device("meta"):
        model = make_model(config.model, vocab_size=len(_vocabulary()))
    place(model, runtime)
    name_modules(model)
    record = {"train": _train, "eval": _eval, "generate": _generate}[graph]
    yield from record(config, runtime, model, batch_size)


def _train(
    config: Config, runtime: TracingRuntime, model: ImageCaptioningModel, batch_size: int
) -> Iterator[tuple[str, Program]]:
    optimizer = runtime.make_adam(model, config.optimizer, encoder=model.image_parameters())
    step = TrainStep(
        model,
        optimizer,
        runtime,
        pad_id=_vocabulary()["[PAD]"],
        accumulate=config.trainer.accumulate,
        clip_norm=config.optimizer.clip_norm,
    )
    state = [*model.parameters(), *model.buffers(), *_tensors(optimizer.state_dict()["state"])]
    watched = runtime.watch(state)
    scalars = step(*_batch(config, runtime, batch_size))
    yield "train", runtime.program(scalars.values(), watched)


@torch.no_grad()
def _eval(
    config: Config, runtime: TracingRuntime, model: ImageCaptioningModel, batch_size: int
) -> Iterator[tuple[str, Program]]:
    model.eval()
    batch, pad_id = _batch(config, runtime, batch_size), _vocabulary()["[PAD]"]
    scalars = validation_sums(model, runtime, *batch, pad_id=pad_id)
    yield "eval", runtime.program(scalars.values())


@torch.no_grad()
def _generate(
    config: Config, runtime: TracingRuntime, model: ImageCaptioningModel, batch_size: int
) -> Iterator[tuple[str, Program]]:
    model.eval()
    images, _ = _batch(config, runtime, batch_size)
    max_len = config.data.max_length
    start_id, end_id, pad_id = (_vocabulary()[word] for word in ("[CLS]", "[SEP]", "[PAD]"))
    with runtime.arithmetic():
        state = begin_search(model, images, max_len, start_id=start_id, pad_id=pad_id)
        yield "start", runtime.program(_tensors(state))

        def stand_in(tensor: Tensor) -> Tensor:
            """What the start leaves on the devices for the first token."""
            like = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
            return runtime.upload_rows(like) if len(like) == batch_size else runtime._upload(like)

        state = tree_map(stand_in, state)
        watched = runtime.watch([*_tensors(state.cache), state.written])
        state = greedy_step(model, state, end_id=end_id, pad_id=pad_id)
        done = state.ended.all()
        new = (state.ids, state.lengths, state.log_probs, state.ended, state.position, done)
        yield "token", runtime.program(new, watched)


def _batch(config: Config, runtime: TracingRuntime, batch_size: int) -> tuple[Tensor, Tensor]:
    with torch.device("meta"):
        images = torch.empty(batch_size, 3, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)
        tokens = torch.empty(batch_size, config.data.max_length + 1, dtype=torch.int32)
    return runtime.upload_rows(images), runtime.upload_rows(tokens)


def _tensors(tree: object) -> list[Tensor]:
    """The tensors of nested containers, each once."""
    leaves = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
    return list({id(leaf): leaf for leaf in leaves}.values())


@cache
def _vocabulary() -> dict[str, int]:
    """Word piece -> id."""
    words = VOCABULARY.read_text(encoding="utf-8").splitlines()
    return {word: number for number, word in enumerate(words)}


def main(words: Sequence[str]) -> None:
    """CONFIG.yaml DEVICES FOLDER BATCH...: write BATCH-NAME.bytecode and .json each."""
    config: Config = from_yaml(Path(words[0]).read_text(encoding="utf-8"))
    for batch_size in map(int, words[3:]):
        for name, program in lower(config, int(words[1]), batch_size):
            program.write(Path(words[2]) / f"{batch_size}-{name}")


if __name__ == "__main__":
    main(sys.argv[1:])
