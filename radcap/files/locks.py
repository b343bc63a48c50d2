"""Locks that end with their process, also on file systems that know none.

The kernel's own lock (flock) goes with the process that holds it, however it ends. Some network
file systems refuse it: NFS without its lock service, Lustre without `-o flock`, some buckets that
are mounted as folders. There a file takes its place that only one process can make (O_EXCL), the
mark. It says who made it, so that one whose process is gone is known for what it is on the same
machine; on another one a person has to say so, by deleting it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import socket
import stat
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from radcap.errors import RadcapError
from radcap.files.mappings import parse_json
from radcap.files.reading import open_regular, read_text

LOCK = ".lock"  # the file in a folder that is locked in the folder's place
LOCK_FILES = {LOCK, f"{LOCK}.held"}  # the second one where the file system has no locks

_NO_FLOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_MOST_BYTES = 4_000
_LONGEST_NUMBER = 20  # digits of a process
_LONGEST_HOST = 80  # characters that are shown of a machine's name
_LOOK_EVERY_S = 0.5
_TRIES = 10  # to take the place of a mark that is nobody's any more


class InUse(Exception):
    """Another process holds the lock. The message says which, to follow "in use by"."""


@dataclass(frozen=True)
class _Owner:
    """Who made a mark.

    Attributes:
        process: its number.
        host: the machine's name, for people.
        since: when the mark was made, for people.
        kernel: what no two running machines share, nor one machine before and after a restart.
        numbers: the space that the number of the process belongs to; containers have their own.
        started: when the process began, in the kernel's ticks; numbers are given out again.
        token: of this mark alone.
    """

    process: int
    host: str
    since: str
    kernel: str
    numbers: str
    started: str
    token: str

    @classmethod
    def this(cls) -> _Owner:
        """The process that asks."""
        return cls(
            os.getpid(),
            socket.gethostname(),
            time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
            _kernel(),
            _numbers(),
            _start_of(os.getpid()),
            secrets.token_hex(8),
        )

    @classmethod
    def of(cls, mark: Path) -> _Owner | None:
        """Who made a mark; None where it does not say so: anybody may have written it.

        Raises:
            OSError: it cannot be read, or is not there.
        """
        try:
            found = cls(**parse_json(read_text(mark, most=_MOST_BYTES)))
        except (ValueError, TypeError):
            return None
        return found if type(found.process) is int and found.process > 0 else None

    def is_gone(self) -> bool:
        """Whether the process has certainly ended."""
        is_known = self.kernel and (self.kernel, self.numbers) == (_kernel(), _numbers())
        return bool(is_known) and _start_of(self.process) != self.started


class Lock:
    """A lock that this process holds until `close`, or its end.

    Processes that are forked from it do not: a loader process that outlives a killed run by a
    moment would keep the same command from beginning.
    """

    def __init__(self, descriptor: int, mark: Path | None, owner: _Owner | None) -> None:
        """Use `lock`."""
        self._descriptor: int | None = descriptor
        self._mark, self._owner = mark, owner
        _LOCKS.add(self)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """The file or folder that is locked, as it is open here."""
        assert self._descriptor is not None, "closed"
        return self._descriptor

    def is_held(self) -> bool:
        """Whether the lock is still this process's: a mark may have been deleted.

        Raises:
            OSError: that cannot be seen.
        """
        if self._mark is None:
            return True
        try:
            return _Owner.of(self._mark) == self._owner
        except FileNotFoundError:
            return False

    def follow(self, folder: Path) -> None:
        """The folder that the mark lies in has another name now."""
        if self._mark is not None:
            self._mark = folder / self._mark.name

    def close(self) -> None:
        """Let others have it. Safe to call twice."""
        if self._mark is not None:
            with suppress(OSError):  # a mount that has gone: the process's end will do
                if self.is_held():
                    self._mark.unlink(missing_ok=True)
        self._let_go()

    def _let_go(self) -> None:
        descriptor, self._descriptor, self._mark = self._descriptor, None, None
        if descriptor is not None:
            os.close(descriptor)


_LOCKS: weakref.WeakSet[Lock] = weakref.WeakSet()


def _let_all_go() -> None:
    for one in list(_LOCKS):
        one._let_go()


os.register_at_fork(after_in_child=_let_all_go)


def lock(descriptor: int, mark: Path, *, on_wait: Callable[[str], object] | None = None) -> Lock:
    """Lock an open file or folder.

    Args:
        descriptor: of the file or folder; what is returned closes it, and so does a failure.
        mark: the file that takes the lock's place where the file system has no locks.
        on_wait: wait for whoever has it; where it is a mark, this is called once, with a sentence.
            None: do not wait.

    Raises:
        InUse: another process has it.
        OSError: it cannot be locked.
    """
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if on_wait is None else 0))
        except BlockingIOError:
            raise InUse(_by_number(descriptor)) from None
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                raise
        else:
            return Lock(descriptor, None, None)
        return Lock(descriptor, mark, _make(mark, on_wait))
    except BaseException:
        os.close(descriptor)
        raise


def holder(descriptor: int, mark: Path) -> str | None:
    """Who holds a lock, looked for without taking it; None for nobody.

    Args:
        descriptor, mark: see `lock`.

    Raises:
        OSError: that cannot be seen.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _by_number(descriptor)
    except OSError as error:
        if error.errno not in _NO_FLOCK:
            raise
    else:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        return None
    try:
        owner = _Owner.of(mark)
    except FileNotFoundError:
        return None
    return None if owner is not None and owner.is_gone() else _by_owner(owner, mark)


