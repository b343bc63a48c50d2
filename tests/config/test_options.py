"""How options are declared: all that is known of one, there and nowhere else."""

from __future__ import annotations

import ast
import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from radcap.config.compose import compose, from_yaml, to_yaml
from radcap.config.options import declared, free, option, options_where, with_past
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
    kept = set(options_where(Later, "is_free", False))
    assert kept - set(options_where(Config, "is_free", False)) == {"data.sharpen", "task.name"}
    assert {"seed", "data.batch_size", "model.embed_dim"} <= kept
    assert not kept & {"run.name", "trainer.max_steps", "data.workers", "runtime.threads"}


def test_a_section_may_be_filled_alone() -> None:
    past = with_past({}, DataConfig) | {"sharpen": 0.0, "hint": None}
    assert with_past({"path": "x"}, LaterData) == {"path": "x"} | past
    assert with_past({"task": 5}, Later) == {"task": 5, "data": past}


ROOT = Path(__file__).parents[2]
BOUNDS = ("at_least", "above", "at_most", "below")


def names_in(stored: dict[str, Any], prefix: str = "") -> set[str]:
    """Full names of the options in a configuration."""
    return {
        name
        for key, value in stored.items()
        for name in (
            names_in(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
        )
    }


def test_every_option_says_all_that_is_known_of_it() -> None:
    values = yaml.safe_load(to_yaml(compose([])))
    options = declared(Config)
    assert set(options) == names_in(values)
    for name, one in options.items():
        rules = one.metadata
        assert re.fullmatch(r"\S.{,98}\S", rules["meaning"]), name
        kind = str(one.type).removesuffix(" | None").removeprefix("list[").removesuffix("]")
        assert kind in ("str", "bool", "int", "float"), name
        if kind in ("int", "float"):
            assert rules["at_least"] is not None or rules["above"] is not None, name
        elif not rules["duration"]:
            assert all(rules[bound] is None for bound in BOUNDS), name
        if kind != "str":
            assert not any(rules[rule] for rule in ("choices", "is_place", "fault_in", "is_filled"))
        for rule in ("is_free", "ends_run", "is_scored", "is_of_machine"):
            assert isinstance(rules[rule], bool), name
        # What a finished run resumes for must be free to change; what a run keeps is compared.
        assert rules["is_free"] or not rules["ends_run"], name
        assert rules["is_free"] or rules["hparam"] in ("shown", "first"), name


def test_what_came_after_the_first_stored_run_says_what_was_done_then() -> None:
    (oldest,) = (ROOT / "tests" / "stored").glob("10d9035.tar.xz")
    with tarfile.open(oldest) as packed:
        file = packed.extractfile("runs/smoke/config.yaml")
        assert file is not None
        stored = names_in(yaml.safe_load(file.read()))
    assert stored == {n for n, one in declared(Config).items() if "then" not in one.metadata}


def test_what_the_parts_of_radcap_ask_of_the_options() -> None:
    """Each part reads it where the option is declared; what it gets there is held here."""
    assert options_where(Config, "ends_run") == [
        *("trainer.max_steps", "trainer.max_examples", "trainer.max_epochs", "debug.limit"),
    ]
    assert set(options_where(Config, "hparam", "first")) == {
        *("data.batch_size", "model.embed_dim", "optimizer.lr", "schedule.name", "seed"),
    }
    shown = {name for name, one in declared(Config).items() if one.metadata["hparam"]}
    assert shown - set(options_where(Config, "is_free", False)) == {
        *("trainer.max_steps", "trainer.max_examples", "trainer.max_epochs", "runtime.precision"),
    }
    data = ("name", "path", "hub_id", "config", "val_split", "revision", "max_length")
    data += ("image_column", "caption_column", "phantom.val_rows", "phantom.seed")
    assert set(options_where(Config, "is_scored")) == {
        *(f"data.{name}" for name in data),
        *("trainer.eval_rows", "debug.limit"),
    }
    of_machine = ("workers", "val_workers", "prefetch", "read_ahead_mb", "connections")
    of_machine += ("hub_patience_s", "hub_timeout_s", "local_copy")
    of_machine += ("cache", "cache_gb", "cache_decoded")
    found = options_where(Config, "is_of_machine")
    assert {name for name in found if name.startswith("data.")} == {
        f"data.{name}" for name in of_machine
    }


def test_no_other_module_lists_options() -> None:
    """Three full names of options in one list, set or mapping, or three keys of one section."""
    names = set(declared(Config))
    sections: dict[str, set[str]] = {}
    for name in names:
        section, _, key = name.rpartition(".")
        sections.setdefault(section, set()).add(key)
    listed = []
    for file in sorted((ROOT / "radcap").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict):
                is_mapping = isinstance(node, ast.Dict)  # perhaps of keyword arguments
                parts = node.keys if is_mapping else node.elts
            else:
                continue
            words = {one.value for one in parts if isinstance(one, ast.Constant)}
            is_part = len(words) >= 3 and any(words <= keys for keys in sections.values())
            if len(words & names) >= 3 or (is_part and not is_mapping):
                listed.append(f"{file.relative_to(ROOT)}:{node.lineno}: {words}")
    assert listed == []
