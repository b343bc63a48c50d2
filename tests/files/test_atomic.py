"""Files and folders that are there whole or not at all, on file systems that rename none too."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from radcap.files.atomic import (
    beside,
    cannot_rename,
    move_files,
    move_folder,
    new_file,
    new_folder,
    remove_abandoned,
    write_atomically,
)

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


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("kind", [KeyError, KeyboardInterrupt])
def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_shared: bool, kind: type[BaseException]
) -> None:
    file = tmp_path / "file"
    write_atomically(file, "old", is_shared=is_shared)
    with pytest.raises(kind), new_file(file, is_shared=is_shared) as stream:
        stream.write(b"half")
        raise kind
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", lambda descriptor: os.write(descriptor, b"x" * 1000) / 0)
        with pytest.raises(ZeroDivisionError):
            write_atomically(file, "new", is_shared=is_shared)
        write_atomically(file, "quick", is_shared=is_shared, is_durable=False)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file": "quick"}


def test_what_is_written_has_the_usual_rights_and_follows_no_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / ".file.partial").symlink_to(precious)
    (tmp_path / "file").symlink_to(precious)
    write_atomically(tmp_path / "file", "odd \udcff ü")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "odd \\udcff ü"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == precious.stat().st_mode & 0o777
    (tmp_path / ".folder.partial").symlink_to(tmp_path)
    with new_folder(tmp_path / "folder", last="a") as partial:
        (partial / "a").touch()
    assert precious.read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"precious", "file", "folder"}


def test_several_may_write_a_file_at_a_time(tmp_path: Path) -> None:
    contents = {bytes([number]) * 100_000 for number in range(8)}
    start = threading.Barrier(len(contents))

    def write(content: bytes) -> None:
        start.wait()
        write_atomically(tmp_path / "file", content, is_shared=True)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file").read_bytes() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_fails_is_not_there_and_what_a_kill_left_is_not_in_it(
    tmp_path: Path, no_renames: list[tuple[str, str]]
) -> None:
    filled(tmp_path / ".folder.partial")
    with pytest.raises(KeyError), new_folder(tmp_path / "folder", last="a") as partial:
        assert list(partial.iterdir()) == []
        filled(partial / "more")
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "folder", last="a", is_shared=True) as partial:
        (partial / "a").touch()
        (partial / "z").touch()
    assert no_renames == [("z", "z"), ("a", "a")]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_what_was_abandoned_long_ago_is_removed(tmp_path: Path) -> None:
    with beside(tmp_path / "file", is_shared=True) as mine:
        for name in ("old.partial", "old"):
            (tmp_path / name).touch()
            os.utime(tmp_path / name, (0, time.time() - 100_000))
        mine.touch()
        remove_abandoned(tmp_path, "*.partial")
        assert {path.name for path in tmp_path.iterdir()} == {mine.name, "old"}
