"""The combinations of a sweep, held against Hydra's own sweeper."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from radcap.config.compose import compose, read_config, to_yaml
from radcap.config.options import options_where
from radcap.config.overrides import combine, parse, parse_single
from radcap.config.schema import Config
from radcap.errors import ConfigError

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


ODD_PATHS = [
    *("/v1 [final]", "/a (old)", "/{b}", "/a,b", "/a=b", "/a#b", "/it's", '/5"', "/a::b", "/a:b"),
    *("/Straße/放射", "/a~", "~b", "/ a ", "/a b", "/a\tb", "/a;b&c|d", "/50%", "/a*?!", "/$HOME"),
    *("choice(a,b)", "[a]", "{a: b}", "1_000", "1.10", "true", "1e3", "/a\\b", "/a\nb", "-", "'"),
    *("/\udc80", "e\u0301", "/\u202e", "range(1,3)", "a,", ",", "(", "a]", "glob(*)", "\\\\x"),
]


@pytest.mark.parametrize("path", ODD_PATHS)
def test_a_path_is_taken_as_the_shell_gives_it(path: str, tmp_path: Path) -> None:
    expected = path.replace("\\\\", "\\")  # as ever, two of these are one
    config = compose([f"data.path={path}", f"run.dir={path}", f"+data.cache={path}"])
    assert [config.data.path, config.run.dir, config.data.cache] == [expected] * 3
    (tmp_path / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    assert read_config(tmp_path / "config.yaml").data.path == expected


# Marks of Hydra's own keep their meaning, and "${" is refused.
_CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0\\$'\"")


@settings(max_examples=200)
@given(st.text(_CHARACTERS, min_size=1))
def test_any_path_is_one_value(path: str) -> None:
    assert parse_single(f"run.dir={path}").value() == path
    value = parse_single(f"data.path={path}").value()
    assert value == (None if path.strip(" \t").lower() == "null" else path)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("data.path='a b'", "a b"),
        ('data.path="a,b"', "a,b"),
        (r"data.path=a\,b", "a,b"),
        (r"data.path='it\'s'", "it's"),
        ("data.path=null", None),
        ("data.path='null'", "null"),
        ("data.path=", ""),
    ],
)
def test_hydras_own_marks_mean_what_they_did(word: str, value: str | None) -> None:
    assert parse_single(word).value() == value


def test_in_a_sweep_commas_part_and_brackets_do_not(tmp_path: Path) -> None:
    words = ["data.path=a,b", "data.cache=/v1 [final]", "seed=1"]
    found = combine(words, GROUPS)
    assert [combination.words for combination in found] == [
        ("data.path=a", *words[1:]), ("data.path=b", *words[1:]),
    ]  # fmt: skip
    found = combine(["data.path='a,b','c [d]'"], GROUPS)
    assert [compose(combination.words).data.path for combination in found] == ["a,b", "c [d]"]


def test_places_are_the_options_that_say_so() -> None:
    assert set(options_where(Config, "is_place")) == {
        *("run.dir", "run.mirror", "data.path", "data.cache", "data.local_copy"),
        *("model.encoder_weights", "evaluate.weights", "evaluate.out"),
        *("preflight.out", "preflight.compare", "preflight.keep"),
    }


def test_a_tilde_is_the_home_folder_wherever_a_path_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndata: {path: ~/set}\nrun: {name: '~'}\n"
    )
    config = compose(["+experiment=mine", "run.dir=~/a b"], config_dir=str(tmp_path))
    assert (config.data.path, config.run.dir) == ("/home/me/set", "/home/me/a b")
    assert config.run.name == "~"  # no path


def test_a_path_with_a_nul_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text('# @package _global_\nrun: {dir: "a\\0b"}\n')
    with pytest.raises(ConfigError, match=r"^run\.dir=.*NUL"):
        compose(["+experiment=mine"], config_dir=str(tmp_path))
