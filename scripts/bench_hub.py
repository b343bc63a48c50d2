"""Bytes fetched from the Hub against the bytes of the row groups read, one pass by two workers."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from bench_split import BATCH_SIZE, ROWS, open_loader, order_of, phantom_folder, say_load

from radcap.data.collate import BatchCounts
from radcap.data.open import open_source
from radcap.data.source import Source
from radcap.errors import RadcapError
from radcap.host.console import say

_TESTS = Path(__file__).parent.parent / "tests"


def bench_hub(*, rows: int = ROWS, batch_size: int = BATCH_SIZE) -> None:
    """Print what a stand-in for the Hub on loopback has sent for the batches of a pass (extra dev).

    Apart: the footers, and what the workers have read ahead for the next pass.

    Args:
        rows: size of the phantom's training split.
        batch_size: rows in a batch.
    """
    if find_spec("pytest") is None:
        raise RadcapError("the stand-in for the Hub belongs to the tests: pip install -e '.[dev]'")
    folder = phantom_folder(rows)
    sys.path.append(str(_TESTS))
    from hub.stand_in import HUB_ID, serving

    with serving(folder) as stand_in:
        os.environ["HF_ENDPOINT"] = stand_in.endpoint  # before the client is imported
        os.environ["no_proxy"] = "127.0.0.1,localhost"
        os.environ.pop("HF_HUB_OFFLINE", None)
        from radcap.data.hub.download import Hub

        hub = Hub(HUB_ID, patience_s=60.0, timeout_s=20.0)
        source = open_source(split="train", path=None, config="alignment", hub=hub)
        footers = stand_in.bytes_served
        counts = _one_pass(source, hub, batch_size)
        sent = stand_in.bytes_served - footers
    stored = sum(group.stop - group.start for group in source.row_groups)
    fetched = counts.traffic.bytes
    assert counts.rows == source.num_rows, "rows are missing"
    assert stored <= fetched <= sent, "bytes are not counted"
    say(f"{source.num_rows:,} rows in {len(source.row_groups)} row groups, each read once")
    say(f"the row groups         {stored:13,} bytes")
    say(f"fetched from the Hub   {fetched:13,} bytes in {counts.traffic.requests} requests")
    say(f"ratio                  {fetched / stored:13.4f}x")
    say(f"to open, once          {footers:13,} bytes: the ends of {len(source.files)} files")
    say(f"ahead, for the next    {sent - fetched:13,} bytes, when the pass had ended")
    say_load()


def _one_pass(source: Source, hub: object, batch_size: int) -> BatchCounts:
    """Every row of the split, once; what was counted with the batches."""
    order = order_of(source, batch_size)
    total = BatchCounts()
    loader = open_loader(source, order, hub=hub, max_rows=order.num_rows)
    try:
        for batch in loader:
            total.rows += batch.counts.rows
            total.traffic += batch.counts.traffic
    finally:
        loader.close()
    return total
