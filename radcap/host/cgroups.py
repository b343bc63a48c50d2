"""What a container, a batch system or systemd allows: the limits of this process's control groups.

A limit holds for all below it, so the tightest of a group and those above it counts. In a container
the group itself is mostly mounted as the root of all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_ROOT = Path("/")
_MOUNT = "sys/fs/cgroup"
_NO_LIMIT = 1 << 60  # bytes; cgroup 1 writes the largest multiple of a page

# Of cgroup 2 and of cgroup 1: limit, use, its parts, and the name of the page cache among them.
_MEMORY = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def cpu_quota(root: Path = _ROOT) -> float | None:
    """Processor seconds a second that may be used; None for no limit.

    Args:
        root: of the file system, for tests.
    """
    found = []
    for folder in _folders("cpu", root):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if not quota:
            quota, period = (_read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        if quota.isdecimal() and period.isdecimal() and int(period):  # neither "max" nor -1
            found.append(int(quota) / int(period))
    return min(found, default=None)


def memory_limit(root: Path = _ROOT) -> int | None:
    """Bytes that may be taken in all; None for no limit."""
    return min((limit for limit, _ in _memory(root)), default=None)


def memory_left(root: Path = _ROOT) -> int | None:
    """Bytes that may still be taken; None for no limit.

    What was read from files and is in no use is given back as soon as it is needed, and counts.
    """
    return min((left for _, left in _memory(root)), default=None)


def _memory(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and what is left of it, of every group that has one."""
    for folder in _folders("memory", root):
        stat = (line.partition(" ") for line in _read(folder / "memory.stat").splitlines())
        pages = {name: count for name, _, count in stat}
        for names in _MEMORY:
            found = [*(_read(folder / name) for name in names[:2]), pages.get(names[2], "0")]
            if not all(map(str.isdecimal, found)):  # "max", or no such file
                continue
            limit, used, cached = map(int, found)
            if limit < _NO_LIMIT:
                yield limit, limit - used + cached


def _folders(controller: str, root: Path) -> Iterator[Path]:
    """The folders of this process's groups, and of those above them, where they are to be seen."""
    mount = root / _MOUNT
    yield from (mount, mount / controller)
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        group = PurePosixPath(path.lstrip("/"))
        if ".." in group.parts:  # not below what is mounted here
            continue
        if not controllers:
            mounts = [mount, mount / "unified"]
        elif controller in controllers.split(","):
            mounts = [mount / controller, mount / controllers]
        else:
            continue
        for one in mounts:
            yield from (one / part for part in (group, *group.parents))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
