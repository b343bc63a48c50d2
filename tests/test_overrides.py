"""The combinations of a sweep, held against Hydra's own sweeper."""

from __future__ import annotations

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from radcap.errors import ConfigError
from radcap.overrides import combine, parse

GROUPS = {"model": ["card", "small", "tiny"], "experiment": ["smoke"]}


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer.lr=1e-4,3e-4", "seed=1,2"],
        ["seed=range(1,4)", "+experiment=smoke", "model=choice(small,tiny)"],
        ["optimizer.betas=[0.9,0.99],[0.9,0.999]", "trainer.eval_every=null,5"],
        ["optimizer.lr=range(0.001,0.004,0.001)", "model.train_encoder=true,false"],
        ["data.path='a b','it\\'s'", "seed=choice(7)", "run.name='x, y'"],
        ["seed=sort(3,1,2,reverse=true)", "optimizer.lr=1e30,1"],
    ],
)
def test_they_are_hydras_in_hydras_order(words: list[str]) -> None:
    overrides = OverridesParser.create().parse_overrides(words)
    (expected,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    found = [list(combination.words) for combination in combine(words, GROUPS)]
    assert found == [list(words) for words in expected]


def test_the_swept_values_are_told_as_people_write_them() -> None:
    words = ["data.path='a b',c", "seed=1", "optimizer.lr=1e-4"]
    found = [combination.swept for combination in combine(words, GROUPS)]
    assert found == [{"data.path": "a b"}, {"data.path": "c"}]


def test_a_glob_chooses_from_a_group() -> None:
    found = combine(["model=glob(*,exclude=card)"], GROUPS)
    assert [combination.words for combination in found] == [("model=small",), ("model=tiny",)]


def test_a_shuffle_loses_nothing_and_names_what_it_runs() -> None:
    found = combine(["seed=shuffle(range(1,30))"], GROUPS)
    assert {combination.words for combination in found} == {(f"seed={n}",) for n in range(1, 30)}
    for combination in found:
        assert combination.words == (f"seed={combination.swept['seed']}",)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["seed=1"], "no option has several values"),
        (["seed=1,2", "++seed=3"], "stands twice"),
        (["optimizer.lr=interval(0,1)"], "no end of values"),
        (["seed=glob(*)"], "seed is none"),
        (["model=glob(x*)"], "there are card, small, tiny"),
        (["seed=range(3,1)"], "holds no value"),
        (["seed=range(1,5,0)"], "must not be zero"),
        (["optimizer.lr=range(0.1,0.5,0)"], "Invalid range"),
        (["seed=range(1,1000000000)"], "more than 1,000 combinations"),
        (["seed=shuffle(range(1,10000000000000))"], "more than 1,000 combinations"),
        (["optimizer.lr=shuffle(range(0.1,1e12))"], "more than 1,000 combinations"),
        (["seed=range(0,40)", "data.phantom.seed=range(0,40)"], "more than 1,000 combinations"),
        (["seed=1,"], "not of the form key=value"),
    ],
)
def test_what_is_no_sweep_is_refused_in_a_line(words: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        combine(words, GROUPS)
    assert told in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_sweep_is_no_single_value() -> None:
    assert parse("seed=1,2").is_sweep_override()
