"""Trained weights from wherever they lie -> a captioner that is ready to use.

    a run folder          its best checkpoint where that is kept, else its newest whole one
    a checkpoint folder   runs/NAME/checkpoints/step-N
    an exported folder    model.safetensors or pytorch_model.bin, config.json, vocab.txt
    a weights file        .safetensors .bin .pt .pth
    a Hub id              owner/name or owner/name@revision

The number of heads leaves no trace in the weights. It comes from a `config.json` beside them, else
from the `config.yaml` of the run they lie in, else it is the model card's 8. No file is unpickled
but by `torch.load(weights_only=True)`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from radcap.data.collate import load_tokenizer
from radcap.errors import RadcapError, one_line
from radcap.files.mappings import read_mapping
from radcap.files.reading import LFS_POINTER, check_regular, is_lfs_pointer_file
from radcap.host.console import report
from radcap.model.captioner import ImageCaptioningModel
from radcap.model.encoder import NUM_IMAGE_TOKENS
from radcap.model.weights import (
    WeightsError,
    WeightsUnavailable,
    captioner_sizes,
    check_captioner,
    load_captioner_weights,
)
from radcap.serving.facts import PHANTOM, data_kind, fact
from radcap.serving.hub import MODEL_FILES, download_model
from radcap.serving.source import fault_in_source, hub_model_id
from radcap.training.run.checkpoint import best_step, list_checkpoints, load_model

if TYPE_CHECKING:
    from transformers import BertTokenizer

CARD_HEADS = 8
TRAINED_ON = "trained_on"  # in config.json
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")
_TOKENIZER_SUFFIXES = (".json", ".jsonl", ".txt", ".jinja")
_MOST_TOKENIZER_BYTES = 16_000_000


@dataclass(frozen=True)
class Architecture:
    """The sizes of a captioner: what `config.json` of an exported folder holds."""

    vocab_size: int
    embed_dim: int
    num_layers: int
    num_heads: int
    graph_steps: int = 3

    def make_model(self) -> ImageCaptioningModel:
        """A captioner of these sizes with random weights."""
        return ImageCaptioningModel(**dataclasses.asdict(self))


@dataclass(frozen=True)
class Pretrained:
    """A trained captioner and where it came from.

    Attributes:
        model: float32 on the CPU, in evaluation mode.
        tokenizer: of the model's vocabulary.
        origin: the source in words, for people.
        architecture: the model's sizes.
        run: the run folder that the weights lie in; None for any other source.
        step: the training step of the weights, where known.
        trained_on: the kind of the data, folder, phantom or hub, where known.
    """

    model: ImageCaptioningModel
    tokenizer: BertTokenizer
    origin: str
    architecture: Architecture
    run: Path | None = None
    step: int | None = None
    trained_on: str | None = None

    @property
    def knows_drawings_only(self) -> bool:
        """Whether it was trained on the phantom data set: see `radcap.serving.note`."""
        return self.trained_on == PHANTOM


def load_pretrained(source: str | Path) -> Pretrained:
    """Load a trained captioner.

    Args:
        source: see the module. What lies on this machine wins over a Hub id of the same name.

    Raises:
        WeightsUnavailable: nothing there, or out of reach.
        WeightsError: not a captioner's weights, or a config.json that contradicts them.
    """
    fault = fault_in_source(str(source))
    if fault is not None:
        raise WeightsUnavailable(fault)
    path = Path(source)
    if path.is_dir():
        return _load_folder(path, str(source))
    if path.exists():
        return _assemble(load_captioner_weights(path), str(source), path.parent)
    hub_id = hub_model_id(str(source))
    assert hub_id is not None, "else it would be a fault"
    folder = download_model(*hub_id)
    return _load_folder(folder, f"Hub {hub_id[0]} at {folder.name}")


def _load_folder(path: Path, name: str) -> Pretrained:
    if (path / "manifest.json").exists():
        return _load_checkpoint(path, name)
    if list_checkpoints(path / "checkpoints"):
        return _load_run(path, name)
    for file in MODEL_FILES:
        if (path / file).exists():
            return _assemble(load_captioner_weights(path / file), name, path)
    if (path / "config.yaml").exists():
        raise WeightsUnavailable(f"{name}: this run has no checkpoint yet")
    raise WeightsError(
        f"{name}: neither a run, a checkpoint nor an exported folder: it holds no checkpoints/, "
        f"{' or '.join(MODEL_FILES)}"
    )


def _load_run(path: Path, name: str) -> Pretrained:
    """The best checkpoint, or else the newest one that is whole; damaged ones are named."""
    kept = list_checkpoints(path / "checkpoints")[::-1]
    best = best_step(kept[0])
    faults = []
    for checkpoint in sorted(kept, key=lambda one: one.name != f"step-{best}"):
        try:
            found = _load_checkpoint(checkpoint, name)
        except WeightsError as error:
            faults.append(str(error))
            continue
        for fault in faults:
            report(f"{fault}; passed over")
        return found
    raise WeightsError(f"{name}: no checkpoint can be read; {'; '.join(faults)}")


def _load_checkpoint(path: Path, name: str) -> Pretrained:
    try:
        step, state = load_model(path)
    except ValueError as error:
        raise WeightsError(str(error)) from None
    check_captioner(state, str(path))
    run = path.resolve().parent.parent
    found = _assemble(state, f"{name}, step {step}", path)
    return dataclasses.replace(
        found, run=run if (run / "config.yaml").is_file() else None, step=step
    )


def _assemble(state: Mapping[str, Tensor], origin: str, folder: Path) -> Pretrained:
    facts = _facts_beside(folder)
    architecture = _architecture(captioner_sizes(state), facts, origin)
    try:
        model = architecture.make_model()
    except ValueError as error:  # heads that do not divide the width
        raise WeightsError(f"{origin}: config.json or config.yaml beside it: {error}") from None
    model.load_state_dict(state)
    for name, entry in model.state_dict().items():
        if not entry.isfinite().all():
            raise WeightsError(
                f"{origin}: {name} holds numbers that are none (NaN or infinite): the file is "
                "damaged, or its training had gone astray"
            )
    tokenizer = _tokenizer_of(folder)
    if len(tokenizer) != architecture.vocab_size:
        raise WeightsError(
            f"{origin}: the model has {architecture.vocab_size} word pieces and the tokenizer "
            f"{len(tokenizer)}; put the vocab.txt that it was trained with beside the weights"
        )
    special = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
    if None in special or len(set(special)) < len(special):
        raise WeightsError(
            f"{origin}: the tokenizer beside it has no [CLS], [SEP] and [PAD] of their own"
        )
    if "num_heads" not in facts:
        origin = f"{origin} ({CARD_HEADS} heads assumed)"
    trained_on = fact(facts, TRAINED_ON, str)
    return Pretrained(model.eval(), tokenizer, origin, architecture, trained_on=trained_on)


def _architecture(sizes: Mapping[str, int], facts: Mapping[str, Any], origin: str) -> Architecture:
    """The weights' own sizes, and what they do not show from the files beside them."""
    for key, size in sizes.items():
        if facts.get(key, size) != size:
            found = str(facts[key])[:60]
            raise WeightsError(f"{origin}: {key} is {size}, but beside it stands {found}")
    heads = facts.get("num_heads", CARD_HEADS)
    steps = facts.get("graph_steps", Architecture.graph_steps)
    for key, value, least, most in (
        ("num_heads", heads, 1, sizes["embed_dim"]),
        # On a ring of so many tokens, every one has heard of every other by half as many steps.
        ("graph_steps", steps, 0, NUM_IMAGE_TOKENS),
    ):
        if type(value) is not int or not least <= value <= most:
            raise WeightsError(
                f"{origin}: beside it stands {key} {repr(value)[:60]}, not a number from "
                f"{least} to {most}"
            )
    return Architecture(**sizes, num_heads=heads, graph_steps=steps)


