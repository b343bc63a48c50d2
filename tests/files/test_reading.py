"""Files are read where they are files, and only so far."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from bounds import bounded

from radcap.files.reading import check_regular, open_regular, read_bytes, read_lines, read_text


def test_files_alone_are_opened(tmp_path: Path) -> None:
    pipe, file, link = tmp_path / "pipe", tmp_path / "file", tmp_path / "link"
    os.mkfifo(pipe)
    file.write_text("text")
    link.symlink_to(file)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    with bounded(100):
        for odd in (pipe, tmp_path / "socket", Path("/dev/zero"), Path("/dev/tty")):
            for read in (open_regular, check_regular, lambda path: next(read_lines(path, most=9))):
                with pytest.raises(OSError, match="neither a file nor a folder"):
                    read(odd)
        with pytest.raises(IsADirectoryError):
            open_regular(tmp_path)
        with pytest.raises(FileNotFoundError):
            read_bytes(tmp_path / "none", most=9)
    listener.close()
    assert check_regular(link) == 4
    assert read_text(str(link), most=4) == "text"


def test_no_more_is_read_than_may_be(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert read_bytes(file, most=5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_bytes(file, most=4)
    with file.open("r+b") as stream:
        stream.truncate(10**13)
    with bounded(100), pytest.raises(OSError, match="more than 1,000,000 bytes"):
        read_bytes(file, most=1_000_000)


def test_lines_of_any_number_and_none_that_is_long(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_bytes(b"a\n" + b"x" * 40 + b"\nbc\r\n\n" + b"y" * 9 + b"\nlast")
    assert list(read_lines(file, most=10)) == [
        b"a\n",
        b"\n",
        b"bc\r\n",
        b"\n",
        b"y" * 9 + b"\n",
        b"last",
    ]
    with file.open("ab") as stream:
        stream.truncate(3 * 10**8)  # one line of 300 MB
    with bounded(100):
        assert len(list(read_lines(file, most=1000))) == 6
