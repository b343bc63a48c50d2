"""The run folder: who may use it, what an earlier run left there, and what must stay the same.

    config.yaml  versions.json  metrics.jsonl  val_metrics.jsonl  events.out.tfevents.*
    train/  val/  bound/  checkpoints/step-N/  summary.json

Imports no torch: a folder that cannot be used is refused at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from radcap.config.compose import read_config, to_yaml
from radcap.config.options import options_where, value_of
from radcap.config.schema import Config
from radcap.errors import ConfigError, RadcapError, first_line
from radcap.files.atomic import move_folder, write_atomically
from radcap.files.locks import LOCK, Lock, check_held, folder_holder, in_use, lock_folder
from radcap.files.mappings import json_text, read_mapping
from radcap.files.names import is_data_revision

_REMEDY = "choose another run.name"
CURVES = (
    "train",
    "val",
    "bound",
)  # folders of TensorBoard's files, see `training.log.curves`

_PACKAGES = ("torch", "torchvision", "torch_xla", "transformers", "datasets", "hydra-core")


class RunFolder:
    """An open run folder, locked until `close` (or the end of the process, however it comes).

    Opening it changes nothing that an earlier run left; `accept` does, once the run is sure to
    begin. A command that is refused later, for its data or its device, leaves all as it was.

    Of processes that train together the first one holds the folder; the others read it, and come
    to the same conclusions.

    Attributes:
        path: the folder.
        resumed: whether an earlier run was found here.
        finished: whether that run reached the length that is asked for now.
        versions: what versions.json holds; `data_revision` is added by the trainer.
        is_ours: whether this process holds the folder and writes into it.
    """

    def __init__(self, config: Config, *, is_ours: bool = True) -> None:
        """Lock the folder, making it where there is none, and hold it against the configuration.

        Args:
            config: the checked configuration.
            is_ours: False in all but the first of processes that train together.

        Raises:
            ConfigError: a bound option differs from the run found here, or the folder holds
                something else.
            RadcapError: another process uses it, or it cannot be written.
        """
        self.path = Path(config.run.dir)
        self.is_ours = is_ours
        self._config = config
        self._made: list[Path] = []  # folders that were not there before
        self._lock = self._take() if is_ours else None
        self.resumed = self.config_file.exists() and not config.run.fresh
        self.finished = False
        try:
            self._compare(config)
        except RadcapError:
            self.close()
            raise

    def _compare(self, config: Config) -> None:
        """Hold what an earlier run left against the configuration."""
        if self.resumed:
            before = _read_config(self.config_file)
            _refuse_changes(self.path, before, config)
            ends = options_where(Config, "ends_run")
            unchanged = all(value_of(before, name) == value_of(config, name) for name in ends)
            self.finished = unchanged and bool(self.summary().get("finished"))
            self.versions = _read_json(self.path / "versions.json")
            if self.versions.get("data_revision") and revision_in(self.versions) is None:
                raise _damaged(self.path / "versions.json")
        else:
            self.versions = _versions()

    @classmethod
    def look(cls, config: Config) -> RunFolder:
        """Judge the folder as a run that opens it would, and touch nothing.

        Raises:
            RadcapError: as when it is opened.
        """
        folder = cls(config, is_ours=False)
        try:
            folder._check_place()
            who = folder_holder(folder.path)
        except OSError as error:
            raise folder._unusable(error) from None
        if who is not None:
            raise in_use(folder.path, who, _REMEDY)
        return folder

    def _check_place(self) -> None:
        if self.path.is_dir() and not self._holds_run() and any(self.path.iterdir()):
            raise ConfigError(
                f"run.dir={self.path}: the folder is not empty and holds no run; choose another"
            )
        if self._config.run.fresh:
            check_movable(self.path)

    def _take(self) -> Lock:
        try:
            self._check_place()
            self._made = [one for one in (self.path, *self.path.parents) if not one.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            return lock_folder(self.path, _REMEDY)
        except OSError as error:
            raise self._unusable(error) from None

    def _unusable(self, error: OSError) -> RadcapError:
        return RadcapError(f"run.dir={self.path} cannot be used: {error.strerror or error}")

    def accept(self) -> None:
        """Note down that the run begins, or goes on, with this configuration.

        With `run.fresh` the run found here is moved aside now. A summary of a shorter run is
        deleted first: it would call the longer one finished.

        Raises:
            RadcapError: the folder cannot be written.
        """
        if not self.is_ours:
            return
        try:
            self._begin()
        except OSError as error:
            raise self._unusable(error) from None

    def _begin(self) -> None:
        for name in ("checkpoints", "profile", *CURVES):
            if (self.path / name).is_symlink():
                raise ConfigError(
                    f"{self.path / name} is a link, which would lead out of the run folder; link "
                    "the whole folder instead"
                )
        if self._config.run.fresh and self.config_file.exists():
            old = self._lock
            aside = move_aside(self.path)
            self.path.mkdir()
            self._lock = lock_folder(self.path, _REMEDY)
            if old is not None:
                old.follow(aside)
                old.close()
        self._made = []
        (self.path / "summary.json").unlink(missing_ok=True)
        write_atomically(self.path / "versions.json", json.dumps(self.versions, indent=2))
        write_atomically(self.config_file, to_yaml(self._config))

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def summary(self) -> dict[str, Any]:
        """What summary.json holds, or nothing before the first run ended."""
        return _read_json(self.path / "summary.json")

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write summary.json, whole or not at all.

        Raises:
            RadcapError: the folder cannot be written, or is not there any more.
        """
        self.check()
        if self.is_ours:
            try:
                write_atomically(self.path / "summary.json", json_text(summary, indent=2) + "\n")
            except OSError as error:
                raise self._unusable(error) from None

    def check(self) -> None:
        """Make sure that the folder is there still: see `check_held`."""
        if self._lock is not None:
            check_held(self.path, self._lock)

    def pin_data_revision(self, revision: str) -> None:
        """Keep the revision of the data for the run's life.

        Raises:
            ConfigError: the run began with another one.
        """
        pinned = self.versions.get("data_revision")
        if pinned not in (None, revision) and not self._config.data.accept_revision:
            raise ConfigError(
                f"{self.path} began with data revision {pinned}, and the data is now {revision}; "
                "give the old data back, start a new run (run.fresh=true or another run.name), or "
                "go on with other rows (data.accept_revision=true)"
            )
        self.versions["data_revision"] = revision

    def close(self) -> None:
        """Let other processes in. A folder made for a run that did not begin goes again."""
        if self._lock is None:
            return
        if self._made:
            (self.path / LOCK).unlink(missing_ok=True)
        self._lock.close()
        with contextlib.suppress(OSError):  # somebody put something there
            for folder in self._made:
                folder.rmdir()

    def _holds_run(self) -> bool:
        return (self.path / LOCK).exists() or self.config_file.exists()


