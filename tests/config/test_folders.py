"""A folder of configs, the user's own or one that was passed on, that is not what it seems."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bounds import bounded
from files.test_mappings import HOSTILE_YAML

from radcap.config.compose import compose
from radcap.errors import ConfigError

HEAD = "# @package _global_\n"


def write(folder: Path, text: str) -> Path:
    (folder / "experiment").mkdir(exist_ok=True)
    (folder / "experiment" / "mine.yaml").write_text(HEAD + text)
    return folder


@pytest.mark.parametrize("case", [name for name in HOSTILE_YAML if name != "digits"])
def test_a_hostile_file_is_refused_in_a_line(tmp_path: Path, case: str) -> None:
    write(tmp_path, HOSTILE_YAML[case][0])
    with bounded(200), pytest.raises(ConfigError, match=r"mine\.yaml: ") as caught:
        compose(["+experiment=mine"], config_dir=str(tmp_path))
    assert "\n" not in str(caught.value)


def test_what_is_built_upon_is_looked_at_too(tmp_path: Path) -> None:
    write(tmp_path, "defaults: [base]\nseed: 1\n")
    (tmp_path / "experiment" / "base.yaml").write_text(HEAD + HOSTILE_YAML["laughs"][0])
    with bounded(200), pytest.raises(ConfigError, match=r"base\.yaml: too many values"):
        compose(["+experiment=mine"], config_dir=str(tmp_path))


def test_aliases_of_ones_own_are_followed(tmp_path: Path) -> None:
    write(tmp_path, "seed: &n 7\ntrainer: {max_steps: *n}\n")
    config = compose(["+experiment=mine"], config_dir=str(tmp_path))
    assert (config.seed, config.trainer.max_steps) == (7, 7)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    os.mkfifo(tmp_path / "experiment" / "mine.yaml")
    with bounded(200), pytest.raises(ConfigError, match="mine"):
        compose(["+experiment=mine"], config_dir=str(tmp_path))


def test_a_folder_of_an_odd_name(tmp_path: Path) -> None:
    folder = tmp_path / "my, [odd] 'folder'"
    folder.mkdir()
    write(folder, "seed: 8\n")
    assert compose(["+experiment=mine"], config_dir=str(folder)).seed == 8


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("seed=1" + "0" * 400, "^seed: a number of more than 30 digits"),
        ("seed=1" + "0" * 5_000, "^'seed=10+...' cannot be read"),
        ("data.window_gb=1" + "0" * 400, r"data\.window_gb"),
        ("data.batch_size=1000000000", r"data\.batch_size=1000000000: must be at most 1e\+06"),
        ("data.phantom.val_rows=1000000000", "must be at most"),
        ("model.embed_dim=1000000000", r"model\.embed_dim=1000000000: must be at most 65536"),
        ("trainer.save_every=" + "9" * 350 + "min", "is longer than"),
        ("trainer.max_epochs=1e308", "must be at most"),
        (r"run.name='\${x}'", r"run\.name=\$\{x\}: no \$\{ in a value"),
    ],
)
def test_numbers_out_of_all_proportion(word: str, said: str) -> None:
    with bounded(200), pytest.raises(ConfigError, match=said) as caught:
        compose([word])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 450


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_file_of_any_editor_is_read(tmp_path: Path, encoding: str, end: str) -> None:
    (tmp_path / "experiment").mkdir()
    text = f"{HEAD}# Straße\nrun:\n  name: Löwe\n".replace("\n", end)
    (tmp_path / "experiment" / "mine.yaml").write_bytes(text.encode(encoding))
    assert compose(["+experiment=mine"], config_dir=str(tmp_path)).run.name == "Löwe"


@pytest.mark.parametrize("content", [b"# \xdf\n", b"\xff\xfe\n", b"\xff\xfe\x00\xd8\n\x00"])
def test_a_file_in_another_encoding_is_refused_in_a_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_bytes(HEAD.encode() + content)
    with pytest.raises(
        ConfigError, match=r"mine\.yaml: no UTF-8 text: byte 0x.. in line 2"
    ) as told:
        compose(["+experiment=mine"], config_dir=str(tmp_path))
    assert "\n" not in str(told.value)


def test_a_broken_header_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_ too much\nseed: 1\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: Too many components") as told:
        compose(["+experiment=mine"], config_dir=str(tmp_path))
    assert "\n" not in str(told.value)


ODD_FOLDERS = ["cfg (old)", "[a,b]", "a=b#c", "it's", "Straße 放射", "a::b", "{x}", "~x", "a b "]


@pytest.mark.parametrize("name", ODD_FOLDERS)
def test_a_folder_of_any_name(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / name
    folder.mkdir()
    write(folder, "seed: 8\n")
    assert compose(["+experiment=mine"], config_dir=str(folder)).seed == 8
    monkeypatch.chdir(tmp_path)
    assert compose(["+experiment=mine"], config_dir=name).seed == 8
