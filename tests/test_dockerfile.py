"""Dockerfile.tpu: linted; its install steps resolve, and what it copies makes the wheel."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILE = ROOT / "Dockerfile.tpu"


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments), comments and broken lines joined."""
    text = re.sub(r"^#.*\n", "", FILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(word, " ".join(rest.split())) for word, rest in lines]


def test_it_passes_hadolint() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, "--no-color", FILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_dependencies_come_before_code_and_the_user_is_not_root() -> None:
    words = instructions()
    install = words.index(
        ("RUN", "uv pip install --requirements pyproject.toml --extra tpu --extra gcs")
    )
    copied_before = [rest.split()[0] for word, rest in words[:install] if word == "COPY"]
    assert copied_before == ["pyproject.toml"]
    users = [rest for word, rest in words if word == "USER"]
    assert users == ["1000"]
    assert "--uid 1000" in next(rest for word, rest in words if "useradd" in rest)
    assert not [word for word, _ in words[words.index(("USER", "1000")) :] if word == "RUN"]
    entry = next(json.loads(rest) for word, rest in words if word == "ENTRYPOINT")
    assert entry == ["python", "-m"]


@pytest.mark.slow
def test_what_it_copies_installs_and_its_dependencies_resolve(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.mkdir()
    for word, rest in instructions():
        if word == "COPY":
            *sources, target = rest.split()
            for source in sources:
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, image / target)
                else:
                    shutil.copy(ROOT / source, image / source)
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--python", sys.executable, tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    steps = [rest for word, rest in instructions() if word == "RUN" and rest.startswith("uv pip")]
    assert len(steps) == 2
    for number, step in enumerate(steps):
        # The dependencies are resolved and not installed: the wheel's own test installs them.
        dry = ["--dry-run"] if number == 0 else []
        done = subprocess.run(
            [*uv, *shlex.split(step)[1:], *dry, "--python", python],
            cwd=image,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        if number == 0:
            for package in ("torch==2.9.0", "torch-xla==2.9.0", "libtpu==0.0.21", "gcsfs=="):
                assert f"+ {package}" in done.stderr
    where = subprocess.run(
        [python, "-m", "radcap.train", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert where.returncode == 0 and where.stdout.startswith("usage: python -m radcap.train")
    packed = list((tmp_path / "venv").rglob("radcap/configs/experiment/epoch1.yaml"))
    assert packed and list((tmp_path / "venv").rglob("radcap/assets/vocab.txt"))
