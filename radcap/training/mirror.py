"""A copy of the run folder where the machine's end does not reach it: any address of fsspec."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import fsspec

from radcap.console import heartbeat, say
from radcap.errors import RadcapError, first_line

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
            self._fs, self._root = fsspec.core.url_to_fs(address)
        except (ImportError, ValueError) as error:
            hint = ": pip install 'radcap[gcs]'" if address.startswith(("gs:", "gcs:")) else ""
            raise RadcapError(f"run.mirror={address}: {first_line(error)}{hint}") from None

    def restore(self, folder: Path) -> None:
        """Bring the run back where the folder has none, or less of it.

        Raises:
            RadcapError: the address cannot be read.
        """
        try:
            there = self._steps()
            newest = max(there, default=0)
            if newest <= max(_local_steps(folder), default=0):
                return
            say(f"{folder}: going on from step {newest} of {self.address}")
            with heartbeat("fetching it"):
                self._fetch_all(there, folder)
        except OSError as error:
            raise self._unusable(error) from error

    def _fetch_all(self, steps: Iterable[int], folder: Path) -> None:
        (folder / _CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        for step in steps:
            self._fetch(f"{_CHECKPOINTS}/step-{step}", folder / _CHECKPOINTS)
        for path in self._files(""):
            name = path.rpartition("/")[2]
            if name.startswith("."):  # such as the lock in use
                continue
            partial = folder / f".{name}.partial"
            self._fs.get_file(path, str(partial))
            partial.replace(folder / name)

    def push(self, folder: Path) -> None:
        """Copy what is new: checkpoints first, then the curves, then drop old checkpoints.

        Raises:
            RadcapError: the address cannot be written; what was whole there still is.
        """
        try:
            there, here = set(self._steps()), set(_local_steps(folder))
            for step in sorted(here - there):
                self._send(folder / _CHECKPOINTS / f"step-{step}", f"{_CHECKPOINTS}/step-{step}")
            for file in sorted(folder.iterdir()):
                if file.is_file() and not file.name.startswith("."):
                    self._fs.makedirs(self._root, exist_ok=True)
                    self._fs.put_file(str(file), f"{self._root}/{file.name}")
            for step in sorted(there - here):
                old = f"{self._root}/{_CHECKPOINTS}/step-{step}"
                self._fs.rm_file(f"{old}/{_MANIFEST}")
                self._fs.rm(old, recursive=True)
        except OSError as error:
            raise self._unusable(error) from error

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
        partial = into / f".{final.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for path in self._files(name):
            self._fs.get_file(path, str(partial / path.rpartition("/")[2]))
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)

    def _send(self, source: Path, name: str) -> None:
        target = f"{self._root}/{name}"
        self._fs.makedirs(target, exist_ok=True)
        names = [*json.loads((source / _MANIFEST).read_text()), _MANIFEST]
        for file in names:
            self._fs.put_file(str(source / Path(file).name), f"{target}/{Path(file).name}")

    def _unusable(self, error: OSError) -> RadcapError:
        return RadcapError(f"run.mirror={self.address}: {first_line(error)}")


def open_mirror(address: str | None) -> Mirror | None:
    """The mirror of a run, None where there is none."""
    return None if address is None else Mirror(address)


def _local_steps(folder: Path) -> list[int]:
    names = (path.parent.name for path in (folder / _CHECKPOINTS).glob(f"step-*/{_MANIFEST}"))
    return [int(n.removeprefix("step-")) for n in names if n.removeprefix("step-").isdecimal()]
