"""Commands that are given a run folder of a stranger: nothing of this machine goes into it."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest
from command_line import run_module

ARCHIVE = Path(__file__).parent / "stored" / "10d9035.tar.xz"
RUN = Path("runs/smoke")
SECRET = "hf_secretsecret"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A working folder with a run in it that evaluates, captions and resumes."""
    with tarfile.open(ARCHIVE) as packed:
        members = [one for one in packed if one.name.startswith(("runs", "data"))]
        packed.extractall(tmp_path, members, filter="data")
    return tmp_path


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("path: data", "path: ${oc.env:HF_TOKEN}"),
        ("hub_id: null", "hub_id: x/${oc.env:HF_TOKEN}"),
        ("val_split: val", "val_split: '${oc.env:HF_TOKEN}'"),
    ],
)
def test_an_evaluation_tells_nothing_of_the_environment(home: Path, old: str, new: str) -> None:
    file = home / RUN / "config.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    done = run_module("radcap.evaluate", home, home / "cache", f"run={RUN}", HF_TOKEN=SECRET)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("radcap: ") and done.stderr.count("\n") == 1
    assert "interpolations" in done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert sorted(path.name for path in home.iterdir()) == ["data", "runs"]


def test_a_pipe_among_the_temporary_files_stalls_no_evaluation(home: Path) -> None:
    temporary = home / "tmp"
    temporary.mkdir()
    os.mkfifo(temporary / f"radcap-spool-{os.getuid()}-x")
    words = (f"run={RUN}", "evaluate.captions=0", "runtime=cpu", "runtime.threads=1")
    done = run_module("radcap.evaluate", home, home / "cache", *words, TMPDIR=str(temporary))
    assert done.returncode == 0, done.stderr
