"""A file that outlives a full disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from radcap.files.durable import DurableFile


def test_what_cannot_be_written_waits_and_half_of_it_never_stays(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"before\n")
    file = DurableFile(path)
    file.append(b"one\n")
    real, room = os.write, 5

    def write(descriptor: int, data: bytes) -> int:
        nonlocal room
        if room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = real(descriptor, bytes(data)[:room])
        room -= count
        return count

    monkeypatch.setattr(os, "write", write)
    file.append(b"two, of which five bytes find room\n")
    assert path.read_bytes() == b"before\none\n"
    file.append(b"three\n")
    assert file.waits
    said = capsys.readouterr().out
    assert said.count("No space left on device") == 1 and str(path) in said

    room = 10**6
    file.append(b"four\n")
    assert not file.waits
    file.close()
    expected = b"before\none\ntwo, of which five bytes find room\nthree\nfour\n"
    assert path.read_bytes() == expected


def test_a_file_that_never_finds_room_ends_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    file = DurableFile(tmp_path / "lines")

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    file.append(b"lost\n")
    file.close()
    assert (tmp_path / "lines").read_bytes() == b""
