"""Checkpoints: everything needed to go on, whole or not there at all.

    step-N/model.safetensors  weights, on the host
           optimizer.pt       optimizer state, opened by torch.load(weights_only=True)
           random.pt          random states of host and device, likewise
           progress.json      step, position in the data, clock, counts
           manifest.json      size and SHA-256 of each file above, written last

A checkpoint is written beside under a hidden name, flushed to the disk and renamed; where folders
cannot be renamed (a mounted bucket), its files are, the manifest last. No file holds anything but
tensors and plain values, so nothing is unpickled and torch_xla is not needed to read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from radcap.errors import RadcapError, first_line
from radcap.files.atomic import (
    cannot_rename,
    flush_to_disk,
    move_files,
    move_folder,
    new_folder,
    remove,
)
from radcap.files.mappings import read_mapping
from radcap.files.reading import LFS_POINTER, is_lfs_pointer_file, open_regular
from radcap.files.tensors import UNREADABLE, read_tensors
from radcap.training.run.moment import read_progress

_MODEL, _OPTIMIZER, _RANDOM = "model.safetensors", "optimizer.pt", "random.pt"
_PROGRESS, _MANIFEST = "progress.json", "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """One moment of a run.

    Attributes:
        step: steps done.
        model: state dict, on the host.
        optimizer: state dict, on the host.
        random: random states, tensors and plain values.
        progress: JSON-able; position in the data, clock and counts.
    """

    step: int
    model: Mapping[str, torch.Tensor]
    optimizer: Mapping[str, Any]
    random: Mapping[str, Any]
    progress: Mapping[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint as `folder/step-N`, taking the place of an older one of the same step.

    Raises:
        RadcapError: it could not be written; whatever was there before is untouched.
    """
    final = folder / f"step-{checkpoint.step}"
    try:
        folder.mkdir(exist_ok=True)  # the run folder itself is not made anew where it has gone
        with new_folder(final, last=_MANIFEST) as partial:
            _write(partial, checkpoint)
            if final.exists():
                aside = folder / f".step-{checkpoint.step}.old.partial"
                remove(aside)
                _move(final, aside)  # until the next `prune`
        flush_to_disk(folder)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        # torch and safetensors have their own errors for a disk that is full.
        raise RadcapError(f"cannot save {final}: {_reason(error)}; {_rest(folder)}") from error
    return final


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint's files, so that they outlive the machine."""
    weights = {name: tensor.contiguous() for name, tensor in checkpoint.model.items()}
    safetensors.torch.save_file(weights, folder / _MODEL)
    for name, state in ((_OPTIMIZER, checkpoint.optimizer), (_RANDOM, checkpoint.random)):
        with (folder / name).open("wb") as file:  # a file of ours tells why a write fails
            torch.save(state, file)
    progress = {"step": checkpoint.step, **checkpoint.progress}
    (folder / _PROGRESS).write_text(json.dumps(progress), encoding="utf-8")
    manifest = {path.name: _fingerprint(path) for path in sorted(folder.iterdir())}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for path in (*folder.iterdir(), folder):
        flush_to_disk(path)


def _rest(folder: Path) -> str:
    """What there is to go on from."""
    try:
        before = list_checkpoints(folder)
    except OSError as error:  # a mount that has gone
        return f"{folder} cannot be read: {error.strerror}"
    if not before:
        return "there is no checkpoint before it"
    return f"{before[-1].name} is whole, and the same command goes on from there"


def _reason(error: BaseException) -> str:
    """What the disk said: torch raises errors of its own while it handles the first one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__context__
    return first_line(error)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint, on the host.

    Raises:
        ValueError: it is damaged; the message names the file and what is wrong with it.
    """
    _verify(path)
    try:
        progress = read_progress(path / _PROGRESS, _step_of(path))
        return Checkpoint(
            step=progress.pop("step"),
            model=read_tensors(path / _MODEL),
            optimizer=_dict_of(path / _OPTIMIZER),
            random=_dict_of(path / _RANDOM),
            progress=progress,
        )
    except (OSError, *UNREADABLE) as error:
        # The manifest agrees, so this is no accident of the disk: somebody else wrote the file.
        raise ValueError(f"{path} is not a checkpoint of radcap: {first_line(error)}") from None


def load_model(path: Path) -> tuple[int, dict[str, torch.Tensor]]:
    """Read the step and the model's state dict of one checkpoint, on the host, and nothing else.

    Raises:
        ValueError: as `load_checkpoint`.
    """
    _verify(path, (_MODEL, _PROGRESS))
    try:
        step = read_progress(path / _PROGRESS, _step_of(path))["step"]
        return step, read_tensors(path / _MODEL)
    except (OSError, *UNREADABLE) as error:
        raise ValueError(f"{path} is not a checkpoint of radcap: {first_line(error)}") from None


