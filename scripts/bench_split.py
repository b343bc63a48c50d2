"""The phantom's training split and its loader, as a run on the real data set would be fed."""

from __future__ import annotations

from pathlib import Path

from bench_pairs import machine_load

from radcap.config.compose import compose
from radcap.data.collate import load_tokenizer
from radcap.data.hub.download import Hub
from radcap.data.loader import Loader
from radcap.data.open import open_source
from radcap.data.order import Order
from radcap.data.phantom.dataset import ensure_phantom
from radcap.data.source import Source
from radcap.host.console import say
from radcap.training.inputs import cache_folder

BATCH_SIZE, WORKERS = 336, 2  # the model card's batch; a worker for each of two cores
ROWS = 8_000  # of the default run: its data set is used where it lies in the cache
_VAL_ROWS = 600
_DEFAULTS = compose([]).data  # of radcap.train
PREFETCH = _DEFAULTS.prefetch


def phantom_folder(rows: int = ROWS) -> Path:
    """The phantom data set of so many training rows, drawn into the cache if it is not there."""
    val_rows = min(rows, _VAL_ROWS)
    return ensure_phantom(cache_folder(), train_rows=rows, val_rows=val_rows)


def open_folder(folder: Path) -> Source:
    """Its training split."""
    return open_source(split="train", path=str(folder), config="alignment")


def order_of(source: Source, batch_size: int = BATCH_SIZE) -> Order:
    """The order of a split with the defaults of `radcap.train`, seed 0."""
    groups = source.row_groups
    return Order(
        [group.num_rows for group in groups],
        [group.num_bytes for group in groups],
        seed=0,
        batch_size=batch_size,
        lanes=_DEFAULTS.lanes,
        window_bytes=int(_DEFAULTS.window_gb * 1e9),
    )


def open_loader(
    source: Source, order: Order, *, hub: Hub | None = None, max_rows: int | None = None
) -> Loader:
    """Start two workers on a split; `hub` and `max_rows` as `Loader`'s."""
    return Loader(
        source,
        order,
        load_tokenizer(),
        workers=WORKERS,
        prefetch=PREFETCH,
        max_length=_DEFAULTS.max_length,
        hub=hub,
        max_rows=max_rows,
    )


def say_load() -> None:
    """Print how busy the machine is: processes that want a core, over the last minute."""
    say(machine_load())
