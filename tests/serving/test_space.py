"""What of radcap goes into a Space: its own files, from a checkout that need not be installed."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import NoReturn

import pytest
from command_line import ROOT

from radcap.serving import space


def test_a_copy_of_radcap_holds_nothing_else_that_lies_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "radcap"
    ours = {"__init__.py", "py.typed", "demo_app/blocks.py", "assets/page.css"}
    others = {"smith.dcm", "page/notes.txt", "__pycache__/x.pyc", ".cache/x.py", "runs/best.pt"}
    for name in ours | others:
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(name)
    monkeypatch.setattr(space, "_PACKAGE", package)
    space._copy_package(tmp_path / "copy")
    copied = (file for file in (tmp_path / "copy").rglob("*") if file.is_file())
    assert {file.relative_to(tmp_path / "copy").as_posix() for file in copied} == ours


@pytest.mark.parametrize("file", ["LICENSE", "NOTICE"])
def test_a_checkout_need_not_be_installed(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_installed(name: str) -> NoReturn:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", none_installed)
    assert space._legal_text(file) == (ROOT / file).read_text()