def _facts_beside(folder: Path) -> dict[str, Any]:
    """What config.json says about the model, or else the config.yaml of the run."""
    file = folder / "config.json"
    if file.exists():
        return _read_mapping(file)
    # Beside a weights file it may be another program's: then it says nothing of heads.
    file = folder / "config.yaml"
    facts = _facts_in(_read_mapping(file)) if file.exists() else {}
    above = folder.resolve().parent
    file = above.parent / "config.yaml"
    if above.name == "checkpoints" and file.exists():
        facts = facts or _facts_in(_read_mapping(file))
        if not facts:
            raise WeightsError(f"{file} is damaged: no model.num_heads in it")
    return facts


def _facts_in(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's config.yaml says; nothing for another program's."""
    model = config.get("model")
    if not isinstance(model, dict) or "num_heads" not in model:
        return {}
    return {"num_heads": model["num_heads"], TRAINED_ON: data_kind(config)}


def _read_mapping(file: Path) -> dict[str, Any]:
    try:
        content = read_mapping(file)
    except OSError as error:
        raise WeightsUnavailable(f"{file}: {error.strerror}") from None
    if content is None and is_lfs_pointer_file(file):
        raise WeightsError(f"{file}: {LFS_POINTER}")
    if content is None:
        raise WeightsError(f"{file} is damaged: not a mapping of names to values")
    return content


def _tokenizer_of(folder: Path) -> BertTokenizer:
    """The tokenizer whose files lie in a folder, else that of bert-base-uncased."""
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        return load_tokenizer()
    for file in sorted(folder.iterdir()):  # whichever of them it reads
        if file.suffix not in _TOKENIZER_SUFFIXES:
            continue
        try:
            size = check_regular(file)
        except OSError as error:
            raise WeightsError(f"{file}: {error.strerror}") from None
        if size > _MOST_TOKENIZER_BYTES:
            raise WeightsError(f"{file}: more than {_MOST_TOKENIZER_BYTES:,} bytes")
        if is_lfs_pointer_file(file):
            raise WeightsError(f"{file}: {LFS_POINTER}")
    from transformers import BertTokenizer

    try:
        return BertTokenizer.from_pretrained(str(folder), local_files_only=True)
    # The tokenizers library raises plain Exception for a damaged file.
    except Exception as error:  # noqa: BLE001
        reason = one_line(error, names_type=False)
        raise RadcapError(
            f"{folder}: cannot read the tokenizer beside the weights ({reason})"
        ) from None
