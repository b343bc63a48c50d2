"""What large row groups cost in memory, measured on real files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import ROOT, run_python
from data.conftest import png, row

GROUP_ROWS, GROUPS_PER_LANE = 2580, 2
BYTES_PER_ROW = 39_000

PROGRAM = """
import json, os, sys, threading
from itertools import islice
from memory_use import held
from radcap.data.collate import load_tokenizer
from radcap.data.loader import Loader
from radcap.data.order import Order, wide_window
from radcap.data.shelf import SPOOLED_BYTES
from radcap.data.open import open_source

source = open_source(split="train", path=sys.argv[1], config="alignment")
lanes = int(sys.argv[2])
num_bytes = [group.num_bytes for group in source.row_groups]
order = Order([g.num_rows for g in source.row_groups], num_bytes, seed=0, batch_size=64,
    lanes=lanes, window_bytes=wide_window(num_bytes, lanes, 10**8, SPOOLED_BYTES))
loader = Loader(source, order, load_tokenizer(), workers=2, max_length=16)
pids = [os.getpid(), *(process.pid for process in loader._pool._processes)]
peak = dict.fromkeys(pids, 0)
done = threading.Event()
def watch():
    while not done.wait(0.03):
        for pid in pids:
            peak[pid] = max(peak[pid], held([pid], ["Pss_Anon:"]))
thread = threading.Thread(target=watch); thread.start()
rows = sum(int(batch.valid.sum()) for batch in islice(loader, order.batches_per_epoch))
spooled = sum(file.stat().st_size for file in loader._spool.folder.iterdir())
done.set(); thread.join(); loader.close()
print(json.dumps({"rows": rows, "peak": list(peak.values())}))
"""


def output_of(program: str, *words: str | Path) -> str:
    done = run_python(program, *words, PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def measure(folder: Path, lanes: int) -> list[int]:
    """Peak bytes of the main process and of each of two workers."""
    found = json.loads(output_of(PROGRAM, folder, str(lanes)))
    assert found["rows"] == GROUP_ROWS * GROUPS_PER_LANE * lanes
    return found["peak"]


@pytest.mark.slow
def test_sixty_four_lanes_over_groups_of_100_mb_stay_under_4_gb(tmp_path: Path) -> None:
    """Measured with 4 lanes and with 2, and scaled by what a lane adds."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(GROUP_ROWS):
        # Pillow reads no further than a picture's end.
        picture = png(number % 7) + rng.bytes(BYTES_PER_ROW - 5000)
        rows.append(row(number, image={"bytes": picture, "path": ""}))
    table = pa.Table.from_pylist(rows)
    del rows
    peaks = {}
    for lanes in (2, 4):
        folder = tmp_path / str(lanes)
        (folder / "alignment").mkdir(parents=True)
        path = folder / "alignment" / "train-00000-of-00001.parquet"
        with pq.ParquetWriter(path, table.schema, compression="none") as writer:
            for _ in range(lanes * GROUPS_PER_LANE):
                writer.write_table(table, row_group_size=GROUP_ROWS)
        assert pq.ParquetFile(path).metadata.row_group(0).total_byte_size > 95e6
        peaks[lanes] = measure(folder, lanes)
        path.unlink()
    total = {lanes: sum(peak) for lanes, peak in peaks.items()}
    lane = max(0.0, (total[4] - total[2]) / 2)
    scaled = total[4] + 60 * lane
    print(
        f"main {peaks[4][0] / 1e6:.0f} MB, workers {[round(p / 1e6) for p in peaks[4][1:]]} MB, "
        f"a lane {lane / 1e6:.1f} MB: {scaled / 1e9:.2f} GB with 64 lanes"
    )
    assert scaled < 4e9


UNSHARED = """
import gc, os
from memory_use import family, held
from radcap.data.workers import WorkerPool

kept = [[number] for number in range(600_000)]  # about 40 MB that the workers share
pool = WorkerPool([lambda number, images: number] * 2, (1, 1, 1), 1, 0)
pool.get(0)
before = held(family(os.getpid()))
gc.collect()
print(before, held(family(os.getpid())))
pool.close()
"""


def test_a_garbage_collection_copies_nothing_that_workers_share() -> None:
    before, after = map(int, output_of(UNSHARED).split())
    assert after < before + 5e6


STREAMED = """
import os, sys
from itertools import islice
from memory_use import family, held
from radcap.data.collate import load_tokenizer
from radcap.data.loader import Loader
from radcap.data.order import Order
from radcap.data.open import open_source

source = open_source(split="train", path=sys.argv[1], config="alignment")
groups = source.row_groups
order = Order([g.num_rows for g in groups], [g.num_bytes for g in groups], seed=0,
    batch_size=32, lanes=4, window_bytes=10**6)
loader = Loader(source, order, load_tokenizer(), workers=2, max_length=16, ahead_bytes=10**6)
batches, peaks = iter(loader), []
for _ in range(4):
    peaks.append(max(
        held(family(os.getpid()))
        for n, _ in enumerate(islice(batches, 3 * order.batches_per_epoch)) if n % 4 == 0))
print(*peaks)
loader.close()
"""


def test_epoch_after_epoch_takes_no_more(tmp_path: Path) -> None:
    """Three epochs at a time: what is kept of each row would be 30 MB more of pictures alone."""
    rng = np.random.default_rng(0)
    rows = [
        row(number, image={"bytes": png(number % 7) + rng.bytes(25_000), "path": ""})
        for number in range(400)
    ]
    (tmp_path / "alignment").mkdir()
    path = tmp_path / "alignment" / "train-00000-of-00001.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=20, compression="none")
    first, *later = map(int, output_of(STREAMED, tmp_path).split())
    assert max(later) < first + 15e6, later
