"""From the configuration to opened data: sources first, loaders when the run begins.

Opening reads file listings and footers, and needs no torch: data out of reach, a missing split or
a gated data set is told within seconds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radcap.config.schema import Config
from radcap.data.columns import Columns
from radcap.data.hub.download import Hub, Traffic
from radcap.data.open import open_source
from radcap.data.order import Order, wide_window
from radcap.data.shelf import SPOOLED_BYTES, Cache
from radcap.data.source import Source
from radcap.host.console import heartbeat, progress, say
from radcap.host.places import home_folder, own_temporary_folder, with_home
from radcap.runtime.launch import Launch, num_launched_here
from radcap.training.feeding import chosen_workers, share_of_loader
from radcap.training.room import check_batch_memory, check_phantom_disk

if TYPE_CHECKING:
    from transformers import BertTokenizer

    from radcap.data.loader import Loader
    from radcap.data.phantom.dataset import Floor

# A validation on part of a split draws it from everywhere, and reads no more than it must.
_SCORING_WINDOW_GB = 0.02
_SCORING_SEED = 0

_ALONE = Launch()


class Inputs:
    """The training and validation splits of a run.

    Attributes:
        revision: what the data is: a Hub commit, or a fingerprint of local files.
        steps_per_epoch: batches in one pass over the training split.
        num_train_rows, num_val_rows: rows trained on in an epoch, rows scored in a validation.
        num_workers: loader processes of this process for training.
        floor: the lowest reachable validation loss, where the data set knows it.
        launch: this process among those that share every batch.
        hub: the data set on the Hub; None where the data is local.
        notes: what a user should know about settings that could not be met as they stand.
    """

    def __init__(
        self,
        config: Config,
        *,
        revision: str | None,
        launch: Launch = _ALONE,
        tokenizer: BertTokenizer | None = None,
    ) -> None:
        """Open both splits.

        Args:
            config: the checked configuration.
            launch: this process among those that share every batch.
            revision: the Hub commit that the run began with; None for a new run.
            tokenizer: that of the model; None for bert-base-uncased's.

        Raises:
            RadcapError: the data is out of reach or not of the right form; one line.
        """
        data = config.data
        check_batch_memory(data.batch_size, launch.num_processes)
        self._config = config
        self.launch = launch
        self.floor: Floor | None = None
        self.notes: list[str] = []
        folder = data.path
        if self.is_phantom:
            folder = str(self._phantom_folder())
        self.hub = self._hub() if folder is None else None
        self._cache = self._open_cache()
        self._train, self._val = self._open_splits(folder, revision or data.revision)
        self.revision = self._train.revision
        window_bytes = wide_window(
            [group.num_bytes for group in self._train.row_groups],
            data.lanes,
            int(data.window_gb * 1e9),
            SPOOLED_BYTES,
        )
        if window_bytes > data.window_gb * 1e9:
            self.notes.append(
                f"data.window_gb={data.window_gb:g}: with row groups this large it is "
                f"{window_bytes / 1e9:.0f}, in temporary files"
            )
        self._train_order = self._order(self._train, config.seed, window_bytes, shuffle=True)
        if self._train_order.lanes < data.lanes:
            self.notes.append(
                f"data.lanes={data.lanes}: the split has {self._train_order.lanes} row groups, "
                "which are that many lanes"
            )
        if self._train_order.lanes % launch.num_processes:
            self.notes.append(
                f"{self._train_order.lanes} lanes do not divide by {launch.num_processes} "
                "processes: each of them reads all the data; set data.lanes to a multiple"
            )
        self.num_workers = self._choose_workers()
        self._eval_rows = self._rows_to_score()
        whole = self._eval_rows == self._val.num_rows
        self._val_order = self._order(
            self._val, _SCORING_SEED, int(_SCORING_WINDOW_GB * 1e9), shuffle=not whole
        )
        self._tokenizer = tokenizer

    @property
    def tokenizer(self) -> BertTokenizer:
        """The tokenizer, loaded at its first use: importing it takes over a second."""
        if self._tokenizer is None:
            from radcap.data.collate import load_tokenizer

            self._tokenizer = load_tokenizer()
        return self._tokenizer

    @property
    def traffic(self) -> Traffic:
        """What was asked of the Hub to open the data."""
        return self.hub.traffic if self.hub is not None else Traffic()

    @property
    def steps_per_epoch(self) -> int:
        return self._train_order.batches_per_epoch

    @property
    def num_train_rows(self) -> int:
        return self._train.num_rows

    @property
    def num_val_rows(self) -> int:
        return self._eval_rows

    @property
    def num_split_rows(self) -> int:
        """Rows of the validation split, scored or not."""
        return self._val.num_rows

    @property
    def is_phantom(self) -> bool:
        return self._config.data.path is None and self._config.data.name == "phantom"

    @property
    def name(self) -> str:
        """The data set in words: a Hub id, a folder, or the phantom."""
        return "phantom (synthetic, not RadImageNet)" if self.is_phantom else self._train.name

    def describe(self) -> str:
        """The data in words, for the first lines of a run."""
        return self.name if self.is_phantom else f"{self.name}, revision {self.revision[:12]}"

    def loaders(self, position: Mapping[str, Any] | None) -> tuple[Loader, Loader]:
        """Start the loaders of training and of validation.

        Args:
            position: where training goes on; None for the beginning. Each iteration of the other
                loader is one pass over `num_val_rows` rows.
        """
        workers, val_workers = self.num_workers, self._config.data.val_workers
        train = self._loader(
            self._train,
            self._train_order,
            workers=workers,
            share=share_of_loader(workers, val_workers),
            position=position,
        )
        try:
            val = self._loader(
                self._val,
                self._val_order,
                workers=val_workers,
                share=share_of_loader(val_workers, workers),
                max_rows=self._eval_rows,
                is_parked=True,
            )
        except BaseException:
            train.close()
            raise
        return train, val

    def scoring_loader(self, *, first_batch: int = 0) -> Loader:
        """Start the loader of an evaluation: each iteration is one pass over `num_val_rows` rows.

        Args:
            first_batch: batch that the first pass begins with.
        """
        return self._loader(
            self._val,
            self._val_order,
            workers=self.num_workers,
            max_rows=self._eval_rows,
            first_batch=first_batch,
        )

    def _loader(
        self,
        source: Source,
        order: Order,
        *,
        workers: int,
        share: float = 1.0,
        **options: Any,
    ) -> Loader:
        from radcap.data.loader import Loader

        data = self._config.data
        share /= num_launched_here()
        return Loader(
            source,
            order,
            self.tokenizer,
            workers=workers,
            prefetch=data.prefetch,
            ahead_bytes=int(data.read_ahead_mb * 1e6 * share),
            connections=max(1, int(data.connections * share)),
            max_length=data.max_length,
            max_pixels=data.max_pixels,
            hub=self.hub,
            cache=self._cache,
            accept_revision=data.accept_revision,
            max_skipped_fraction=data.max_skipped_fraction,
            **options,
            host=self.launch.process_index,
            num_hosts=self.launch.num_processes,
        )

    def _open_splits(self, folder: str | None, revision: str | None) -> tuple[Source, Source]:
        data = self._config.data
        columns = Columns.of(data)
        if self.hub is not None and data.local_copy is not None:
            from radcap.data.hub.local_copy import copy_to_folder, open_copy

            copy, splits = Path(data.local_copy), (data.train_split, data.val_split)
            with heartbeat(f"looking at {copy}"):
                commit = copy_to_folder(
                    self.hub, copy, config=data.config, splits=splits, revision=revision
                )
            train, val = (
                open_copy(
                    copy,
                    hub_id=self.hub.hub_id,
                    split=split,
                    config=data.config,
                    commit=commit,
                    columns=columns,
                )
                for split in splits
            )
            self.hub = None
            return train, val
        footers = cache_folder() / "footers" if self.hub is not None else None
        with heartbeat("opening the data set"):
            train = open_source(
                split=data.train_split,
                path=folder,
                config=data.config,
                hub=self.hub,
                revision=revision,
                footers=footers,
                columns=columns,
            )
            if data.val_split == data.train_split:
                return train, train
            val = open_source(
                split=data.val_split,
                path=folder,
                config=data.config,
                hub=self.hub,
                revision=train.revision,
                footers=footers,
                columns=columns,
            )
        return train, val

    def _hub(self) -> Hub:
        data = self._config.data
        assert data.hub_id, "checked with the configuration"
        return Hub(data.hub_id, patience_s=data.hub_patience_s, timeout_s=data.hub_timeout_s)

    def _open_cache(self) -> Cache | None:
        data = self._config.data
        if data.cache is None:
            return None
        limit = int(data.cache_gb * 1e9 / num_launched_here())
        return Cache.open(Path(data.cache), limit_bytes=limit, decoded=data.cache_decoded)

    def _order(self, source: Source, seed: int, window_bytes: int, *, shuffle: bool) -> Order:
        data = self._config.data
        return Order(
            [group.num_rows for group in source.row_groups],
            [group.num_bytes for group in source.row_groups],
            seed=seed,
            batch_size=data.batch_size,
            lanes=data.lanes,
            window_bytes=window_bytes,
            shuffle=shuffle,
        )

    def _choose_workers(self) -> int:
        """See `chosen_workers`; with a note where the default is taken."""
        lanes = max(1, self._train_order.lanes // self.launch.num_processes)
        workers = chosen_workers(self._config, lanes)
        if self._config.data.workers is None:
            self.notes.append(f"data.workers=null: {workers} loader processes")
        return workers

    def _rows_to_score(self) -> int:
        rows = self._val.num_rows
        if self._config.trainer.eval_rows is not None:
            rows = min(rows, self._config.trainer.eval_rows)
        if self._config.debug.limit is not None:
            rows = min(rows, self._config.debug.limit * self._config.data.batch_size)
        return rows

    def _phantom_folder(self) -> Path:
        from radcap.data.phantom.dataset import ensure_phantom, is_drawn, phantom_folder, read_floor

        size = self._config.data.phantom
        sizes = {"train_rows": size.train_rows, "val_rows": size.val_rows, "seed": size.seed}
        if not is_drawn(phantom_folder(cache_folder(), **sizes)):
            rows = size.train_rows + size.val_rows
            check_phantom_disk(cache_folder(), rows)
            say(f"drawing the phantom data set, {rows:,} images, once ...")
        with progress("drawing", "images") as show:
            folder = ensure_phantom(cache_folder(), **sizes, progress=show)
        self.floor = read_floor(folder).get(self._config.data.val_split)
        return folder


def cache_folder() -> Path:
    """Where radcap keeps what it can make again: `RADCAP_CACHE`, or the user's cache folder.

    Where neither can be written (a read-only home is common on clusters) or there is no home, one
    in the temporary folder.

    Raises:
        ConfigError: that one is somebody else's.
        RadcapError: there is none.
    """
    given = os.environ.get("RADCAP_CACHE")
    if given:
        return Path(with_home(given))
    home = home_folder()
    caches = os.environ.get("XDG_CACHE_HOME") or (home and home / ".cache")
    if caches is None:
        return own_temporary_folder()
    nearest = folder = (Path(caches) / "radcap").absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return folder
    return own_temporary_folder()
