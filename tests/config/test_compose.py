"""Composition: what is refused, what wins, and that nothing slips through."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml
from watched import watch

from radcap.config.checks import check_encoder_start
from radcap.config.compose import compose, configs_folder, from_yaml, to_yaml
from radcap.config.options import declared
from radcap.config.schema import Config, Duration
from radcap.errors import ConfigError

EXPERIMENTS = sorted(file.stem for file in (configs_folder() / "experiment").glob("*.yaml"))
DEBUG = sorted(file.stem for file in (configs_folder() / "debug").glob("*.yaml"))


@pytest.mark.parametrize(
    ("word", "key", "hint"),
    [
        ("trainer.max_stepz=5", "trainer.max_stepz", "trainer.max_steps"),
        ("trainr.max_steps=5", "trainr.max_steps", "trainer.max_steps"),
        ("optimizer.lr=abc", "optimizer.lr", "Float"),
        ("optimizer.lr=0", "optimizer.lr", "above 0"),
        ("optimizer.lr=nan", "optimizer.lr", "finite"),
        ("data.batch_size=0", "data.batch_size", "at least 1"),
        ("data.batch_size=2.5", "data.batch_size", "Integer"),
        ("model.num_heads=7", "model.num_heads", "8"),
        ("model.num_heads=0", "model.num_heads", "at least 1"),
        ("model.dropout=1", "model.dropout", "below 1"),
        ("runtime=gpuu", "runtime", "cpu"),
        ("runtime=gpu", "runtime", "; did you mean cuda?"),
        ("runtime=GPU", "runtime", "; did you mean cuda?"),
        ("runtime=cuda:0", "runtime", "nearest: cuda"),
        ("runtime.name=gpu", "runtime.name", "; did you mean cuda?"),
        ("runtime=mps", "runtime", "Apple's GPU, cpu works there"),
        ("runtime=common", "runtime", "there are auto, cpu, cuda, tpu, xla_cpu"),
        ("lr=1e-3", "lr", "no such option; did you mean optimizer.lr?"),
        ("+model.lr=1e-3", "model.lr", "did you mean optimizer.lr?"),
        ("learning_rate=1", "learning_rate", "did you mean optimizer.lr?"),
        ("batchsize=4", "batchsize", "did you mean data.batch_size?"),
        ("prefetch=4", "prefetch", "did you mean data.prefetch or runtime.prefetch?"),
        ("experimnt=smoke", "experimnt", "did you mean experiment?"),
        ("device=cuda", "device", "did you mean runtime?"),
        ("smoke", "smoke", "write +experiment=smoke"),
        ("tiny", "tiny", "write model=tiny"),
        ("model.encoder_weights=resnet50", "model.encoder_weights='resnet50'", "imagenet, none"),
        ("data.config=instruct", "data.config='instruct'", "data.config=alignment"),
        ("data.config=Benchmark", "data.config='Benchmark'", "neither train on nor score"),
        ("data=radimagenet", "data", "radimagenet_vqa"),
        ("+experiment=epoch9", "experiment", "epoch1"),
        ("experiment=epoch1", "experiment", "+experiment=epoch1"),
        ("trainer.max_steps=-1", "trainer.max_steps", "at least 1"),
        ("seed=x", "seed", "Integer"),
        ("seed=1,2", "seed", "[a,b]"),
        ("~seed", "seed", "null"),
        ("runtime.precision=fp16", "runtime.precision", "bf16"),
        ("trainer.save_every=10hours", "trainer.save_every", "10min"),
        ("trainer.eval_every=10min", "trainer.eval_every", "2epochs"),
        ("trainer.profile_steps=[5,2]", "trainer.profile_steps", "first"),
        ("trainer=5", "trainer", "group of options"),
        ("trainer.eval_every=0", "trainer.eval_every", "null"),
        ("trainer.save_every=0min", "trainer.save_every", "null"),
        ("hydra.run.dir=x", "hydra.run.dir", "run.dir"),
        ("run.dir=", "run.dir", "empty"),
        ("model.embed_dim=null", "model.embed_dim", "None"),
        ("novalue", "novalue", "key=value"),
    ],
)
def test_a_wrong_word_is_refused_by_name(word: str, key: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([word])
    message = str(caught.value)
    assert key in message
    assert hint in message
    assert len(message.splitlines()) <= 3


@pytest.mark.parametrize(
    "word",
    [
        *("banana=1", "foo.bar=1", "trainer.xyz=1", "optimizer.xyz=2", "x=1", "data=radiology"),
        *("runtime=abacus", "+experiment=nothing", "model=huge", "run.resume=true", "gpu=1"),
        "preflight.zzzz=1",
    ],
)
def test_nothing_is_suggested_where_nothing_is_near(word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([word])
    assert "did you mean" not in str(caught.value) and "nearest" not in str(caught.value)


def test_a_file_of_encoder_weights_that_is_not_there_may_have_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on does not read it again; a new one is refused by the trainer."""
    monkeypatch.chdir(tmp_path)
    gone = "weights/gone.pth"
    config = compose([f"model.encoder_weights={gone}"])
    assert config.model.encoder_weights == gone
    check_encoder_start(gone, may_be_gone=True)
    with pytest.raises(ConfigError, match=r"gone\.pth'?: no such file; choose from imagenet, none"):
        check_encoder_start(gone, may_be_gone=False)
    (tmp_path / "resnet50").write_bytes(b"")
    check_encoder_start(str(tmp_path / "resnet50"), may_be_gone=False)


