"""What the data of a run takes of memory and disk, reported before any of it is taken."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from radcap.data.image.decode import IMAGE_SIZE
from radcap.errors import ConfigError, RadcapError
from radcap.host.cgroups import memory_limit

# 8,000 training and 600 validation pictures take 267 MB.
BYTES_PER_PHANTOM_ROW = 31e3
_BATCHES_AT_ONCE = 2  # one is used while the next one is made
_SHARE = 0.5  # of the memory, for pictures


def check_batch_memory(batch_size: int, num_hosts: int) -> None:
    """Refuse a batch whose pictures this machine cannot hold.

    Args:
        batch_size: rows of all hosts together.
        num_hosts: among which they are dealt.

    Raises:
        ConfigError: it is too large.
    """
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    most = _SHARE * min(there, memory_limit() or there)
    need = _BATCHES_AT_ONCE * batch_size / num_hosts * 3 * IMAGE_SIZE**2
    if need > most:
        fits = int(most / (need / batch_size))
        raise ConfigError(
            f"data.batch_size={batch_size}: the pictures alone take {need / 1e9:.0f} GB of memory; "
            f"at most {fits:,} fit on this machine"
        )


def check_phantom_disk(folder: Path, rows: int) -> None:
    """Refuse to draw more pictures than the disk has room for.

    Args:
        folder: where they go; perhaps still to be made.
        rows: how many there are.

    Raises:
        RadcapError: there is less room.
    """
    while not folder.exists():
        folder = folder.absolute().parent
    need, free = rows * BYTES_PER_PHANTOM_ROW, shutil.disk_usage(folder).free
    if need > free:
        raise RadcapError(
            f"{folder}: {rows:,} pictures of the phantom data set take {need / 1e9:.0f} GB and "
            f"{free / 1e9:.0f} GB are free; export RADCAP_CACHE=FOLDER on a larger disk, or lower "
            "data.phantom.train_rows and data.phantom.val_rows"
        )
