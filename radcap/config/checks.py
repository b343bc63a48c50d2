"""Every check of a configuration's values, against their bounds and against each other."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from radcap.config.nearest import runtime_hint
from radcap.config.options import declared, value_of
from radcap.config.schema import RUN_LENGTHS, Config, Duration
from radcap.errors import ConfigError
from radcap.files.names import WEIGHTS_SUFFIXES, shortened, shown

ENCODER_STARTS = ("imagenet", "none")  # of model.encoder_weights, beside files
_OF_QUESTIONS = ("instruct", "benchmark")  # of RadImageNet-VQA and of the phantom


def check(config: Config) -> None:
    """Hold every value against its bounds and against the others.

    Raises:
        ConfigError: naming the key, in one line.
    """
    for key, one in declared(type(config)).items():
        if (value := value_of(config, key)) is not None:
            _check_value(key, value, one.metadata)
    lengths = [name for name in RUN_LENGTHS if getattr(config.trainer, name) is not None]
    if len(lengths) != 1:
        named = " and ".join(f"trainer.{name}" for name in lengths or RUN_LENGTHS)
        raise ConfigError(f"{named}: set exactly one of them")
    if config.run.mirror and _holds_a_secret(config.run.mirror):
        raise ConfigError(
            "run.mirror: no password or query in an address, it would stand in config.yaml; give "
            "it in ~/.config/fsspec or the file system's own settings"
        )
    _check_data(config)
    model = config.model
    if model.embed_dim % model.num_heads:
        fits = [n for n in range(1, model.embed_dim + 1) if model.embed_dim % n == 0]
        nearest = min(fits, key=lambda n: abs(n - model.num_heads))
        raise ConfigError(
            f"model.num_heads={model.num_heads}: model.embed_dim={model.embed_dim} does not "
            f"divide by it; the nearest that does is {nearest}"
        )
    if not model.train_encoder and model.encoder_weights == "none":
        raise ConfigError(
            "model.train_encoder=false: an encoder from random weights sees nothing; set "
            "model.encoder_weights to imagenet or a file"
        )
    if len(config.optimizer.betas) != 2:
        raise ConfigError(f"optimizer.betas={config.optimizer.betas}: give two numbers")
    steps = config.trainer.profile_steps
    if steps is not None and (len(steps) != 2 or steps[0] > steps[1]):
        raise ConfigError(f"trainer.profile_steps={steps}: give the first and the last step")


def check_encoder_start(source: str, *, may_be_gone: bool) -> None:
    """Refuse a start of the image encoder that is none.

    Args:
        source: `model.encoder_weights`.
        may_be_gone: leave a file alone that is not there, where its name is that of a file: a run
            that goes on needs it no more.

    Raises:
        ConfigError: naming the choices.
    """
    file = Path(source)
    if source in ENCODER_STARTS or os.path.exists(source):  # noqa: PTH110 whatever its name
        return
    is_files_name = len(file.parts) > 1 or file.suffix in WEIGHTS_SUFFIXES
    if not (may_be_gone and is_files_name):
        raise ConfigError(
            f"model.encoder_weights={shown(source)}: no such file; choose from "
            f"{', '.join(ENCODER_STARTS)}, or a file of weights of MobileNetV3-Small"
        )


def _holds_a_secret(address: str) -> bool:
    """Whether one of the file systems that fsspec chains by :: is given more than a place."""
    try:
        parts = [urlsplit(part) for part in address.split("::") if "://" in part]
    except ValueError:
        raise ConfigError(f"run.mirror={address}: not an address") from None
    return any(part.password is not None or part.query for part in parts)


def _check_data(config: Config) -> None:
    data, micro_batches = config.data, config.trainer.accumulate
    if data.batch_size % micro_batches:
        raise ConfigError(
            f"data.batch_size={data.batch_size} does not divide by "
            f"trainer.accumulate={micro_batches}"
        )
    if data.name == "hub" and not data.hub_id and not data.path:
        raise ConfigError("data.hub_id: a Hub source needs the data set's id, as owner/name")
    if data.config.lower() in _OF_QUESTIONS:
        raise ConfigError(
            f"data.config={shown(data.config)}: questions and their answers, which radcap can "
            "neither train on nor score yet; data.config=alignment has the captions"
        )
    if data.image_column == data.caption_column:
        raise ConfigError(
            f"data.caption_column={shown(data.caption_column)}: that is data.image_column; a "
            "column holds pictures or captions"
        )


def _check_value(key: str, value: Any, rules: Any) -> None:
    if rules["choices"] and value not in rules["choices"]:
        hint = runtime_hint(value) if key == "runtime.name" else ""
        choices = ", ".join(rules["choices"])
        raise ConfigError(f"{key}={shortened(value)}: choose from {choices}{hint}")
    if rules["duration"]:
        try:
            duration = Duration.parse(value, minutes=rules["duration"] == "time")
        except ValueError as error:
            raise ConfigError(f"{key}: {error}") from None
        if rules["above"] is not None and duration.amount <= rules["above"]:
            raise ConfigError(f"{key}={value}: must be above 0; null is for never")
    if rules["is_place"] and "\0" in value:
        raise ConfigError(f"{key}={shown(value)}: no path holds a character NUL")
    if isinstance(value, str) and "${" in value:
        raise ConfigError(f"{key}={shortened(value)}: no ${{ in a value; a run could not go on")
    if rules["is_filled"] and not value.strip():
        raise ConfigError(f"{key}: must not be empty")
    if rules["fault_in"] and (fault := rules["fault_in"](value)):
        raise ConfigError(f"{key}={shown(value)}: no such name is possible: {fault}")
    if isinstance(value, str | bool):
        return
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, float) and not math.isfinite(number):
            raise ConfigError(f"{key}={value}: must be finite")
        for rule, holds in (
            ("at_least", lambda n, bound: n >= bound),
            ("above", lambda n, bound: n > bound),
            ("at_most", lambda n, bound: n <= bound),
            ("below", lambda n, bound: n < bound),
        ):
            bound = rules[rule]
            if bound is not None and not holds(number, bound):
                given = f"{key}={shortened(value)}"
                raise ConfigError(f"{given}: must be {rule.replace('_', ' ')} {bound:g}")
