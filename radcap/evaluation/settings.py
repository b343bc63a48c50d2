"""What an evaluation takes from the run it scores: the data's settings, and their revision.

Imports no torch: a run that is not there is refused at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from radcap.config import Config
from radcap.errors import ConfigError
from radcap.overrides import quoted

# How a machine reads the data, not what the data is.
_OF_THE_MACHINE = (
    *("workers", "prefetch", "hub_patience_s", "hub_timeout_s"),
    *("cache", "cache_gb", "cache_decoded", "local_copy"),
)


def take_run(words: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Part `run=RUN` from the other words of a command line.

    Raises:
        ConfigError: no such run, or two of them.
    """
    runs = [word.removeprefix("run=") for word in words if word.startswith("run=")]
    rest = [word for word in words if not word.startswith("run=")]
    if not runs:
        return None, rest
    if len(runs) > 1:
        raise ConfigError(f"run={runs[1]}: one run at a time; run={runs[0]} stands before it")
    run = Path(runs[0]).expanduser()
    if not (run / "config.yaml").is_file():
        other = f"; for weights without a run: evaluate.weights={run}" if run.exists() else ""
        raise ConfigError(f"run={run}: no run folder, it holds no config.yaml{other}")
    return run, rest


def data_settings(run: Path, words: Sequence[str]) -> list[str]:
    """The run's settings of its data as overrides, to stand before those of the command line.

    Args:
        run: the run folder.
        words: the user's overrides; a data group among them takes the place of the run's.

    Raises:
        ConfigError: the run's config.yaml cannot be read.
    """
    if any(word.startswith("data=") for word in words):
        return []
    file = run / "config.yaml"
    try:
        data = yaml.safe_load(file.read_text())["data"]
        overrides = list(_overrides(data, "data."))
    except (OSError, yaml.YAMLError, RecursionError, KeyError, TypeError, ValueError):
        raise ConfigError(f"{file}: not the configuration of a run, it has no data") from None
    return overrides


def pinned_revision(run: Path | None, config: Config) -> str | None:
    """The Hub commit that the run was trained on, where the same data set is scored."""
    if run is None or config.data.name != "hub" or config.data.path is not None:
        return None
    try:
        hub_id = yaml.safe_load((run / "config.yaml").read_text())["data"]["hub_id"]
        versions = json.loads((run / "versions.json").read_text())
        revision = versions["data_revision"]
    except (OSError, ValueError, RecursionError, yaml.YAMLError, KeyError, TypeError):
        return None
    is_same = hub_id == config.data.hub_id and isinstance(revision, str)
    return revision if is_same else None


def _overrides(section: Mapping[str, Any], prefix: str) -> Iterator[str]:
    if not isinstance(section, Mapping):
        raise ValueError("no section")
    for name, value in section.items():
        if isinstance(value, Mapping):
            yield from _overrides(value, f"{prefix}{name}.")
        elif name not in _OF_THE_MACHINE:
            yield f"{prefix}{name}={quoted(value)}"
