"""Opens a split of a data set on the Hub: its commit, its files, their footers."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from radcap.data.download import Hub
from radcap.data.faults import DataError, one_line
from radcap.data.source import Source, StoredFile, make_source, what_is_there

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_FOOTER_READERS = 8
_USUAL_FOOTER = 1 << 16
_END = 8  # a parquet file ends with the footer's length (4 bytes, little endian) and 'PAR1'


def open_hub(hub: Hub, split: str, config: str, revision: str | None) -> Source:
    """Open one split and list its row groups; reads listings and footers and nothing else.

    Args:
        hub: the data set. HF_ENDPOINT and HF_TOKEN are respected.
        split, config: see `radcap.data.source.open_source`.
        revision: branch, tag or commit; None: the newest. The answer is pinned to its commit.

    Raises:
        DataError: not there, not allowed, no network, or not of the data set's form.
    """
    from huggingface_hub import hf_hub_url

    commit, stored = list_files(hub, revision)
    names = split_files(hub, stored, split, config)
    urls = [hf_hub_url(hub.hub_id, n, repo_type="dataset", revision=commit) for n in names]
    with ThreadPoolExecutor(_FOOTER_READERS) as pool:
        answers = list(pool.map(lambda url: _read_footer(hub, url), urls))
    files = {url: stored for url, (_, stored) in zip(urls, answers, strict=True)}
    footers = [footer for footer, _ in answers]
    return make_source(hub.hub_id, commit, urls, footers, files)


def list_files(hub: Hub, revision: str | None) -> tuple[str, list[str]]:
    """The commit that a revision stands for, and the names of its files."""
    from huggingface_hub import HfApi

    def ask() -> Any:
        return HfApi().dataset_info(hub.hub_id, revision=revision, timeout=hub.timeout_s)

    try:
        info = hub.ask(ask)
    except ValueError as error:  # an id, an address or a token that cannot be sent
        raise DataError(
            f"data.hub_id={hub.hub_id}, HF_ENDPOINT or HF_TOKEN cannot be sent: {one_line(error)}"
        ) from error
    return str(info.sha), sorted(entry.rfilename for entry in info.siblings or ())


def split_files(hub: Hub, stored: list[str], split: str, config: str) -> list[str]:
    """The parquet files of a split, in stored order."""
    start = f"{config}/{split}-"
    files = [name for name in stored if name.startswith(start) and name.endswith(".parquet")]
    if not files:
        found = [name for name in stored if name.endswith(".parquet")]
        raise DataError(
            f"no split {split!r} in data set {hub.hub_id}: looked for {start}*.parquet; "
            f"{what_is_there(found, split)}"
        )
    return files


def _read_footer(hub: Hub, url: str) -> tuple[pq.FileMetaData, StoredFile]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    tail, size = hub.fetch_tail(url, _USUAL_FOOTER)
    length = int.from_bytes(tail[-_END:-4], "little") + _END
    if length > len(tail) and length <= size:
        pieces = io.BytesIO()
        hub.fetch(url, size - length, size - len(tail), lambda _, piece: pieces.write(piece))
        tail = pieces.getvalue() + tail
    tail = tail[-length:]
    try:
        return pq.read_metadata(pa.BufferReader(tail)), StoredFile(size, tail)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{url} is not a whole parquet file: {one_line(error)}") from error