def _read_config(path: Path) -> Config:
    try:
        return read_config(path)
    except ConfigError as error:
        raise ConfigError(
            f"{path} is not a configuration of this version ({first_line(error)}); "
            "run.fresh=true starts anew"
        ) from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = read_mapping(path)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RadcapError(f"{path} cannot be read: {error.strerror}") from None
    if content is None:
        raise _damaged(path)
    return content


def _damaged(path: Path) -> RadcapError:
    return RadcapError(f"{path} is damaged; put it right, or run.fresh=true starts anew")


def revision_in(versions: Mapping[str, Any]) -> str | None:
    """The commit or fingerprint of the data in a run's versions.json; None where it has none."""
    revision = versions.get("data_revision")
    return revision if is_data_revision(revision) else None


def check_movable(path: Path) -> None:
    """Refuse to move aside the folder that the command was given in.

    Raises:
        ConfigError: it is that one.
    """
    if path.resolve() == Path.cwd():
        raise ConfigError(
            f"run.dir={path}: the folder in use cannot be moved aside; choose another"
        )


def move_aside(path: Path) -> Path:
    """Move a folder to NAME.old-N, with the least free number; what it is called now."""
    path = Path(os.path.abspath(path))  # noqa: PTH100 a link is moved, not what it leads to
    number = 1
    while (aside := path.with_name(f"{path.name}.old-{number}")).exists():
        number += 1
    move_folder(path, aside)
    return aside


def _refuse_changes(path: Path, before: Config, now: Config) -> None:
    free = {"data.revision"} if now.data.accept_revision else set()
    bound = [name for name in options_where(Config, "is_free", False) if name not in free]
    pairs = {name: (value_of(before, name), value_of(now, name)) for name in bound}
    changed = [f"{name} ({old} -> {new})" for name, (old, new) in pairs.items() if old != new]
    if changed:
        shown = ", ".join(changed[:4])
        more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
        raise ConfigError(
            f"{path} holds a run with other settings: {shown}{more}; "
            "take them back, or start a new run (run.fresh=true or another run.name)"
        )


def _versions() -> dict[str, Any]:
    from radcap import __version__

    versions: dict[str, Any] = {"radcap": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return versions