def test_a_wrong_word_ends_before_anything_heavy_is_loaded_with_status_2(tmp_path: Path) -> None:
    watched = watch(tmp_path, "-m", "radcap.train", "trainer.max_stepz=5")
    done = watched.done
    assert done.returncode == 2
    assert "trainer.max_steps" in done.stderr
    assert "Traceback" not in done.stderr
    assert not watched.heavy and not watched.connections


def test_a_misspelt_key_inside_an_experiment_file_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "mine.yaml").write_text("# @package _global_\ntrainer:\n  max_stepz: 5\n")
    with pytest.raises(ConfigError, match=r"trainer\.max_stepz.*trainer\.max_steps"):
        compose(["+experiment=mine"], config_dir=str(tmp_path))


def test_an_experiment_without_its_package_line_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "mine.yaml").write_text("trainer:\n  max_steps: 5\n")
    with pytest.raises(ConfigError, match="experiment"):
        compose(["+experiment=mine"], config_dir=str(tmp_path))


def test_an_experiment_of_the_users_own_composes(tmp_path: Path) -> None:
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "mine.yaml").write_text("# @package _global_\ntrainer:\n  max_steps: 5\n")
    config = compose(["+experiment=mine", "seed=3"], config_dir=str(tmp_path))
    assert (config.trainer.max_steps, config.trainer.max_epochs, config.seed) == (5, None, 3)


def test_an_experiment_may_choose_hydras_own_options(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    file = tmp_path / "experiment" / "mine.yaml"
    file.write_text(
        "# @package _global_\ndefaults:\n  - _self_\n  - override /hydra/job_logging: none\n"
        "trainer:\n  max_steps: 5\n"
    )
    assert compose(["+experiment=mine"], config_dir=str(tmp_path)).trainer.max_steps == 5


def test_an_experiment_built_on_another_has_its_length(tmp_path: Path) -> None:
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - epoch1\n  - _self_\noptimizer:\n  lr: 0.5\n"
    )
    config = compose(["+experiment=mine"], config_dir=str(tmp_path))
    assert (config.trainer.max_steps, config.trainer.max_epochs) == (2250, None)
    assert config.optimizer.lr == 0.5


