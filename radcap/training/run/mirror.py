"""A copy of the run folder where the machine's end does not reach it: any address of fsspec."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import fsspec

from radcap.errors import ConfigError, RadcapError, first_line
from radcap.files.atomic import beside, new_folder
from radcap.files.mappings import read_mapping
from radcap.host.console import heartbeat, say
from radcap.training.run.folder import CURVES

_CHECKPOINTS = "checkpoints"
_MANIFEST = "manifest.json"  # of a checkpoint: written last, read first


class Mirror:
    """A run folder's copy at an address such as gs://bucket/runs/epoch1.

    A checkpoint there is whole once it has its manifest, which is copied last and deleted first.
    """

    def __init__(self, address: str) -> None:
        """Open the address.

        Raises:
            RadcapError: its file system is not known or not installed, or cannot be reached.
        """
        self.address = address
        try:
            if "://" in address:
                self._fs, self._root = fsspec.core.url_to_fs(address)
            else:  # fsspec would part it at "::"
                self._fs, self._root = fsspec.filesystem("file"), str(Path(address).absolute())
        except (ImportError, ValueError) as error:
            hint = ": pip install 'radcap[gcs]'" if address.startswith(("gs:", "gcs:")) else ""
            raise RadcapError(f"run.mirror={address}: {first_line(error)}{hint}") from None

    def restore(self, folder: Path) -> None:
        """Bring the run back where the folder has none, or less of it.

        Raises:
            RadcapError: the address cannot be read.
        """
        with self._explained():
            there = self._steps()
            newest = max(there, default=0)
            if newest <= max(_local_steps(folder), default=0):
                return
            say(f"{folder}: going on from step {newest} of {self.address}")
            with heartbeat("fetching it"):
                self._fetch_all(there, folder)

    def refuse_a_run(self) -> None:
        """Make sure that a new run takes no other one's place there.

        Raises:
            ConfigError: a run lies there.
            RadcapError: the address cannot be read.
        """
        with self._explained():
            there = self._steps()
        if there:
            raise ConfigError(
                f"run.mirror={self.address} holds a run of {there[-1]} steps: give run.fresh=true "
                "another address, or leave it out to go on with that run"
            )

    def check_writable(self) -> None:
        """Write a small file there and delete it: a run that cannot be kept should not begin.

        Raises:
            RadcapError: the address cannot be written.
        """
        probe = f"{self._root}/.probe-{secrets.token_hex(8)}"
        with self._explained("cannot be written: "):
            self._fs.makedirs(self._root, exist_ok=True)
            self._fs.pipe_file(probe, b"radcap\n")
            self._fs.rm_file(probe)

    def _fetch_all(self, steps: Iterable[int], folder: Path) -> None:
        """Everything, the newest checkpoint last: where that is missing, this begins again."""
        (folder / _CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        for path in self._files(""):
            name = path.rpartition("/")[2]
            if name.startswith("."):  # such as the lock in use
                continue
            with beside(folder / name) as partial:
                self._fs.get_file(path, str(partial))
                partial.replace(folder / name)
        for step in steps:
            self._fetch(f"{_CHECKPOINTS}/step-{step}", folder / _CHECKPOINTS)

    def push(self, folder: Path) -> None:
        """Copy what is new: checkpoints first, then the curves, then drop what is gone here.

        Raises:
            RadcapError: the address cannot be written; what was whole there still is.
        """
        with self._explained():
            there, here = set(self._steps()), set(_local_steps(folder))
            for step in sorted(here):
                name = f"{_CHECKPOINTS}/step-{step}"
                if step not in there or not self._is_same(folder, f"{name}/{_MANIFEST}"):
                    self._send(folder / name, name)
            for name in ("", *CURVES):
                self._send_files(folder / name, name)
            for step in sorted(there - here):
                old = f"{self._root}/{_CHECKPOINTS}/step-{step}"
                self._fs.rm_file(f"{old}/{_MANIFEST}")
                self._delete(old)

    def _delete(self, folder: str) -> None:
        """Delete a folder of files; `rm` would take brackets in its name for a pattern."""
        for path in self._list(folder):
            self._fs.rm_file(path)
        with suppress(OSError):  # a bucket's folders go with their files
            self._fs.rmdir(folder)

    def _send_files(self, source: Path, name: str) -> None:
        """Copy the files of a folder, and drop there what is gone here."""
        target = f"{self._root}/{name}".rstrip("/")
        files = set()
        if source.is_dir():
            files = {file.name for file in source.iterdir() if file.is_file()}
            self._fs.makedirs(target, exist_ok=True)
        for file in sorted(file for file in files if not file.startswith(".")):
            self._fs.put_file(str(source / file), f"{target}/{file}")
        for path in self._files(name):  # a summary there would call a longer run finished
            if path.rpartition("/")[2] not in files:
                self._fs.rm_file(path)

    @contextmanager
    def _explained(self, what: str = "") -> Iterator[None]:
        """Every file system of fsspec has errors of its own; none of them may end a run."""
        try:
            yield
        except Exception as error:
            raise RadcapError(f"run.mirror={self.address}: {what}{first_line(error)}") from error

    def _is_same(self, folder: Path, name: str) -> bool:
        there: bytes = self._fs.cat_file(f"{self._root}/{name}")
        return there == (folder / name).read_bytes()

    def _steps(self) -> list[int]:
        """Steps of the whole checkpoints there."""
        found = []
        for path in self._list(f"{self._root}/{_CHECKPOINTS}"):
            number = path.rpartition("/step-")[2]
            if number.isdecimal() and self._fs.exists(f"{path}/{_MANIFEST}"):
                found.append(int(number))
        return sorted(found)

    def _list(self, path: str) -> list[str]:
        self._fs.invalidate_cache()
        try:
            return [str(entry).rstrip("/") for entry in self._fs.ls(path, detail=False)]
        except FileNotFoundError:
            return []

    def _files(self, name: str) -> Iterable[str]:
        path = f"{self._root}/{name}".rstrip("/")
        return [entry for entry in self._list(path) if self._fs.isfile(entry)]

    def _fetch(self, name: str, into: Path) -> None:
        """Fetch a checkpoint's folder; whole under its name or not there."""
        final = into / name.rpartition("/")[2]
        with new_folder(final, last=_MANIFEST) as partial:
            for path in self._files(name):
                self._fs.get_file(path, str(partial / path.rpartition("/")[2]))
            shutil.rmtree(final, ignore_errors=True)

    def _send(self, source: Path, name: str) -> None:
        target = f"{self._root}/{name}"
        self._fs.makedirs(target, exist_ok=True)
        if self._fs.exists(f"{target}/{_MANIFEST}"):  # of another run's checkpoint
            self._fs.rm_file(f"{target}/{_MANIFEST}")
        names = [*(read_mapping(source / _MANIFEST) or {}), _MANIFEST]
        for file in names:
            self._fs.put_file(str(source / Path(file).name), f"{target}/{Path(file).name}")


def _local_steps(folder: Path) -> list[int]:
    names = (path.parent.name for path in (folder / _CHECKPOINTS).glob(f"step-*/{_MANIFEST}"))
    return [int(n.removeprefix("step-")) for n in names if n.removeprefix("step-").isdecimal()]