def load_latest(
    folder: Path, warn: Callable[[str], None], *, is_ours: bool = True
) -> Checkpoint | None:
    """Read the newest whole checkpoint of a folder; None where there is none at all.

    A damaged one is named, passed over and, in a folder that is ours, set aside as
    `damaged-step-N`, so that it counts among the newest no longer.

    Raises:
        RadcapError: there are checkpoints, and none of them is whole.
    """
    damaged: list[Path] = []
    if is_ours:
        _finish_moves(folder)
    for path in reversed(list_checkpoints(folder)):
        try:
            found = load_checkpoint(path)
        except ValueError as error:
            damaged.append(path)
            warn(f"{error}; passed over")
            continue
        for one in damaged if is_ours else ():
            aside = folder / f"damaged-{one.name}"
            _remove(aside)
            _move(one, aside)
        return found
    if damaged:
        raise RadcapError(
            f"no checkpoint in {folder} can be read; put one right, or run.fresh=true starts anew"
        )
    return None


def _finish_moves(folder: Path) -> None:
    """Give the rest of its files to a checkpoint that was written, but not yet all in its place."""
    for partial in folder.glob(".step-*.partial"):
        final = folder / partial.name.removeprefix(".").removesuffix(".partial")
        begun = _step_of(final) >= 0 and final.is_dir() and not (final / _MANIFEST).exists()
        if begun and (partial / _MANIFEST).exists():
            try:
                move_files(partial, final, last=_MANIFEST)
            except OSError as error:
                raise RadcapError(f"{final} cannot be put together: {error.strerror}") from error


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first."""
    found = (path for path in folder.glob("step-*") if _step_of(path) >= 0 and path.is_dir())
    return sorted(found, key=_step_of)


def prune(folder: Path, *, keep: int, best_step: int | None) -> None:
    """Delete all but the newest `keep` checkpoints and the best one, and what a kill left half.

    Raises:
        OSError: the last one that could not be deleted; the others are.
    """
    old = [path for path in list_checkpoints(folder)[:-keep] if _step_of(path) != best_step]
    failed: OSError | None = None
    for path in [*folder.glob(".step-*.partial"), *old]:
        try:
            _remove(path)
        except OSError as error:
            failed = error
    if failed is not None:
        raise failed


def _remove(path: Path) -> None:
    """Delete a checkpoint, if it is there; its name first: a kill in between leaves no half one."""
    if path.exists() and not path.is_symlink() and not path.name.startswith("."):
        nameless = path.with_name(f".{path.name}.old.partial")
        remove(nameless)
        _move(path, nameless)
        path = nameless
    remove(path)


def _move(path: Path, target: Path) -> None:
    """Take a checkpoint's name from it.

    Where the folder cannot be renamed it goes without its manifest, so that what a kill leaves is
    known for half a checkpoint.
    """
    try:
        path.rename(target)
    except OSError as error:
        if not cannot_rename(error):
            raise
        (path / _MANIFEST).unlink(missing_ok=True)
        move_folder(path, target)


def best_step(path: Path) -> int | None:
    """The step that had the lowest validation loss when a checkpoint was written, where known."""
    try:
        best = (read_mapping(path / _PROGRESS) or {}).get("best")
    except OSError:  # damaged: reading the weights will say so
        return None
    return best.get("step") if isinstance(best, dict) else None


def _step_of(path: Path) -> int:
    number = path.name.removeprefix("step-")
    return int(number) if number.isdecimal() else -1


def _dict_of(file: Path) -> dict[str, Any]:
    content = read_tensors(file)
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} holds no names and values")
    return content


def _verify(path: Path, names: Sequence[str] = (_MODEL, _OPTIMIZER, _RANDOM, _PROGRESS)) -> None:
    try:
        manifest = read_mapping(path / _MANIFEST)
    except OSError as error:
        raise ValueError(f"{path} is damaged: no readable {_MANIFEST} ({error.strerror})") from None
    if manifest is None:
        what = LFS_POINTER if is_lfs_pointer_file(path / _MANIFEST) else "not what was written"
        raise ValueError(f"{path} is damaged: {_MANIFEST} is {what}")
    for name in names:
        try:
            whole = manifest.get(name) == _fingerprint(path / name)
        except OSError as error:
            raise ValueError(f"{path} is damaged: {name}: {error.strerror}") from None
        if not whole:
            what = LFS_POINTER if is_lfs_pointer_file(path / name) else "not what was written"
            raise ValueError(f"{path} is damaged: {name} is {what}")


def _fingerprint(file: Path) -> dict[str, Any]:
    with open_regular(file) as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"bytes": file.stat().st_size, "sha256": digest}
