"""What a user installs: the wheel, in an environment of its own, used from another folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import PATIENCE_S

ROOT = Path(__file__).parent.parent


def run(*words: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.slow
def test_a_wheel_in_an_empty_environment_trains_from_another_folder(tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "dist", cwd=ROOT)
    (wheel,) = (tmp_path / "dist").glob("radcap-*.whl")
    uv = (sys.executable, "-m", "uv")
    run(*uv, "venv", "--python", sys.executable, tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    run(*uv, "pip", "install", "--python", python, wheel, cwd=tmp_path)
    work = tmp_path / "elsewhere"
    work.mkdir()
    cache = str(tmp_path / "cache")
    run(
        python, "-m", "radcap.train", "+experiment=smoke", "runtime=cpu", cwd=work,
        RADCAP_CACHE=cache,
    )  # fmt: skip
    summary = json.loads((work / "runs" / "smoke" / "summary.json").read_text())
    assert summary["steps"] == 20
    where = run(python, "-c", "import radcap; print(radcap.__file__)", cwd=work).stdout
    assert str(ROOT) not in where
