"""`python -m radcap`: the commands, and each of them by its name."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from command_line import ROOT
from test_layout import COMMANDS as MODULES
from watched import watch

from radcap.__main__ import COMMANDS, _list
from radcap.errors import ConfigError


def test_it_lists_every_command_with_a_line(tmp_path: Path) -> None:
    assert COMMANDS.keys() == MODULES
    for words in ((), ("--help",)):
        watched = watch(tmp_path, "-m", "radcap", *words)
        assert (watched.done.returncode, watched.done.stderr) == (0, "")
        lines = watched.done.stdout.splitlines()
        assert max(map(len, lines)) <= 100
        assert {line.split()[0] for line in lines if line.startswith("  ")} - {"that"} == MODULES
        assert not watched.heavy and not watched.connections


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("trian", "trian: no such command; did you mean train?"),
        ("radcap.doctor", "radcap.doctor: no such command; did you mean doctor?"),
        ("xyz", "xyz: no such command; there are train, evaluate"),
        ("+experiment=smoke", "as in radcap train +experiment=smoke"),
    ],
)
def test_what_is_no_command_is_told_in_a_line(word: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        _list([word])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("caption", "no.bin", "no.png"), 1),
        (("train", "trainer.max_stepz=5"), 2),
        (("evaluate", "--help"), 0),
    ],
)
def test_a_command_by_its_name_ends_as_its_module_does(
    tmp_path: Path, words: tuple[str, ...], status: int
) -> None:
    watched = watch(tmp_path, "-m", "radcap", *words)
    alone = watch(tmp_path, "-m", f"radcap.{words[0]}", *words[1:])
    for one in (watched, alone):
        assert one.done.returncode == status and not one.heavy
    assert watched.done.stdout == alone.done.stdout
    assert watched.done.stderr == alone.done.stderr


def test_where_it_is_installed_it_is_a_program_of_its_own() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"radcap": "radcap.__main__:main"}
