"""The folder of an evaluation: who may write it, whose results it holds, and how far they go.

    evaluation.json  rows.jsonl  pictures/  results.json  results.md  worst.html

Imports no torch.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from radcap.errors import ConfigError, RadcapError
from radcap.evaluation.results import RowResult
from radcap.files.atomic import write_atomically
from radcap.files.durable import DurableFile
from radcap.files.locks import LOCK, LOCK_FILES, Lock, check_held, lock_folder
from radcap.files.mappings import read_mapping
from radcap.files.reading import read_bytes, read_lines
from radcap.training.run.folder import move_aside

_IDENTITY, _ROWS, _PICTURES = "evaluation.json", "rows.jsonl", "pictures"
_REMEDY = "choose another evaluate.out"
_ANEW = "evaluate.fresh=true starts anew"
_LONGEST_LINE = 1_000_000  # bytes
_MOST_PICTURE_BYTES = 1_000_000  # of 224 x 224 pixels
_PICTURE = re.compile(r"\d+\.png")


class EvaluationFolder:
    """An open folder of results, locked until `close`.

    Of processes that evaluate together the first one holds the folder; the others read it.

    Attributes:
        path: the folder.
        results: the rows scored so far, in their order; rows 0 to `len(results) - 1`.
        identity: what the results found here are of; empty where there are none.
    """

    def __init__(self, path: Path, *, fresh: bool = False, is_ours: bool = True) -> None:
        """Lock the folder, making it where there is none, and read what it holds.

        Args:
            path: the folder.
            fresh: move results found here aside.
            is_ours: False in all but the first of processes that evaluate together.

        Raises:
            ConfigError: the folder holds something else.
            RadcapError: another process uses it, or it cannot be written.
        """
        self.path = path
        self._lock: Lock | None = None
        self._file: DurableFile | None = None
        self._made: list[Path] = []  # folders that were not there before
        self._num_whole = 0  # bytes of whole lines in rows.jsonl
        self.results: list[RowResult] = []
        self.identity: dict[str, Any] = {}
        try:
            if is_ours:
                self._take(fresh)
            if not fresh:
                self._read()
        except OSError as error:
            self.close()
            raise RadcapError(
                f"evaluate.out={path} cannot be used: {error.strerror or error}"
            ) from None
        except RadcapError:
            self.close()
            raise

    def _take(self, fresh: bool) -> None:
        for file in (self.path, *(self.path / name for name in (_IDENTITY, _ROWS, _PICTURES))):
            if file.is_symlink():
                raise ConfigError(
                    f"{file} is a link, and what is written here would go where it leads; choose "
                    "another evaluate.out"
                )
        found = {file.name for file in self.path.iterdir()} if self.path.is_dir() else set()
        if found:
            # A process that was killed at its start leaves its lock alone; so does many a run.
            if found - LOCK_FILES and _IDENTITY not in found:
                raise ConfigError(
                    f"evaluate.out={self.path}: the folder is not empty and holds no evaluation; "
                    "choose another"
                )
            if fresh:
                lock_folder(self.path, _REMEDY).close()  # nobody writes there
                move_aside(self.path)
        self._made = [one for one in (self.path, *self.path.parents) if not one.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = lock_folder(self.path, _REMEDY)

    def _read(self) -> None:
        file = self.path / _IDENTITY
        if not file.exists():
            return
        identity = read_mapping(file)
        if identity is None:
            raise RadcapError(f"{file} is damaged; {_ANEW}")
        rows = self.path / _ROWS
        for line in read_lines(rows, most=_LONGEST_LINE) if rows.exists() else ():
            if not line.endswith(b"\n"):
                break  # of a process that was killed while writing
            try:
                result = RowResult.from_line(line)
            except ValueError:
                raise RadcapError(f"{rows} is damaged; {_ANEW}") from None
            if result.row != len(self.results):
                raise RadcapError(f"{rows} lacks rows; {_ANEW}")
            self.results.append(result)
            self._num_whole += len(line)
        if self.results:  # else nothing was scored, and other settings do as well
            self.identity = identity

    def accept(self, identity: Mapping[str, Any]) -> None:
        """Note down what is scored, or make sure that the results found here are of just that.

        Args:
            identity: plain values by name. Rows found here have to know them all.

        Raises:
            ConfigError: they are of something else; the message names what.
        """
        known = identity if self.results else identity.keys() & self.identity.keys()
        changed = [
            f"{name} ({_short(self.identity.get(name, 'unknown'))} -> {_short(identity[name])})"
            for name in identity
            if name in known and self.identity.get(name, _UNKNOWN) != identity[name]
        ]
        if changed:
            raise ConfigError(
                f"{self.path} holds results of another evaluation: {', '.join(changed)}; choose "
                "another evaluate.out, or start anew (evaluate.fresh=true)"
            )
        self.note(identity)

    def forget(self) -> None:
        """Take back what was noted down for an evaluation that cannot begin; rows found stay."""
        if self._made and not self.results:
            self.identity = {}
            (self.path / _IDENTITY).unlink(missing_ok=True)

    def note(self, facts: Mapping[str, Any]) -> None:
        """Note down plain values, by name, in the place of earlier ones."""
        if all(self.identity.get(name) == value for name, value in facts.items()):
            return
        self.identity = {**self.identity, **facts}
        if self._lock is not None:
            self.write(_IDENTITY, json.dumps(self.identity, indent=2) + "\n")

    def append(self, results: Iterable[RowResult], pictures: Mapping[int, bytes]) -> None:
        """Add the rows that follow, with the pictures (PNG, by row) that may be shown later.

        Raises:
            RadcapError: the folder cannot be written any more.
        """
        if self._lock is None:
            return
        results = list(results)
        check_held(self.path, self._lock)
        try:
            if self._file is None:
                (self.path / _PICTURES).mkdir(exist_ok=True)
                rows = self.path / _ROWS
                if rows.exists():  # with half a line of a process that was killed
                    os.truncate(rows, self._num_whole)
                self._file = DurableFile(rows)
            # Before the rows: a row that is there has its picture.
            for row, picture in pictures.items():
                self.picture(row).unlink(missing_ok=True)  # a link there would lead elsewhere
                with self.picture(row).open("xb") as stream:
                    stream.write(picture)
        except OSError as error:
            raise RadcapError(f"{self.path} cannot be written: {error.strerror}") from None
        self._file.append(b"".join(result.to_line() for result in results))
        self.results += results

    def settle(self) -> None:
        """Make sure that every row is in the file.

        Raises:
            RadcapError: the disk does not take them.
        """
        if self._file is None:
            return
        self._file.append(b"")
        if self._file.waits:
            raise RadcapError(
                f"{self._file.path}: the last rows could not be written; free some space, and the "
                "same command goes on from what is there"
            )

    def picture(self, row: int) -> Path:
        """Where a row's picture lies, if it does."""
        return self.path / _PICTURES / f"{row}.png"

    def read_picture(self, row: int) -> bytes | None:
        """A row's picture; None where it was not kept."""
        try:
            return read_bytes(self.picture(row), most=_MOST_PICTURE_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RadcapError(f"{self.picture(row)}: {error.strerror}") from None

    def keep_pictures(self, rows: Iterable[int]) -> None:
        """Delete the pictures of all other rows, and nothing else."""
        kept = {self.picture(row) for row in rows}
        for file in (self.path / _PICTURES).glob("*.png"):
            if file not in kept and _PICTURE.fullmatch(file.name):
                file.unlink()

    def write(self, name: str, text: str) -> None:
        """Write a file of the report, whole or not at all.

        Raises:
            RadcapError: it cannot be written, or the folder is not there any more.
        """
        if self._lock is not None:
            check_held(self.path, self._lock)
        try:
            write_atomically(self.path / name, text)
        except OSError as error:
            raise RadcapError(f"{self.path / name}: {error.strerror}") from None

    def close(self) -> None:
        """Let other processes in. A folder made for an evaluation that did not begin goes again."""
        if self._file is not None:
            self._file.close()
        if self._lock is None:
            return
        if not self._made or self.identity:
            self._lock.close()
            return
        (self.path / LOCK).unlink(missing_ok=True)
        self._lock.close()
        with suppress(OSError):  # somebody put something there
            for folder in self._made:
                folder.rmdir()


_UNKNOWN = object()


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) in (40, 64) else text  # a commit or a hash