def mark_of(file: Path) -> Path:
    """The mark that takes the place of a file's lock where the file system has none."""
    return file.with_name(f"{file.name}.held")


def lock_file(file: Path, *, on_wait: Callable[[str], object] | None = None) -> Lock:
    """Lock a file, making it where there is none.

    Args:
        file: what nothing else is written to.
        on_wait: see `lock`.

    Raises:
        InUse: another process has it.
        OSError: it cannot be locked, or is no file.
    """
    # A link would lead elsewhere, and a pipe would be waited for.
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"{file.name} is no file")
    return lock(descriptor, mark_of(file), on_wait=on_wait)


def lock_folder(path: Path, remedy: str, *, name: str = LOCK) -> Lock:
    """Lock a folder until the lock given back is closed, or the process ends, however it does.

    Args:
        path: the folder.
        remedy: what to do where another process has it.
        name: of the file in it that is held.

    Raises:
        RadcapError: another process has it; its number is named.
        OSError: the folder cannot be written.
    """
    try:
        held = lock_file(path / name)
    except InUse as error:
        raise in_use(path, str(error), remedy) from None
    os.ftruncate(held.fileno(), 0)
    os.pwrite(held.fileno(), str(os.getpid()).encode(), 0)
    return held


def folder_holder(path: Path) -> str | None:
    """The process that has a folder, looked for without changing it; None for nobody.

    Raises:
        OSError: the lock's file is there and cannot be read.
    """
    try:
        with open_regular(path / LOCK) as file:
            return holder(file.fileno(), mark_of(path / LOCK))
    except FileNotFoundError:
        return None


def in_use(path: Path, who: str, remedy: str) -> RadcapError:
    """What is said of a folder that another process has."""
    return RadcapError(f"{path} is in use by {who}; wait for it, or {remedy}")


def check_held(path: Path, held: Lock) -> None:
    """Make sure that a locked folder is still the one of that name, and still there.

    Raises:
        RadcapError: it was deleted, moved or replaced.
    """
    try:
        is_it = os.path.samestat((path / LOCK).stat(), os.fstat(held.fileno())) and held.is_held()
    except (FileNotFoundError, NotADirectoryError):
        is_it = False
    except OSError:  # a mount that has gone for a while
        return
    if not is_it:
        raise RadcapError(
            f"{path} was deleted, moved or replaced while it was in use: nothing more can be kept "
            "there; put it back where it was moved, or the same command starts anew"
        )


def lock_with_forks(folder: Path) -> int | None:
    """Lock a temporary folder without waiting, for this process and those forked from it.

    Returns:
        A descriptor: the folder is locked while any process has it open. None: another one holds
        it, it is no folder of this user's, or its file system has no locks.
    """
    try:
        # Anybody may put a pipe, a link or a folder of this name where temporary files go.
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(folder, flags)
    except OSError:
        return None
    try:
        if os.fstat(descriptor).st_uid == os.getuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def has_flock(folder: Path) -> bool:
    """Whether a folder's file system has locks; looked for by locking the folder for a moment.

    Raises:
        OSError: it cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _NO_FLOCK
    finally:
        os.close(descriptor)
    return True


def _make(mark: Path, on_wait: Callable[[str], object] | None) -> _Owner:
    """Make the mark, as soon as nobody has it."""
    ours, tries, told = _Owner.this(), 0, False
    while True:
        try:
            _write(mark, ours)
            return ours
        except FileExistsError:
            pass
        try:
            owner = _Owner.of(mark)
        except FileNotFoundError:
            continue  # it has just gone
        if owner is not None and owner.is_gone() and tries < _TRIES:
            tries += 1
            _clear_away(mark, owner)
        elif on_wait is None:
            raise InUse(_by_owner(owner, mark))
        else:
            if not told:
                told = True
                on_wait(f"waiting for {_by_owner(owner, mark)}")
            time.sleep(_LOOK_EVERY_S)


def _write(mark: Path, owner: _Owner) -> None:
    descriptor = os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123
        json.dump(asdict(owner), file)


def _clear_away(mark: Path, owner: _Owner) -> None:
    """Remove the mark of a process that is gone, unless somebody else has done so meanwhile."""
    aside = mark.with_name(f"{mark.name}.{secrets.token_hex(8)}")
    try:
        mark.rename(aside)
    except FileNotFoundError:
        return
    if _Owner.of(aside) != owner:  # that of a process which was faster: give it back
        with suppress(OSError):  # perhaps there is a third one, which then has it
            mark.hardlink_to(aside)
    aside.unlink(missing_ok=True)


def _by_number(descriptor: int) -> str:
    """Who holds a file's lock, by the number that it wrote there."""
    try:
        text = os.pread(descriptor, _LONGEST_NUMBER, 0).decode(errors="replace").strip()
    except OSError:  # a folder
        text = ""
    return f"process {text if text.isdecimal() else 'unknown'}"


def _by_owner(owner: _Owner | None, mark: Path) -> str:
    who = "process unknown"
    if owner is not None:
        host = ascii(str(owner.host)[:_LONGEST_HOST])[1:-1]
        who = f"process {owner.process} of {host} since {ascii(str(owner.since)[:40])[1:-1]}"
    return f"{who} (no longer? then delete {mark}: this file system has no locks)"


def _kernel() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _numbers() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _start_of(process: int) -> str:
    """When a process began, in ticks (proc(5): starttime); empty where there is none."""
    try:
        fields = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()
        return fields[19].decode()
    except (OSError, IndexError, ValueError):
        return ""
