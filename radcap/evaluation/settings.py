"""What an evaluation takes from the run it scores: the data's settings, and their revision.

Imports no torch: a run that is not there is refused at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from radcap.config.options import options_where, with_past
from radcap.config.schema import Config, DataConfig
from radcap.errors import ConfigError
from radcap.files.mappings import read_mapping
from radcap.host.places import with_home
from radcap.training.run.folder import revision_in


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
    run = Path(with_home(runs[0]))
    if not (run / "config.yaml").is_file():
        other = f"; for weights without a run: evaluate.weights={run}" if run.exists() else ""
        raise ConfigError(f"run={run}: no run folder, it holds no config.yaml{other}")
    return run, rest


def refuse_bare_path(words: Sequence[str]) -> None:
    """Say how a run or weights are given, where a path stands by itself.

    Args:
        words: overrides.

    Raises:
        ConfigError: naming the path.
    """
    for word in words:
        is_there = os.path.exists(word)  # noqa: PTH110 whatever its name
        if "=" in word or not (os.sep in word or is_there):
            continue
        if is_there:
            is_run = (Path(word) / "config.yaml").is_file()
            raise ConfigError(f"{word}: write {'run' if is_run else 'evaluate.weights'}={word}")
        raise ConfigError(
            f"{word}: no such file or folder; a run is given as run=RUN, other weights as "
            "evaluate.weights=WEIGHTS"
        )


def data_settings(run: Path, words: Sequence[str]) -> dict[str, Any]:
    """The run's settings of its data, to stand below those of the command line.

    Args:
        run: the run folder.
        words: the user's overrides; a data group among them takes the place of the run's.

    Returns:
        Full name of an option -> plain value, as `radcap.config.compose.compose` takes them.

    Raises:
        ConfigError: the run's config.yaml cannot be read.
    """
    if any(word.startswith("data=") for word in words):
        return {}
    file = run / "config.yaml"
    try:
        stored = read_mapping(file)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    try:
        found = dict(_leaves(with_past((stored or {})["data"], DataConfig), "data."))
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"{file}: not the configuration of a run, it has no data") from None
    of_machine = options_where(Config, "is_of_machine")
    return {name: value for name, value in found.items() if name not in of_machine}


def pinned_revision(run: Path | None, config: Config) -> str | None:
    """The Hub commit that the run was trained on, where the same data set is scored."""
    if run is None or config.data.name != "hub" or config.data.path is not None:
        return None
    try:
        stored, versions = (read_mapping(run / name) for name in ("config.yaml", "versions.json"))
    except OSError:
        return None
    try:
        hub_id = (stored or {})["data"]["hub_id"]
    except (KeyError, TypeError):
        return None
    return revision_in(versions or {}) if hub_id == config.data.hub_id else None


def _leaves(section: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            raise ValueError(f"{prefix}{name}: no option of the data is a list")
        else:
            yield f"{prefix}{name}", value
