"""What an evaluation takes from a run, and what the command line changes of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from bounds import bounded
from files.test_mappings import LAUGHS

from radcap.config.compose import compose, to_yaml
from radcap.errors import ConfigError
from radcap.evaluation.settings import (
    data_settings,
    pinned_revision,
    refuse_bare_path,
    take_run,
)


def make_run(folder: Path, *words: str, revision: str = "c0ffee") -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text(to_yaml(compose(words)))
    (folder / "versions.json").write_text(json.dumps({"data_revision": revision}))
    return folder


def test_the_runs_data_is_taken_and_the_command_line_wins(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run",
        *(
            "+experiment=epoch1",
            "data.max_length=17",
            "data.workers=5",
            "data.train_split=b_c.d-e",
            "data.cache=/scratch",
            "data.local_copy=/scratch/copy",
            "data.hub_timeout_s=7",
        ),
        "runtime=tpu",
    )
    config = compose(["data.batch_size=8"], settings=data_settings(run, []))
    before = compose(["+experiment=epoch1"])
    assert config.data.hub_id == before.data.hub_id
    assert (config.data.max_length, config.data.batch_size) == (17, 8)
    assert config.data.train_split == "b_c.d-e"
    # The machine's own are not the run's.
    assert (config.data.cache, config.data.local_copy) == (None, None)
    assert config.data.hub_timeout_s == compose([]).data.hub_timeout_s
    assert config.data.workers == compose([]).data.workers
    assert config.runtime.name == "auto"


def test_odd_texts_come_through(tmp_path: Path) -> None:
    texts = ["a b", "it's", "x\\y", "x\\'y", "x\\", "[1,2]", "null", "k=v", "ü{}:#", "1"]
    for number, text in enumerate(texts):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "config.yaml").write_text(json.dumps({"data": {"path": text}}))
        assert compose([], settings=data_settings(folder, [])).data.path == text


HOSTILE = ["${oc.env:HF_TOKEN}", "x/${oc.env:HF_TOKEN}", "${seed}", "${.name}", "${oc.decode:1}"]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("name", ["path", "hub_id", "config", "revision", "max_length"])
def test_nothing_of_this_machine_is_read_by_a_run(
    tmp_path: Path, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    run = make_run(tmp_path / "run", "+experiment=epoch1")
    stored = yaml.safe_load((run / "config.yaml").read_text())
    stored["data"][name] = value
    (run / "config.yaml").write_text(yaml.safe_dump(stored))
    with pytest.raises(ConfigError, match="interpolations") as caught:
        compose([], settings=data_settings(run, []))
    assert "hf_secret" not in str(caught.value)
    # The user's own word stands in the place of the run's.
    mine = compose([f"data.{name}=17"], settings=data_settings(run, []))
    assert str(getattr(mine.data, name)) == "17"


@pytest.mark.parametrize(
    "value",
    ["a,b", "choice(1,2)", "range(1,9)", "glob(*)", "'x'", "{a: 1}", "\x1b", "~", ""],
)
def test_values_of_a_run_are_read_once(tmp_path: Path, value: str) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps({"data": {"path": value, "batch_size": 3}}))
    config = compose(["seed=2"], settings=data_settings(tmp_path, []))
    assert (config.data.path, config.data.batch_size, config.seed) == (value, 3, 2)


def test_a_run_names_options_of_its_data_alone(tmp_path: Path) -> None:
    content = {"data": {"pathh": "x", "x" * 900: 1}}
    (tmp_path / "config.yaml").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"data\.pathh: no such option; did you mean data\.path"):
        compose([], settings=data_settings(tmp_path, []))
    (tmp_path / "config.yaml").write_text(json.dumps({"data": {"a": {"b": 1}, "c.d": 2}}))
    with pytest.raises(ConfigError, match=r"data\.a\.b: no such option"):
        compose([], settings=data_settings(tmp_path, []))


def test_an_odd_revision_is_none(tmp_path: Path) -> None:
    for odd in ("../x", "a b", ["c0ffee"], {"a": 1}, 5, "", "${oc.env:HF_TOKEN}", "x" * 200):
        run = make_run(tmp_path / str(abs(hash(str(odd)))), "+experiment=epoch1")
        (run / "versions.json").write_text(json.dumps({"data_revision": odd}))
        assert pinned_revision(run, compose([], settings=data_settings(run, []))) is None
    os.mkfifo(tmp_path / "pipe")
    (run / "versions.json").unlink()
    (run / "versions.json").symlink_to(tmp_path / "pipe")
    with bounded(100):
        assert pinned_revision(run, compose(["+experiment=epoch1"])) is None


def test_a_data_group_takes_the_place_of_the_runs(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "+experiment=epoch1")
    words = ["data=phantom"]
    assert compose(words, settings=data_settings(run, words)).data.name == "phantom"


def test_the_revision_is_kept_for_the_same_data_set_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "+experiment=epoch1")
    same = compose([], settings=data_settings(run, []))
    assert pinned_revision(run, same) == "c0ffee"
    assert pinned_revision(None, same) is None
    for word in ("data.path=here", "data.hub_id=me/mine", "data=phantom"):
        other = compose([word], settings=data_settings(run, [word]))
        assert pinned_revision(run, other) is None


def test_a_path_by_itself_is_told_how_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "mine")
    (tmp_path / "model.bin").write_bytes(b"")
    refuse_bare_path(["data.path=mine", "+experiment=beam", "beam"])
    for words, said in (
        (["mine"], "mine: write run=mine"),
        (["seed=1", "./mine/"], r"\./mine/: write run=\./mine/"),
        (["model.bin"], r"model\.bin: write evaluate\.weights=model\.bin"),
        (["runs/typo"], r"runs/typo: no such file or folder; a run is given as run=RUN"),
    ):
        with pytest.raises(ConfigError, match=said):
            refuse_bare_path(words)


def test_run_is_a_word_of_its_own(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert take_run([f"run={run}", "run.name=x", "seed=1"]) == (run, ["run.name=x", "seed=1"])
    assert take_run(["seed=1"]) == (None, ["seed=1"])
    with pytest.raises(ConfigError, match=r"run=.*evaluate.weights=.*tmp"):
        (tmp_path / "file.bin").write_bytes(b"")
        take_run([f"run={tmp_path / 'file.bin'}"])


@pytest.mark.parametrize(
    "text", ["", "data: 5", "[", "model: {}", "data: {path: [1]}", "[" * 9999, LAUGHS]
)
def test_a_damaged_configuration_is_told_in_a_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"config.yaml: not the configuration of a run"):
        data_settings(tmp_path, [])
