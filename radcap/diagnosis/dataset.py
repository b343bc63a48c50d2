"""The data that the configuration names: there, allowed, and cut finely enough."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from radcap.config.schema import Config
from radcap.data.columns import Columns
from radcap.data.hub.download import Hub
from radcap.data.hub.local_copy import open_copy, whole_copy
from radcap.data.open import open_source
from radcap.data.phantom.dataset import is_drawn, phantom_folder
from radcap.data.source import Source
from radcap.diagnosis.check import FAIL, OK, WARN, Check
from radcap.errors import RadcapError
from radcap.files.reading import LFS_POINTER, is_lfs_pointer_file
from radcap.host.network import network_fault
from radcap.training.inputs import cache_folder
from radcap.training.run.folder import RunFolder

# Long enough for a slow line, short enough to wait for.
_PATIENCE_S = 10.0
_TIMEOUT_S = 5.0  # so that an answer that does not come is asked for twice


def network(config: Config) -> Iterator[Check]:
    """Proxies and certificates that the environment names, where they cannot be used."""
    fault = network_fault()
    if fault is not None:
        found, _, fix = fault.partition("; ")
        yield Check("network", FAIL if _on_hub(config) else WARN, found, fix)


def token(config: Config) -> Iterator[Check]:
    """Whether there is a token for the Hub. It is never shown."""
    if not _on_hub(config):
        return
    try:
        if _copied(config) is not None:
            return
    except RadcapError:  # told by the check of the data
        return
    from huggingface_hub import constants, get_token

    if get_token():
        place = "HF_TOKEN" if os.environ.get("HF_TOKEN") else constants.HF_TOKEN_PATH
        yield Check("token", OK, f"given by {place}")
    else:
        fix = "accept the terms on the data set's page, then export HF_TOKEN=..."
        found = f"HF_TOKEN is not set; {config.data.hub_id} is refused where it is gated"
        yield Check("token", WARN, found, fix)


def splits(config: Config) -> Iterator[Check]:
    """Both splits, opened as a run does, and how finely the first one is cut."""
    data = config.data
    folder, hub = data.path, None
    if folder is None and data.name == "phantom":
        size = data.phantom
        try:
            cache = cache_folder()
        except RadcapError:  # told by the check of the cache
            return
        drawn = phantom_folder(
            cache, train_rows=size.train_rows, val_rows=size.val_rows, seed=size.seed
        )
        if not is_drawn(drawn):
            rows = f"{size.train_rows + size.val_rows:,}"
            yield Check("data", OK, f"phantom: {rows} pictures are drawn at the first run")
            return
        folder = str(drawn)
    elif folder is None:
        assert data.hub_id, "checked with the configuration"
        patience = min(_PATIENCE_S, data.hub_patience_s)
        hub = Hub(data.hub_id, patience_s=patience, timeout_s=min(_TIMEOUT_S, data.hub_timeout_s))
    try:
        train, val = _open(config, folder, hub)
    except RadcapError as error:
        yield Check("data", FAIL, str(error), _fix(hub))
        return
    yield Check("data", OK, f"{train.name}: {train.num_rows:,} training, {val.num_rows:,} val rows")
    yield _cut(config, train)


def encoder_weights(config: Config) -> Iterator[Check]:
    """Whether the encoder's start is here, or has to be fetched."""
    source = config.model.encoder_weights
    if source == "none":
        return
    if source != "imagenet":
        if is_lfs_pointer_file(source):
            fix = "git lfs pull in its repository, or model.encoder_weights=imagenet or none"
            yield Check("encoder", FAIL, f"{source}: {LFS_POINTER}", fix)
        elif Path(source).is_file():
            yield Check("encoder", OK, source)
        else:
            fix = "model.encoder_weights=imagenet, none, or a file that is there"
            yield Check("encoder", FAIL, f"{source}: no such file", fix)
        return
    import torch
    from torchvision.models import MobileNet_V3_Small_Weights

    url = MobileNet_V3_Small_Weights.IMAGENET1K_V1.url
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if file.is_file():
        yield Check("encoder", OK, f"ImageNet weights in {file}")
    else:
        fix = f"without a network: fetch {url} elsewhere, and model.encoder_weights=FILE"
        yield Check("encoder", WARN, "ImageNet weights are downloaded at the first run", fix)


def _open(config: Config, folder: str | None, hub: Hub | None) -> list[Source]:
    """Training and validation split, from where a run would read them."""
    data = config.data
    splits = (data.train_split, data.val_split)
    columns = Columns.of(data)
    commit = None if hub is None else _copied(config)
    if hub is not None and commit is not None:
        copy = Path(str(data.local_copy))
        return [
            open_copy(
                copy,
                hub_id=hub.hub_id,
                split=split,
                config=data.config,
                commit=commit,
                columns=columns,
            )
            for split in splits
        ]
    revision = _revision(config)
    return [
        open_source(
            split=split,
            path=folder,
            config=data.config,
            hub=hub,
            revision=revision,
            columns=columns,
        )
        for split in splits
    ]


def _copied(config: Config) -> str | None:
    """The commit of a whole data.local_copy, which needs neither network nor token."""
    data = config.data
    if data.local_copy is None or data.hub_id is None:
        return None
    return whole_copy(
        Path(data.local_copy),
        hub_id=data.hub_id,
        config=data.config,
        splits=(data.train_split, data.val_split),
        revision=_revision(config),
    )


def _revision(config: Config) -> str | None:
    """The commit that the run in the folder began with, else the one that is asked for."""
    data = config.data
    if not _on_hub(config) or data.accept_revision:
        return data.revision
    try:
        pinned = RunFolder.look(config).versions.get("data_revision")
    except RadcapError:  # told by the check of the folder
        pinned = None
    return pinned or data.revision


def _on_hub(config: Config) -> bool:
    return config.data.path is None and config.data.name == "hub"


def _fix(hub: Hub | None) -> str:
    if hub is None:
        return "data.path=FOLDER with CONFIG/SPLIT-*.parquet; scripts/make_dataset.py makes one"
    return "data=phantom works without network and token"


def _cut(config: Config, train: Source) -> Check:
    """Row groups against lanes and workers."""
    data, groups = config.data, len(train.row_groups)
    files = len({group.file for group in train.row_groups})
    found = f"{groups:,} row groups in {files:,} files; data.lanes={data.lanes}"
    lanes = min(data.lanes, groups)
    if data.workers is not None and data.workers > lanes:
        fix = f"data.workers={lanes}; more have nothing to read"
        return Check("row groups", WARN, f"{found}, data.workers={data.workers}", fix)
    if groups < data.lanes:
        fix = f"data.lanes={groups}, or write smaller row groups: batches mix fewer places"
        return Check("row groups", WARN, f"{found}: more than there are row groups", fix)
    return Check("row groups", OK, found)
