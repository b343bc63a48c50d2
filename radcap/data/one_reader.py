"""One reader of rows at a time in a process, for which a fork waits."""

from __future__ import annotations

import functools
import os
import threading

# Held while rows are read, which is Python's work and gains nothing from a second thread. A fork
# waits for it, or what the reader holds at that moment would be held in the new process for ever.
reading = threading.Lock()


@functools.cache
def let_forks_wait() -> None:
    """Let forks of this process wait for its reader. To be called before the first one begins."""
    # What is registered last is waited for first. Packages that read have locks of their own which
    # a fork takes: whoever reads must have let go of ours before a fork takes those.
    import datasets  # noqa: F401

    os.register_at_fork(
        before=reading.acquire, after_in_parent=reading.release, after_in_child=reading.release
    )
