"""What processes hold of the machine's memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def held(pids: Sequence[int], kinds: Sequence[str] = ("Pss_Anon:", "Pss_Shmem:")) -> int:
    """Bytes that processes hold; what they share counts once over all.

    Args:
        kinds: of memory, lines of proc(5)'s smaps_rollup.
    """
    texts = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
    return 1024 * sum(int(text.partition(kind)[2].split()[0]) for text in texts for kind in kinds)
