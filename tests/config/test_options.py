"""How options are declared: which ones a run keeps, and what an older run is taken to have said."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from radcap.config.compose import compose, from_yaml, to_yaml
from radcap.config.options import bound_options, free, option, with_past
from radcap.config.schema import Config, DataConfig
from radcap.errors import ConfigError


@dataclass(frozen=True)
class LaterData(DataConfig):
    """Data with options that came later."""

    sharpen: float = option("how much", at_least=0, then=0.0)
    hint: str | None = free("a word", then=None)


@dataclass(frozen=True)
class TaskConfig:
    """A section that came later."""

    name: str = option("what is learnt", choices=("caption", "vqa"), then="caption")


@dataclass(frozen=True)
class Later(Config):
    """The schema of a later commit."""

    data: LaterData = field(default_factory=LaterData)
    task: TaskConfig = field(default_factory=TaskConfig)


@dataclass(frozen=True)
class Careless(Config):
    """One that does not say what was done before."""

    task: str = option("what is learnt")


def test_an_older_run_gets_what_was_done_then() -> None:
    before = compose(["seed=5", "data.path=here"])
    now = from_yaml(to_yaml(before), Later)
    assert (now.seed, now.data.path) == (5, "here")
    assert (now.data.sharpen, now.data.hint, now.task.name) == (0.0, None, "caption")
    # What is stored wins, also over what was done before it could be said.
    changed = to_yaml(before).replace("  path: here", "  path: here\n  sharpen: 2.5\n  hint: x")
    assert from_yaml(changed, Later).data.sharpen == 2.5
    assert from_yaml(changed, Later).data.hint == "x"
    with pytest.raises(ConfigError, match=r"^data\.sharpen=-1\.0: must be at least 0"):
        from_yaml(changed.replace("sharpen: 2.5", "sharpen: -1"), Later)


def test_an_option_without_a_past_is_missed_by_name() -> None:
    with pytest.raises(ConfigError, match=r"^task: no value is set"):
        from_yaml(to_yaml(compose([])), Careless)
    without = to_yaml(compose([])).replace("  num_layers: 2\n", "")
    with pytest.raises(ConfigError, match=r"^model\.num_layers: no value is set"):
        from_yaml(without)


def test_what_a_run_keeps_for_life_stands_where_the_option_does() -> None:
    kept = set(bound_options(Later))
    assert kept - set(bound_options(Config)) == {"data.sharpen", "task.name"}
    assert {"seed", "data.batch_size", "model.embed_dim"} <= kept
    assert not kept & {"run.name", "trainer.max_steps", "data.workers", "runtime.threads"}


def test_a_section_may_be_filled_alone() -> None:
    past = with_past({}, DataConfig) | {"sharpen": 0.0, "hint": None}
    assert with_past({"path": "x"}, LaterData) == {"path": "x"} | past
    assert with_past({"task": 5}, Later) == {"task": 5, "data": past}
