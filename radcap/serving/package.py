"""A folder that plain PyTorch, the model card's own script and the Hub can use."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch
import torch
from torch.export import ExportedProgram

from radcap import __version__
from radcap.config.schema import MAX_POSITIONS
from radcap.errors import ConfigError, RadcapError, first_line
from radcap.files.atomic import new_folder
from radcap.files.mappings import read_mapping
from radcap.host.console import heartbeat
from radcap.model.encoder import IMAGE_SIZE, IMAGENET_MEAN, IMAGENET_STD
from radcap.model.weights import fingerprint, load_captioner_weights
from radcap.serving.card import RunFacts, model_card, read_facts
from radcap.serving.note import note
from radcap.serving.pretrained import TRAINED_ON, Pretrained
from radcap.serving.programs import export_programs
from radcap.serving.space import write_space
from radcap.training.run.folder import move_aside

_CONFIG = "config.json"
if TYPE_CHECKING:
    from transformers import BertTokenizer

MODEL_TYPE = "radcap"
_EXAMPLE = Path(__file__).parent.parent / "assets" / "generate.py"
_RESIZED = 256  # of which the middle is taken
_CHECKED_ROWS, _CHECKED_TOKENS = 3, 12


def check_target(folder: Path) -> None:
    """Refuse a link, and a folder that holds anything but an earlier export.

    Raises:
        ConfigError: naming it.
    """
    if folder.is_symlink():
        raise ConfigError(f"{folder}: a link; name the folder that it leads to, or another")
    if folder.is_dir() and any(folder.iterdir()):
        if not _is_export(folder):
            raise ConfigError(f"{folder}: not empty and no export of radcap; choose another folder")
        if folder.resolve() == Path.cwd():
            raise ConfigError(f"{folder}: the folder in use cannot be moved aside; choose another")
    elif folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: a file of this name is there; choose another folder")


def export(
    pretrained: Pretrained,
    folder: Path,
    *,
    name: str,
    say: Callable[[str], None],
    space: str | None = None,
) -> None:
    """Write everything beside, check it, and put it in place: never half a folder.

    Args:
        pretrained: what is exported.
        folder: where to; an earlier export found there is moved aside.
        name: what the model is called in its card.
        say: told how it goes.
        space: what a Space of the page in it is called, see `radcap.serving.space`; None: without.

    Raises:
        ConfigError: the folder holds something else.
        RadcapError: it cannot be written, or what was written is not what was meant.
    """
    check_target(folder)
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 absolute() leaves ".." in it
    say("recording the programs, some seconds")
    with heartbeat("recording the programs"):
        programs = export_programs(pretrained.model)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(folder, last=_CONFIG, is_shared=True) as partial:
            facts = read_facts(pretrained, fingerprint(pretrained.model.state_dict()))
            with heartbeat("writing") as go_over_to:
                _write(pretrained, programs, facts, partial, name)
                go_over_to("reading it back, and captioning with it")
                _check(pretrained, partial)
            if space:
                write_space(pretrained, facts, partial, space)
            said = "the weights load back bit for bit, the programs write the model's own ids"
            say(f"checked: {said}")
            if folder.is_dir() and any(folder.iterdir()):
                move_aside(folder)
            elif folder.is_dir():
                folder.rmdir()
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        # torch and safetensors have their own errors for a disk that is full.
        raise RadcapError(f"{folder} cannot be written: {first_line(error)}") from error


def _is_export(folder: Path) -> bool:
    try:
        return (read_mapping(folder / _CONFIG) or {}).get("model_type") == MODEL_TYPE
    except OSError:
        return False


def _write(
    pretrained: Pretrained,
    programs: Mapping[str, ExportedProgram],
    facts: RunFacts,
    folder: Path,
    name: str,
) -> None:
    state = {key: tensor.contiguous() for key, tensor in pretrained.model.state_dict().items()}
    safetensors.torch.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    torch.save(state, folder / "pytorch_model.bin")
    # safetensors makes its files readable for their owner alone.
    shutil.copymode(folder / "pytorch_model.bin", folder / "model.safetensors")
    _write_json(folder / _CONFIG, _config(pretrained))
    _write_json(folder / "preprocessor_config.json", _preprocessing())
    _write_tokenizer(pretrained.tokenizer, folder)
    for file, program in programs.items():
        torch.export.save(program, folder / file)
    shutil.copyfile(_EXAMPLE, folder / "generate.py")
    (folder / "README.md").write_text(model_card(pretrained, facts, name), encoding="utf-8")


def _config(pretrained: Pretrained) -> dict[str, Any]:
    tokenizer = pretrained.tokenizer
    return {
        "model_type": MODEL_TYPE,
        "architectures": ["ImageCaptioningModel"],
        **asdict(pretrained.architecture),
        "max_positions": MAX_POSITIONS,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "dtype": "float32",
        "radcap_version": __version__,
        "note": note(drawings_only=pretrained.knows_drawings_only),
        **({} if pretrained.trained_on is None else {TRAINED_ON: pretrained.trained_on}),
    }


def _preprocessing() -> dict[str, Any]:
    """The card's transform, in the words of transformers' image processors."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": _RESIZED, "width": _RESIZED},
        "resample": 2,  # bilinear
        "do_center_crop": True,
        "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
    }


def _write_tokenizer(tokenizer: BertTokenizer, folder: Path) -> None:
    tokenizer.save_pretrained(str(folder))
    # For readers older than tokenizer.json.
    pieces = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    text = "".join(f"{piece}\n" for piece, _ in pieces)
    (folder / "vocab.txt").write_text(text, encoding="utf-8")


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _check(pretrained: Pretrained, folder: Path) -> None:
    """Read everything back, and let the example caption with what it found."""
    state = pretrained.model.state_dict()
    for file in ("model.safetensors", "pytorch_model.bin"):
        read = load_captioner_weights(folder / file)
        if any(not torch.equal(read[key], tensor) for key, tensor in state.items()):
            raise RadcapError(f"{file} does not load back as it was written; is the disk full?")
    shape = (_CHECKED_ROWS, 3, IMAGE_SIZE, IMAGE_SIZE)
    images = torch.randint(256, shape, generator=torch.Generator().manual_seed(0)).byte()
    expected = pretrained.model.generate(images, _CHECKED_TOKENS, pretrained.tokenizer)
    try:
        found = _example(folder).Captioner().generate(images, _CHECKED_TOKENS)
    except (RuntimeError, ValueError) as error:
        raise RadcapError(f"the exported programs do not run: {first_line(error)}") from error
    if not torch.equal(found, expected):
        raise RadcapError(
            "the exported programs do not write the ids that the model writes: a fault of radcap "
            "or of this torch; nothing was exported"
        )


def _example(folder: Path) -> ModuleType:
    """The folder's own generate.py; an import would leave its bytecode in the folder."""
    file = folder / "generate.py"
    module = ModuleType("radcap_exported")
    module.__file__ = str(file)
    exec(compile(file.read_text(encoding="utf-8"), str(file), "exec"), module.__dict__)
    return module
