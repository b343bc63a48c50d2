"""From the YAML files of configs/ and the words of the command line to one checked `Config`.

Hydra composes; `radcap.config.schema` then judges the result. Hydra alone would accept a misspelt
key inside an experiment file and a string for a rate, and it ends with status 1 and no suggestion.
Nothing here imports torch, so that a wrong word is refused at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from radcap.config.checks import check_encoder_start
from radcap.config.folders import CheckedFolder, WordsFolder
from radcap.config.nearest import nearest, runtime_hint
from radcap.config.options import declared, options_where, with_past
from radcap.config.overrides import parse_single
from radcap.config.schema import RUN_LENGTHS, Config
from radcap.config.typed import AnyConfig, check_known, check_names, refuse_references, to_config
from radcap.errors import ConfigError, first_line, one_line
from radcap.files.mappings import MOST_YAML_BYTES, parse_yaml, read_yaml
from radcap.files.reading import read_text
from radcap.host.console import say
from radcap.host.places import with_home

_SHARED = "common"  # what the files of a group build upon
_MOST_DIGITS = 30
_MOST_NUMBER = 10**_MOST_DIGITS


def configs_folder() -> Path:
    """The folder of YAML files: packed inside an installed wheel, beside the package in a checkout.

    Returns:
        An absolute path.
    """
    package = Path(__file__).resolve().parents[1]
    packed = package / "configs"
    return packed if packed.is_dir() else package.parent / "configs"


def config_folders(config_dir: str | None = None) -> list[Path]:
    """configs/ and, after it, the user's own folder where there is one.

    Raises:
        ConfigError: that folder is not there.
    """
    if config_dir is None:
        return [configs_folder()]
    folder = Path(with_home(config_dir))
    if not folder.is_dir():
        raise ConfigError(f"--config-dir {config_dir}: no such folder")
    return [configs_folder(), folder.resolve()]


def compose(
    words: Sequence[str],
    *,
    config_dir: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Config:
    """Compose and check the configuration.

    Args:
        words: Hydra overrides, such as `+experiment=epoch1 data.batch_size=8`.
        config_dir: a folder of the user's own, searched after configs/ (holding for instance
            `experiment/mine.yaml`).
        settings: option -> plain value, of a run or another file; they stand above the files of
            configs/ and below the words. They are values as they stand: nothing in them is looked
            up or read again.

    Returns:
        The configuration, read-only.

    Raises:
        ConfigError: in at most three lines, naming each wrong key and the nearest right one.
    """
    folders = config_folders(config_dir)
    groups = group_options(folders)
    overrides = [parse_single(word, groups) for word in words]
    for override in overrides:
        _check_override(override, groups)
    composed = _compose_with_hydra(overrides, groups, folders)
    check_names(OmegaConf.to_container(composed))
    _settle_run_length(composed, overrides, folders)
    for name in options_where(Config, "is_place"):
        place = OmegaConf.select(composed, name)
        if isinstance(place, str) and place.startswith("~"):
            OmegaConf.update(composed, name, with_home(place))
    named = {override.key_or_group for override in overrides}
    _put(composed, {n: value for n, value in (settings or {}).items() if n not in named})
    config = to_config(composed, Config)
    check_encoder_start(config.model.encoder_weights, may_be_gone=True)
    return config


def read_command_line(
    words: Sequence[str], *, settings: Mapping[str, Any] | None = None
) -> Config | None:
    """The configuration that a command's words ask for; None where they only ask to see it.

    Args:
        words: overrides and ordinary options.
        settings: see `compose`.

    Raises:
        ConfigError: as `compose` and `split_options`, or a sweep is asked for.
    """
    overrides, options = split_options(words)
    if options.multirun:
        raise ConfigError("-m: only python -m radcap.train sweeps; give each option one value")
    config = compose(overrides, config_dir=options.config_dir, settings=settings)
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


def from_yaml(text: str, schema: type[AnyConfig] = Config) -> AnyConfig:  # type: ignore[assignment]
    """Read back what `to_yaml` wrote, perhaps before some options were there.

    Args:
        text: of a run's config.yaml; anybody may have written it.
        schema: the configuration's class.

    Raises:
        ConfigError: as `compose`.
    """
    try:
        stored = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(first_line(error)) from None
    if not isinstance(stored, dict):
        raise ConfigError("the file does not hold a configuration")
    refuse_references(stored)
    check_names(stored, schema)
    return to_config(OmegaConf.create(with_past(stored, schema)), schema)


def read_config(file: Path) -> Config:
    """Read a run's config.yaml, see `from_yaml`.

    Raises:
        ConfigError: as `from_yaml`, or it cannot be read; without the file's name.
    """
    try:
        return from_yaml(read_text(file, most=MOST_YAML_BYTES))
    except OSError as error:
        raise ConfigError(error.strerror or str(error)) from None
    except ValueError as error:  # no text
        raise ConfigError(first_line(error)) from None


def group_options(folders: Iterable[Path]) -> dict[str, list[str]]:
    """The options of every config group, by the group's name; without what its files share."""
    groups: dict[str, list[str]] = {}
    for folder in folders:
        for file in sorted(folder.glob("*/*.yaml")):
            if file.stem == _SHARED:
                continue
            groups.setdefault(file.parent.name, []).append(file.stem)
    return groups


def _check_override(override: Override, groups: dict[str, list[str]]) -> None:
    key = override.key_or_group
    if override.is_delete():
        raise ConfigError(f"'{override.input_line}': options cannot be deleted; set null instead")
    value = override.value()
    if isinstance(value, int) and abs(value) > _MOST_NUMBER:
        raise ConfigError(f"{key}: a number of more than {_MOST_DIGITS} digits")
    if key not in groups:
        if key.startswith("hydra"):
            raise ConfigError(f"{key}: has no effect here; radcap writes into run.dir alone")
        if any(name.startswith(f"{key}.") for name in declared(Config)):
            raise ConfigError(f"{key}: a group of options; set one of them, as {key}.KEY=VALUE")
        check_known([key], groups=groups)
        return
    choice = override.value()
    if not isinstance(choice, str) or choice not in groups[key]:
        near = nearest(str(choice), groups[key])
        hint = f" (nearest: {near})" if near else ""
        if key == "runtime":
            hint = runtime_hint(str(choice)) or hint
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
    version.setbase("1.3")
    GlobalHydra.instance().clear()
    try:
        places = create_config_search_path(WordsFolder.address(folders[0]))
        for folder in folders[1:]:
            places.append("theirs", CheckedFolder.address(folder), SearchPathQuery("main", None))
        Hydra.create_main_hydra2("radcap", places)
        return hydra_compose("train", overrides=words)
    except yaml.YAMLError as error:
        reason = one_line(error, names_type=False, most=None)
        raise ConfigError(f"a file of YAML is broken: {reason}") from None
    except (ConfigCompositionException, HydraException, OmegaConfBaseException) as error:
        raise ConfigError(first_line(error)) from None
    except RecursionError:
        raise ConfigError("the configuration is too deep") from None
    finally:
        GlobalHydra.instance().clear()


def _put(composed: DictConfig, settings: Mapping[str, Any]) -> None:
    """Set plain values by their full names."""
    check_known(settings)
    refuse_references(settings)
    for name, value in settings.items():
        OmegaConf.update(composed, name, value)


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
                content: Any = read_yaml(file)
                trainer = (content or {}).get("trainer") or {}
                levels.append({f"trainer.{name}" for name in trainer if trainer[name] is not None})
    # Last, what an experiment has from one that it builds on: all but the default's own length.
    default: Any = read_yaml(folders[0] / "train.yaml")
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
