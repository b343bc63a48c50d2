"""Folders that the environment names, in environments that name none."""

from __future__ import annotations

import os
import pwd
import tempfile
from pathlib import Path

import pytest
from command_line import ROOT, run_interpreter, run_python

from radcap.errors import ConfigError, RadcapError
from radcap.host.places import home_folder, settle, temporary_folder, with_home
from radcap.training.inputs import cache_folder


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No HOME, no name, and a user of whom the system knows nothing; the temporary folder."""

    def unknown(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME", "RADCAP_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [("~", "/home/me"), ("~/a b", "/home/me/a b"), ("~me/a", "~me/a"), ("a/~", "a/~"), ("", "")],
)
def test_a_tilde_that_the_shell_left_is_the_home_folder(
    text: str, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert with_home(text) == expected
    (tmp_path / "~").mkdir()
    assert with_home(text) == text


def test_without_a_home_a_tilde_is_refused_and_the_cache_is_among_temporary_files(
    homeless: Path,
) -> None:
    assert home_folder() is None
    with pytest.raises(ConfigError, match="~/a: no home folder is known here; set HOME"):
        with_home("~/a")
    assert cache_folder() == homeless / f"radcap-cache-{os.getuid()}"


def test_packages_get_a_home_and_a_name(homeless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "x")  # so that it is as before afterwards
    monkeypatch.setenv("LOGNAME", "x")
    del os.environ["HOME"], os.environ["LOGNAME"]
    settle()
    assert os.environ["HOME"] == str(homeless / f"radcap-cache-{os.getuid()}")
    assert os.environ["LOGNAME"] == f"user-{os.getuid()}"


def test_without_a_temporary_folder_the_cache_has_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nonexistent"])
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.delenv("RADCAP_CACHE", raising=False)
    with pytest.raises(RadcapError, match="export TMPDIR=FOLDER to one that can") as caught:
        temporary_folder()
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("TMPDIR", "x")  # so that it is as before afterwards
    monkeypatch.setenv("RADCAP_CACHE", str(tmp_path / "cache"))
    assert temporary_folder() == tmp_path / "cache" / "tmp"
    assert tempfile.mkdtemp().startswith(str(tmp_path))
    assert os.environ["TMPDIR"] == str(tmp_path / "cache" / "tmp")


def test_a_package_that_finds_no_temporary_folder_ends_a_command_in_a_line(tmp_path: Path) -> None:
    code = (
        "import sys, tempfile; from radcap.host.console import run_command\n"
        "tempfile._candidate_tempdir_list = lambda: ['/nonexistent']\n"
        "sys.exit(run_command(lambda words: tempfile.gettempdir(), ''))"
    )
    done = run_python(code, cwd=tmp_path, RADCAP_CACHE=None)
    assert done.returncode == 1
    assert done.stderr.startswith("radcap: no folder for temporary files can be written")
    assert done.stderr.count("\n") == 1


SHADOW = "raise SystemExit('a file of the current folder was imported')\n"


@pytest.mark.parametrize("name", ["yaml", "hydra", "logging", "tempfile", "omegaconf", "datasets"])
def test_a_file_of_the_current_folder_takes_no_packages_place(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text(SHADOW)
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(SHADOW)
    words = ("-m", "radcap.train", "--show-config", "run.name=mine")
    done = run_interpreter(*words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "name: mine" in done.stdout


PATHS = """
import sys
from pathlib import Path
sys.argv, sys.path[0] = sys.argv[1:], str(Path.cwd())
before = list(sys.path)
import radcap, os
print([path for path in before if path not in sys.path], [path for path in sys.path
      if path == before[0]] == sys.path[-1:], os.environ.get("PYTHONSAFEPATH"))
"""


@pytest.mark.parametrize(
    ("word", "holds_radcap", "expected"),
    [
        ("-m", False, "['{here}'] False 1"),
        ("-m", True, "[] True None"),  # a checkout: last, and its processes find it
        ("my_program.py", False, "[] False None"),  # somebody's own path is theirs
    ],
)
def test_the_current_folder_is_left_by_commands_alone(
    tmp_path: Path, word: str, holds_radcap: bool, expected: str
) -> None:
    if holds_radcap:
        (tmp_path / "radcap").symlink_to(ROOT / "radcap")
    done = run_python(PATHS, word, cwd=tmp_path, PYTHONSAFEPATH=None)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == expected.format(here=tmp_path)
