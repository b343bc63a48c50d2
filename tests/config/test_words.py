"""Words that look like numbers stay words where an option holds a text, wherever they stand."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from radcap.config.compose import compose, from_yaml, split_options, to_yaml
from radcap.config.folders import _read
from radcap.config.options import value_of
from radcap.config.overrides import combine, parse
from radcap.config.schema import text_options
from radcap.errors import ConfigError
from radcap.evaluation.settings import data_settings
from radcap.sweep.jobs import plan

WORDS = [
    *("1_1_1", "1.10", "1e3", "1E3", "012", "0o17", "0x1F", "1:30", "+5", "-0", ".5", "5."),
    *("yes", "no", "on", "off", "true", "False", "nan", ".inf", "inf", "2024-01-02"),
    *("12345678901234567890123456789012345678e1", "1" * 40),
]
NULLS = ["null", "NULL"]
alphabet = st.text(alphabet="0123456789_.:e+-xobnulftrsyaiOESN", min_size=1, max_size=12)


def write(folder: Path, name: str, text: str) -> None:
    file = folder / f"{name}.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)


def test_words_on_the_command_line() -> None:
    names = [f"data.{name}" for name in ("path", "cache", "local_copy")]
    names += ["run.name", "evaluate.out", "evaluate.weights", "preflight.out"]
    for first in range(0, len(WORDS), len(names)):
        words = dict(zip(names, WORDS[first:], strict=False))
        config = compose([f"{name}={word}" for name, word in words.items()])
        assert {name: value_of(config, name) for name in words} == words
        assert config.run.dir == f"runs/{config.run.name}"
        assert from_yaml(to_yaml(config)) == config


def test_words_of_a_users_files(tmp_path: Path) -> None:
    """Of an experiment, and of a file of a group, whose values have no section before them."""
    for number, word in enumerate(WORDS):
        write(
            tmp_path, f"experiment/{number}",
            f"# @package _global_\nrun: {{name: {word}}}\ndata:\n  val_split: {word}  # a word\n",
        )  # fmt: skip
        text = f"defaults: [common, _self_]\nname: phantom\npath: {word}\n"
        write(tmp_path, f"data/{number}", text)
    for number, word in list(enumerate(WORDS))[::5]:
        words = [f"+experiment={number}", f"data={number}"]
        config = compose(words, config_dir=str(tmp_path))
        assert config.run.name == config.data.val_split == config.data.path == word
    for number, word in enumerate(WORDS):
        assert _read(f"name: {word}", "run", "x") == {"name": word}
        assert _read((tmp_path / f"data/{number}.yaml").read_text(), "data", "x")["path"] == word


@given(word=alphabet)
@settings(max_examples=150)
def test_whatever_the_word_it_is_taken_as_it_stands(word: str) -> None:
    assume(word.strip("-:") and not word.endswith(":"))  # signs of YAML
    assert parse(f"data.config={word}").value() == word
    assert _read(f"data:\n  config: {word}\n", "", "x") == {"data": {"config": word}}
    assert _read(f"config: {word}\n", "data", "x") == {"config": word}
    (found,) = combine([f"data.config=choice({word})"], {})
    assert found.swept == {"data.config": word}
    assert parse(found.words[0]).value() == word


def test_what_is_quoted_stays_quoted(tmp_path: Path) -> None:
    config = compose(["run.name='1_1'", 'data.revision="null"', r"data.path='it\'s 1e3'"])
    assert (config.run.name, config.data.revision, config.data.path) == ("1_1", "null", "it's 1e3")
    text = "run:\n  name: '012'\n  dir: \"1e3\"\ndata: {revision: 'null', path: !!str 1_1}\n"
    write(tmp_path, "experiment/mine", f"# @package _global_\n{text}")
    config = compose(["+experiment=mine"], config_dir=str(tmp_path))
    assert (config.run.name, config.run.dir) == ("012", "1e3")
    assert (config.data.revision, config.data.path) == ("null", "1_1")


@pytest.mark.parametrize("word", NULLS)
def test_null_is_null_where_there_may_be_nothing_and_else_a_word(tmp_path: Path, word: str) -> None:
    text = f"# @package _global_\nrun: {{name: {word}}}\ndata: {{revision: {word}}}\n"
    write(tmp_path, "experiment/mine", text)
    for words in ([f"run.name={word}", f"data.revision={word}"], ["+experiment=mine"]):
        config = compose(words, config_dir=str(tmp_path))
        assert (config.run.name, config.data.revision) == (word, None)
    with pytest.raises(ConfigError, match=r"run\.name"):
        write(tmp_path, "experiment/mine", "# @package _global_\nrun: {name: }\n")
        compose(["+experiment=mine"], config_dir=str(tmp_path))


def test_the_schema_knows_which_options_hold_a_text() -> None:
    texts = text_options()
    assert texts["run.name"] is False and texts["data.revision"] is True
    for name in ("seed", "optimizer.lr", "data.cache_decoded", "optimizer.betas"):
        assert name not in texts
    # A duration is a number with a unit.
    assert not {"trainer.eval_every", "trainer.save_every", "schedule.warmup"} & texts.keys()


def test_durations_are_read_as_before(tmp_path: Path) -> None:
    """A run that began with one has it in its config.yaml and goes on with the same words."""
    words = ["trainer.eval_every=1_000", "schedule.warmup=1e3", "trainer.save_every=null"]
    config = compose(words)
    assert (config.trainer.eval_every, config.schedule.warmup) == ("1000", "1000.0")
    assert config.trainer.save_every is None
    text = "trainer: {eval_every: 1_000, save_every: null}\nschedule: {warmup: 1e3}\n"
    write(tmp_path, "experiment/mine", f"# @package _global_\n{text}")
    assert compose(["+experiment=mine"], config_dir=str(tmp_path)) == config


def test_numbers_of_a_file_are_decimal_ones(tmp_path: Path) -> None:
    text = (
        "seed: 012\ntrainer: {eval_every: 010, max_steps: 0_20}\noptimizer: {lr: 1e-4, betas: "
        "[0.9, 0.99]}\ndata: {batch_size: 1_6, window_gb: 0.50}\nrehearse: {kill_at: [010, 0x10]}\n"
    )
    write(tmp_path, "experiment/mine", f"# @package _global_\n{text}")
    config = compose(["+experiment=mine"], config_dir=str(tmp_path))
    assert (config.seed, config.trainer.eval_every, config.trainer.max_steps) == (12, "010", 20)
    assert (config.optimizer.lr, config.optimizer.betas) == (1e-4, [0.9, 0.99])
    assert (config.data.batch_size, config.data.window_gb) == (16, 0.5)
    assert config.rehearse.kill_at == [10, 16]
    for line in ("seed: 1:30", "trainer: {save_every: 1:30}", "trainer: {max_steps: 1:00}"):
        write(tmp_path, "experiment/mine", f"# @package _global_\n{line}\n")
        with pytest.raises(ConfigError, match="1:"):
            compose(["+experiment=mine"], config_dir=str(tmp_path))


def test_a_value_that_two_options_share_is_read_for_each(tmp_path: Path) -> None:
    text = "data: &d {train_split: &n 012, batch_size: *n}\nseed: *n\nrun: {name: *n}\n"
    write(tmp_path, "experiment/mine", f"# @package _global_\n{text}")
    config = compose(["+experiment=mine"], config_dir=str(tmp_path))
    assert (config.data.train_split, config.run.name) == ("012", "012")
    assert (config.data.batch_size, config.seed) == (12, 12)
    text = "x: &x\n  name: 1_1\nrun:\n  <<: *x\n"
    assert _read(text, "", "x")["run"] == {"name": "1_1"}


def test_names_of_files_are_words_too(tmp_path: Path) -> None:
    for name in ("1_1", "012"):
        write(tmp_path, f"experiment/{name}", f"# @package _global_\nrun: {{name: {name}}}\n")
        write(
            tmp_path, f"experiment/on_{name}", f"# @package _global_\ndefaults: [{name}, _self_]\n"
        )
        for words in ([f"+experiment={name}"], [f"+experiment=on_{name}"]):
            assert compose(words, config_dir=str(tmp_path)).run.name == name
    write(tmp_path, "model/8", "defaults: [tiny, _self_]\nembed_dim: 64\n")
    write(tmp_path, "experiment/m", "# @package _global_\ndefaults:\n  - override /model: 8\n")
    for words in (["model=8"], ["+experiment=m"]):
        assert compose(words, config_dir=str(tmp_path)).model.embed_dim == 64
    with pytest.raises(ConfigError, match="experiment=11: there are"):
        compose(["+experiment=11"], config_dir=str(tmp_path))


def test_the_jobs_of_a_sweep_and_their_folders_have_the_words(tmp_path: Path) -> None:
    words = ["data.revision=1_1,1.10", "data.config=sort(012,1e3,yes,reverse=true)"]
    jobs = plan(*split_options(["-m", *words]))
    assert [job.folder.name for job in jobs] == [
        f"data.config-{config}+data.revision-{revision}"
        for revision in ("1_1", "1.10")
        for config in ("yes", "1e3", "012")
    ]
    assert [(job.config.data.revision, job.config.data.config) for job in jobs] == [
        (revision, config) for revision in ("1_1", "1.10") for config in ("yes", "1e3", "012")
    ]
    for seed, name in enumerate(("1_1", "11")):
        text = f"# @package _global_\nseed: {seed}\nrun: {{name: e{name}}}\n"
        write(tmp_path, f"experiment/{name}", text)
    swept = ["-m", "+experiment=1_1,11", f"--config-dir={tmp_path}"]
    jobs += plan(*split_options(swept))
    assert [job.config.run.name for job in jobs[-2:]] == ["e1_1", "e11"]
    for job in (jobs[0], jobs[-2]):
        assert compose(*split_options(job.words)[:1], config_dir=str(tmp_path)) == job.config
    # Numbers of options that hold one are read as numbers, and name the folders as before.
    jobs = plan(*split_options(["-m", "optimizer.lr=1e-4,1e-3", "seed=range(1,3)"]))
    assert jobs[0].folder.name == "optimizer.lr-0.0001+seed-1"
    assert [job.config.seed for job in jobs] == [1, 2, 1, 2]


def test_an_evaluation_has_the_words_of_its_run(tmp_path: Path) -> None:
    config = compose([f"data.{name}=1_1e3" for name in ("revision", "config", "train_split")])
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert yaml.safe_load(to_yaml(config))["data"]["revision"] == "1_1e3"
    assert compose([], settings=data_settings(tmp_path, [])).data.revision == "1_1e3"
