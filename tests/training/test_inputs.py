"""Where a run keeps what it can make again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from radcap.errors import ConfigError
from radcap.training.inputs import cache_folder


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache's place in the temporary folder, of a user whose home cannot be written."""
    for name in ("RADCAP_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"radcap-cache-{os.getuid()}"


def test_a_cache_among_other_peoples_files_is_ours_alone(temporary: Path) -> None:
    assert cache_folder() == temporary
    assert temporary.stat().st_mode & 0o777 == 0o700
    assert cache_folder() == temporary  # and the next command takes it again


@pytest.mark.parametrize("kind", ["link", "open to others", "file", "somebody else's"])
def test_a_cache_that_others_may_have_filled_is_refused(
    temporary: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        temporary.symlink_to(tmp_path / "elsewhere")
    elif kind == "file":
        temporary.write_text("")
    else:
        temporary.mkdir()
        temporary.chmod(0o777 if kind == "open to others" else 0o700)
    if kind == "somebody else's":
        temporary = temporary.rename(tmp_path / "radcap-cache-12345")
        monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(ConfigError, match=rf"{temporary.name} is no folder .*RADCAP_CACHE"):
        cache_folder()
