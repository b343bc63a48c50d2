"""From the YAML files of configs/ and the words of the command line to one checked `Config`.

Hydra composes; the schema of `radcap.config` then judges the result. Hydra alone would accept a
misspelt key inside an experiment file and a string for a rate, and it ends with status 1 and no
suggestion. Nothing here imports torch, so that a wrong word is refused at once.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from radcap.checks import check
from radcap.config import RUN_LENGTHS, Config, option_names
from radcap.console import say
from radcap.errors import ConfigError, first_line
from radcap.overrides import parse_single


def configs_folder() -> Path:
    """The folder of YAML files: packed inside an installed wheel, beside the package in a checkout.

    Returns:
        An absolute path.
    """
    package = Path(__file__).resolve().parent
    packed = package / "configs"
    return packed if packed.is_dir() else package.parent / "configs"


def config_folders(config_dir: str | None = None) -> list[Path]:
    """configs/ and, after it, the user's own folder where there is one.

    Raises:
        ConfigError: that folder is not there.
    """
    if config_dir is None:
        return [configs_folder()]
    if not Path(config_dir).is_dir():
        raise ConfigError(f"--config-dir {config_dir}: no such folder")
    return [configs_folder(), Path(config_dir).resolve()]


def compose(words: Sequence[str], *, config_dir: str | None = None) -> Config:
    """Compose and check the configuration.

    Args:
        words: Hydra overrides, such as `+experiment=epoch1 data.batch_size=8`.
        config_dir: a folder of the user's own, searched after configs/ (holding for instance
            `experiment/mine.yaml`).

    Returns:
        The configuration, read-only.

    Raises:
        ConfigError: in at most three lines, naming each wrong key and the nearest right one.
    """
    folders = config_folders(config_dir)
    overrides = [parse_single(word) for word in words]
    groups = group_options(folders)
    for override in overrides:
        _check_override(override, groups)
    composed = _compose_with_hydra(overrides, groups, folders)
    _check_names(composed)
    _settle_run_length(composed, overrides, folders)
    return _to_config(composed)


def read_command_line(words: Sequence[str]) -> Config | None:
    """The configuration that a command's words ask for; None where they only ask to see it.

    Raises:
        ConfigError: as `compose` and `split_options`, or a sweep is asked for.
    """
    overrides, options = split_options(words)
    if options.multirun:
        raise ConfigError("-m: only python -m radcap.train sweeps; give each option one value")
    config = compose(overrides, config_dir=options.config_dir)
    if options.show_config:
        say(to_yaml(config))
        return None
    return config


@dataclasses.dataclass(frozen=True)
class Options:
    """The ordinary options of a command that takes overrides."""

    config_dir: str | None = None
    show_config: bool = False
    multirun: bool = False


def split_options(words: Sequence[str]) -> tuple[list[str], Options]:
    """Part a command line into Hydra overrides and ordinary options.

    Raises:
        ConfigError: an unknown option, or one without its value.
    """
    overrides: list[str] = []
    options = Options()
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if name == "--config-dir":
            folder = value if equals else next(rest, None)
            if not folder:
                raise ConfigError("--config-dir: name the folder")
            options = dataclasses.replace(options, config_dir=folder)
        elif word == "--show-config":
            options = dataclasses.replace(options, show_config=True)
        elif word in ("-m", "--multirun"):
            options = dataclasses.replace(options, multirun=True)
        elif word.startswith("-"):
            raise ConfigError(f"{word}: no such option; --help lists them")
        else:
            overrides.append(word)
    return overrides, options


def to_yaml(config: Config) -> str:
    """The composed configuration as YAML, every key in the schema's order."""
    return OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(config)))


def from_yaml(text: str) -> Config:
    """Read back what `to_yaml` wrote, checked as at the first time.

    Raises:
        ConfigError: as `compose`.
    """
    loaded = OmegaConf.create(text)
    if not isinstance(loaded, DictConfig):
        raise ConfigError("the file does not hold a configuration")
    # Whoever wrote it may not read this machine's environment by it.
    if "${" in str(OmegaConf.to_container(loaded)):
        raise ConfigError("interpolations, where only values are saved")
    _check_names(loaded)
    return _to_config(loaded)


def group_options(folders: Iterable[Path]) -> dict[str, list[str]]:
    """The options of every config group, by the group's name."""
    groups: dict[str, list[str]] = {}
    for folder in folders:
        for file in sorted(folder.glob("*/*.yaml")):
            groups.setdefault(file.parent.name, []).append(file.stem)
    return groups


