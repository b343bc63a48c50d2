"""Folders under another name, on file systems that rename none."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from radcap.files.moving import cannot_rename, move_files, move_folder

Fault = Callable[[int], None]


@pytest.fixture
def no_renames(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Renames of folders fail as on a mounted bucket; those of files are noted."""
    return refuse_renames(monkeypatch)


def refuse_renames(
    monkeypatch: pytest.MonkeyPatch, number: int = errno.ENOSYS, *, files: bool = False
) -> list[tuple[str, str]]:
    """Let the system refuse to rename folders, or anything.

    Returns:
        The renames that were done, as they come.
    """
    true, done = os.rename, []

    def rename(source: str, target: str) -> None:
        if files or Path(source).is_dir():
            raise OSError(number, os.strerror(number), str(source))
        done.append((Path(source).name, Path(target).name))
        true(source, target)

    monkeypatch.setattr(os, "rename", rename)
    return done


def filled(folder: Path) -> Path:
    (folder / "below" / "deep").mkdir(parents=True)
    (folder / "a").write_text("a")
    (folder / "z").write_text("z")
    (folder / "below" / "deep" / "b").write_text("b")
    (folder / "link").symlink_to("a")
    return folder


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EMFILE, errno.EXDEV, errno.EOPNOTSUPP])
@pytest.mark.parametrize("files", [False, True])
def test_everything_comes_along_and_what_says_whole_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, files: bool
) -> None:
    source, target = filled(tmp_path / "source"), tmp_path / "target"
    done = refuse_renames(monkeypatch, number, files=files)
    move_folder(source, target, last="a")
    assert not source.exists()
    assert {str(path.relative_to(target)) for path in target.rglob("*")} == {
        *("a", "z", "link", "below", "below/deep", "below/deep/b"),
    }
    assert (target / "below" / "deep" / "b").read_text() == "b"
    assert (target / "link").is_symlink()
    if not files:
        assert done[-1] == ("a", "a")


def test_what_broke_off_is_gone_on_with(
    tmp_path: Path, no_renames: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = filled(tmp_path / "source"), tmp_path / "target"
    unbroken = os.rename

    def break_off(one: str, other: str) -> None:
        if Path(one).name == "z":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        unbroken(one, other)

    with monkeypatch.context() as broken:
        broken.setattr(os, "rename", break_off)
        with pytest.raises(OSError, match="No space"):
            move_folder(source, target, last="a")
    assert (source / "a").exists() and not (target / "a").exists()
    move_files(source, target, last="a")
    assert (target / "a").exists() and not source.exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOTEMPTY, errno.ENOSPC, errno.EROFS])
def test_other_faults_are_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refuse_renames(monkeypatch, number)
    with pytest.raises(OSError) as caught:
        move_folder(filled(tmp_path / "source"), tmp_path / "target")
    assert caught.value.errno == number and not cannot_rename(caught.value)
    assert not (tmp_path / "target").exists()
