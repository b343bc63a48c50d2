"""Opens a split of a data set, wherever it is."""

from __future__ import annotations

from pathlib import Path

from radcap.data.columns import USUAL, Columns
from radcap.data.hub.download import Hub
from radcap.data.hub.split import open_hub
from radcap.data.source import Source, check_split_names, open_folder


def open_source(
    *,
    split: str,
    path: str | None,
    config: str,
    hub: Hub | None = None,
    revision: str | None = None,
    footers: Path | None = None,
    columns: Columns = USUAL,
) -> Source:
    """Open one split and list its row groups; reads the files' footers and nothing else.

    Args:
        split: "train", "val", "test": the first part of the file names.
        path: a local folder in the data set's form, `CONFIG/SPLIT-*.parquet`; also accepted:
            `data/SPLIT-*.parquet` and `SPLIT-*.parquet`, and other names of others' data sets, see
            `radcap.data.split_files`. Wins over `hub`.
        config: "alignment" for captions.
        hub: the data set on the Hub.
        revision: branch, tag or commit on the Hub; None: the newest. A folder has none.
        footers: a folder that keeps the Hub's footers for the next time; None keeps nothing.
        columns: those that hold pictures and captions.

    Raises:
        DataError: nothing there, not allowed, no network, or not of the data set's form.
    """
    if path is not None:
        return open_folder(Path(path), split, config, columns)
    check_split_names(split, config)
    assert hub is not None, "a split lies in a folder or on the Hub"
    return open_hub(hub, split, config, revision, footers, columns)