def test_broken_yaml_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\na: [1\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml") as caught:
        compose(["+experiment=mine"], config_dir=str(tmp_path))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_says_its_command(name: str) -> None:
    text = (configs_folder() / "experiment" / f"{name}.yaml").read_text()
    trains = f"python -m radcap.train +experiment={name}" in text
    scores = f"python -m radcap.evaluate run=runs/epoch1 +experiment={name}" in text
    assert trains != scores and "# Expect:" in text and "# Costs:" in text
    # An evaluation keeps the name and the settings of its run.
    assert compose([f"+experiment={name}"]).run.name == (name if trains else "default")


@pytest.mark.parametrize("name", DEBUG)
def test_every_debug_preset_composes_on_top_of_an_experiment(name: str) -> None:
    config = compose(["+experiment=smoke", f"debug={name}"])
    assert config.trainer.max_steps == 20
    assert (config.trainer.profile_steps is not None) == (name == "profile")


def test_the_command_line_wins_over_the_experiment() -> None:
    config = compose(
        [
            "+experiment=epoch1",
            "data=phantom",
            "runtime=cpu",
            "model.encoder_weights=none",
            "data.batch_size=8",
            "trainer.max_steps=3",
        ]
    )
    assert config.data.name == "phantom"
    assert config.data.batch_size == 8
    assert config.trainer.max_steps == 3
    assert (config.model.embed_dim, config.model.num_layers) == (512, 5)


def test_one_length_replaces_another_from_a_stronger_level_only() -> None:
    config = compose(["+experiment=epoch1", "trainer.max_epochs=2"])
    assert (config.trainer.max_steps, config.trainer.max_epochs) == (None, 2.0)
    with pytest.raises(ConfigError, match=r"trainer\.max_steps and trainer\.max_epochs"):
        compose(["trainer.max_steps=5", "trainer.max_epochs=2"])
    with pytest.raises(ConfigError, match=r"trainer\.max_steps"):
        compose(["trainer.max_epochs=null"])


@pytest.mark.parametrize("words", [[], ["+experiment=epoch1"], ["debug=profile"]])
def test_yaml_round_trip(words: list[str]) -> None:
    config = compose(words)
    assert from_yaml(to_yaml(config)) == config


def test_the_configuration_is_read_only() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        compose([]).data.batch_size = 5  # type: ignore[misc]


def test_the_yaml_files_hold_known_options_only() -> None:
    known = declared(Config)
    for group in ("model", "optimizer", "schedule", "runtime", "logger"):
        for file in (configs_folder() / group).glob("*.yaml"):
            for key in yaml.safe_load(file.read_text()).keys() - {"defaults"}:
                assert f"{group}.{key}" in known


def test_durations() -> None:
    assert Duration.parse("100") == Duration(100, "steps")
    assert Duration.parse("5000 examples") == Duration(5000, "examples")
    assert Duration.parse("1.5epochs") == Duration(1.5, "epochs")
    assert Duration.parse("10min", minutes=True) == Duration(10, "minutes")
    for wrong in ("", "x", "-5", "1.5steps", "10min", "5 hours"):
        with pytest.raises(ValueError, match=r"\S"):
            Duration.parse(wrong)


def test_the_list_of_options_is_frozen() -> None:
    """A new option is a promise: add it here on purpose, with its comment in configs/."""
    frozen = Path(__file__).with_name("options.txt").read_text().split()
    assert sorted(declared(Config)) == frozen


def test_a_frozen_encoder_needs_weights() -> None:
    with pytest.raises(ConfigError, match="random weights sees nothing"):
        compose(["model.train_encoder=false"])
    assert not compose(["+experiment=frozen_encoder"]).model.train_encoder


@pytest.mark.parametrize(
    ("name", "steps"), [("epoch3", 6_699), ("v5e-8", 1_117), ("v3-32", 559), ("epoch1", 2_250)]
)
def test_the_headers_of_the_experiments_are_right(name: str, steps: int) -> None:
    from radcap.optim.schedule import run_length

    config = compose([f"+experiment={name}"])
    batch_size = config.data.batch_size
    per_epoch = -(-750_009 // batch_size)
    length = run_length(config.trainer, batch_size=batch_size, steps_per_epoch=per_epoch)
    assert length == steps
    header = (configs_folder() / f"experiment/{name}.yaml").read_text().split("defaults:")[0]
    assert f"{steps:,} " in header
