"""Which files the words of a command line mean, and in which order."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from radcap.serving.files import list_files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.png", "a.JPG", "sub/c.dcm", "sub/deep/d.tif", ".hidden.png", ".git/e.png"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).touch()
    (tmp_path / "set" / "notes.csv").touch()
    (tmp_path / "set" / "readme").write_bytes(b"text")
    for name in ("IM0001", "1.2.840.5", "DICOMDIR"):
        (tmp_path / "set" / "sub" / name).write_bytes(b"\0" * 128 + b"DICM")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*words: str, stdin: str = "") -> list[str]:
    listing = list_files(words, io.StringIO(stdin))
    assert not listing.faults
    return listing.files


def test_a_folder_gives_its_pictures_sorted(folder: Path) -> None:
    listing = list_files(["set"], io.StringIO())
    assert listing.files == [
        f"set/{name}"
        for name in ("a.JPG", "b.png", "sub/1.2.840.5", "sub/IM0001", "sub/c.dcm", "sub/deep/d.tif")
    ]
    assert listing.passed_over == 3  # notes.csv, readme, DICOMDIR
    assert not listing.faults


def test_order_is_that_of_the_words_and_each_file_comes_once(folder: Path) -> None:
    assert found("set/b.png", "set/a.JPG", "./set/b.png", "set/*.[pJ]*") == [
        "set/b.png",
        "set/a.JPG",
    ]
    (folder / "set" / "link.png").symlink_to("b.png")
    assert found("set/link.png", "set/b.png") == ["set/link.png"]
    # What is named itself is taken, whatever it is called.
    assert found("set/notes.csv", "set/.hidden.png") == ["set/notes.csv", "set/.hidden.png"]


def test_patterns(folder: Path) -> None:
    assert found("set/**/*.dcm", "set/**/*.tif") == ["set/sub/c.dcm", "set/sub/deep/d.tif"]
    assert found(f"{folder}/set/*.png") == [f"{folder}/set/b.png"]
    (folder / "odd[1].png").touch()
    assert found("odd[1].png") == ["odd[1].png"]  # a file of that very name comes first


def test_a_list_on_standard_input(folder: Path) -> None:
    (folder / " spaces .png").touch()
    assert found("-", stdin="\ufeffset/a.JPG\n") == ["set/a.JPG"]
    assert found("set/b.png", "-", stdin="set/a.JPG\r\n\n spaces .png\nset/b.png") == [
        "set/b.png",
        "set/a.JPG",
        " spaces .png",
    ]


def test_what_is_not_there_is_named_and_the_rest_is_found(folder: Path) -> None:
    (folder / "bare").mkdir()
    os.mkfifo(folder / "pipe")
    words = ["none.png", "set/b.png", "*.nothing", "bare", "pipe", "x" * 300, "a\0b"]
    listing = list_files(words, io.StringIO())
    assert listing.files == ["set/b.png"]
    assert listing.faults == [
        "none.png: no such file or folder",
        "*.nothing: no file matches",
        "bare: no pictures in this folder",
        "pipe: neither a file nor a folder",
        f"{'x' * 300}: File name too long",
        "a\0b: no such file or folder",
    ]


def test_linked_folders_are_taken_once_and_loops_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "set" / "sub" / "up").symlink_to("..")
    (folder / "set" / "twin").symlink_to("sub")
    (folder / "other").mkdir()
    (folder / "other" / "o.png").touch()
    (folder / "set" / "linked").symlink_to("../other")
    scandir, read = os.scandir, []

    def counting(path: str) -> Any:
        read.append(os.fspath(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", counting)
    listing = list_files(["set"], io.StringIO())
    assert not listing.faults
    # Each folder by each of its names; what lies below one once.
    below = ("set/linked", "set/sub", "set/sub/deep", "set/sub/up", "set/twin")
    assert sorted(read) == ["set", *below]
    assert len(listing.files) == 7
    assert "set/linked/o.png" in listing.files
    assert found("set/**/*.png") == ["set/b.png", "set/linked/o.png"]
    assert found("set/**/deep/**/*.tif") == ["set/sub/deep/d.tif"]


def test_folders_that_match_are_named_folders(folder: Path) -> None:
    assert found("set/s*") == found("set/sub")
    named = [f"set/{name}" for name in ("a.JPG", "b.png", "notes.csv", "readme")]
    assert found("set/*") == [*named, *found("set/sub")]
    assert set(found("set/**")) > set(found("set"))  # files of any name
    (folder / "bare" / "deep").mkdir(parents=True)
    for pattern in ("bare/*", "bare/**"):
        listing = list_files([pattern], io.StringIO())
        assert not listing.files
        assert "bare/deep: no pictures in this folder" in listing.faults


def test_links_to_nothing_are_read_and_so_named(folder: Path) -> None:
    (folder / "set" / "gone.png").symlink_to("nowhere.png")
    (folder / "set" / "round.png").symlink_to("round.png")
    os.mkfifo(folder / "set" / "pipe")
    listing = list_files(["set"], io.StringIO())
    assert {"set/gone.png", "set/round.png"} < set(listing.files)
    assert not listing.faults
    assert listing.passed_over == 4
    (folder / "all*").symlink_to("nowhere")
    assert found("al*", "set/*.png") == ["all*", "set/b.png", "set/gone.png", "set/round.png"]


def test_folders_that_may_not_be_read_are_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refusing(path: str) -> Iterator[os.DirEntry[str]]:  # root may read everything
        if str(path).endswith("deep"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refusing)
    for word, files in [("set", 5), ("set/**/*.dcm", 1), ("set/sub/deep", 0)]:
        listing = list_files([word], io.StringIO())
        assert len(listing.files) == files
        assert "set/sub/deep: Permission denied" in listing.faults
        assert len(listing.faults) == 1
