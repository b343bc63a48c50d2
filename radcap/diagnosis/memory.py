"""How much memory a run takes at most, from its configuration."""

from __future__ import annotations

import math
from pathlib import Path

from radcap.config.schema import Config, DataConfig
from radcap.data.image.decode import IMAGE_SIZE
from radcap.data.source import files_of_folder
from radcap.diagnosis.storage import checkpoint_bytes
from radcap.errors import RadcapError
from radcap.training.feeding import chosen_workers, probable_device
from radcap.training.room import BYTES_PER_PHANTOM_ROW

# Measured with 2 threads on a CPU as proportional set sizes, rounded up; a run takes four fifths of
# the sum and more: of the trainer with its packages, and of loader processes without their rows.
_TRAINER_BYTES = 0.65e9
_LOADER_BYTES = 0.2e9
# What a device's own software adds to the trainer: XLA while it compiles for the CPU. Those of TPU
# and CUDA were not measured.
_RUNTIME_BYTES = {"cpu": 0.0, "xla_cpu": 0.75e9, "tpu": 2e9, "cuda": 2e9}
_IS_THE_HOST = ("cpu", "xla_cpu")
# Of the encoder's activations, most of all, kept for the backward pass.
_ACTIVATION_BYTES_AN_IMAGE = 24e6
_IMAGE_BYTES = 3 * IMAGE_SIZE**2


def needed_bytes(config: Config) -> float:
    """An upper bound of a run's memory: the trainer, its loaders and the rows they hold."""
    data = config.data
    workers = chosen_workers(config, data.lanes)
    batches = max(1, workers) * data.prefetch * data.batch_size * _IMAGE_BYTES
    stored = _stored_bytes(data)
    rows = min(data.window_gb * 1e9, stored) + min(data.read_ahead_mb * 1e6, stored)
    return _trainer_bytes(config) + (workers + data.val_workers) * _LOADER_BYTES + batches + rows


def _trainer_bytes(config: Config) -> float:
    device = probable_device(config.runtime)
    held, saved = _TRAINER_BYTES + _RUNTIME_BYTES[device], checkpoint_bytes(config)
    if device not in _IS_THE_HOST:
        return held + saved  # what trains is on the device
    activations = _ACTIVATION_BYTES_AN_IMAGE * config.data.batch_size / config.trainer.accumulate
    # Weights, Adam's two moments and gradients. What is saved is copied between steps, when there
    # are no activations.
    return held + saved * 4 / 3 + max(saved, activations)


def _stored_bytes(data: DataConfig) -> float:
    """Size of the training split; infinite where only the Hub knows."""
    if data.path is not None:
        try:
            files = files_of_folder(Path(data.path), data.train_split, data.config)
            return sum(file.stat().st_size for file in files)
        except (RadcapError, OSError):  # told by the check of the data
            return 0.0
    if data.name == "phantom":
        return data.phantom.train_rows * BYTES_PER_PHANTOM_ROW
    return math.inf