def _check_override(override: Override, groups: dict[str, list[str]]) -> None:
    key = override.key_or_group
    if override.is_delete():
        raise ConfigError(f"'{override.input_line}': options cannot be deleted; set null instead")
    if key not in groups:
        if key.startswith("hydra"):
            raise ConfigError(f"{key}: has no effect here; radcap writes into run.dir alone")
        if any(name.startswith(f"{key}.") for name in option_names()):
            raise ConfigError(f"{key}: a group of options; set one of them, as {key}.KEY=VALUE")
        _check_known([key])
        return
    choice = override.value()
    if not isinstance(choice, str) or choice not in groups[key]:
        near = difflib.get_close_matches(str(choice), groups[key], n=1, cutoff=0.3)
        hint = f" (nearest: {near[0]})" if near else ""
        raise ConfigError(f"{key}={choice}: there are {', '.join(groups[key])}{hint}")
    if key == "experiment" and not override.is_add():
        raise ConfigError(f"write +experiment={choice}, with a plus: experiments are added on top")


def _compose_with_hydra(
    overrides: Sequence[Override], groups: dict[str, list[str]], folders: Sequence[Path]
) -> DictConfig:
    # Every value goes in with "++" so that it is the schema, not Hydra, that knows the names.
    words = []
    for override in overrides:
        word = override.input_line or ""
        words.append(word if override.key_or_group in groups else "++" + word.lstrip("+"))
    if len(folders) > 1:
        words.append(f"hydra.searchpath=[{','.join(f'file://{f}' for f in folders[1:])}]")
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(folders[0]), version_base="1.3"):
            return hydra_compose("train", overrides=words)
    except yaml.YAMLError as error:
        raise ConfigError(f"a file of YAML is broken: {' '.join(str(error).split())}") from None
    except (ConfigCompositionException, HydraException, OmegaConfBaseException) as error:
        raise ConfigError(first_line(error)) from None


def _check_names(composed: DictConfig) -> None:
    names: list[str] = []

    def walk(node: Any, schema: Any, prefix: str) -> None:
        fields = {entry.name: entry for entry in dataclasses.fields(schema)}
        for name, value in node.items():
            key = f"{prefix}{name}"
            if name not in fields:
                names.append(key)
            elif not fields[name].metadata:
                if not isinstance(value, dict):
                    raise ConfigError(f"{key}: a group of options, not a value")
                walk(value, fields[name].default_factory, key + ".")

    walk(OmegaConf.to_container(composed), Config, "")
    _check_known(names)


def _check_known(names: Iterable[str]) -> None:
    known = list(option_names())
    wrong = []
    for name in names:
        if name in known:
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        wrong.append(f"{name}: no such option" + (f"; did you mean {near[0]}?" if near else ""))
    if len(wrong) > 3:
        wrong[2:] = [f"and {len(wrong) - 2} more unknown options"]
    if wrong:
        raise ConfigError("\n".join(wrong))


def _settle_run_length(
    composed: DictConfig, overrides: Sequence[Override], folders: Sequence[Path]
) -> None:
    """Let the run's length given on the strongest level win over other spellings below it."""
    levels = [{o.key_or_group for o in overrides if o.value() is not None}]
    experiments = [o.value() for o in overrides if o.key_or_group == "experiment"]
    for experiment in reversed(experiments):  # the last one is the strongest
        for folder in folders:
            file = folder / "experiment" / f"{experiment}.yaml"
            if file.is_file():
                content: Any = OmegaConf.to_container(OmegaConf.load(file))
                trainer = (content or {}).get("trainer") or {}
                levels.append({f"trainer.{name}" for name in trainer if trainer[name] is not None})
    # Last, what an experiment has from one that it builds on: all but the default's own length.
    default: Any = OmegaConf.to_container(OmegaConf.load(folders[0] / "train.yaml"))
    own = {n for n in RUN_LENGTHS if composed.trainer[n] != default["trainer"][n]}
    levels.append({f"trainer.{n}" for n in own if composed.trainer[n] is not None})
    for level in levels:
        named = [name for name in RUN_LENGTHS if f"trainer.{name}" in level]
        if len(named) > 1:
            keys = " and ".join(f"trainer.{name}" for name in named)
            raise ConfigError(f"{keys}: two lengths for one run; set one of them")
        if named:
            for name in RUN_LENGTHS:
                if name != named[0]:
                    composed.trainer[name] = None
            return


def _to_config(composed: DictConfig) -> Config:
    schema = OmegaConf.structured(Config)
    OmegaConf.set_readonly(schema, False)
    _unlock(schema)
    try:
        merged = OmegaConf.merge(schema, composed)
        missing = OmegaConf.missing_keys(merged)
        if missing:
            raise ConfigError(f"{sorted(missing)[0]}: no value is set")
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        reason = first_line(error)
        raise ConfigError(f"{key}: {reason}" if key else reason) from None
    assert isinstance(config, Config)
    check(config)
    return config


def _unlock(node: DictConfig) -> None:
    """Frozen dataclasses give read-only nodes; merging needs them open."""
    for name in node:
        child = node._get_node(name)
        if isinstance(child, DictConfig):
            OmegaConf.set_readonly(child, False)
            _unlock(child)
