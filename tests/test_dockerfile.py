"""Dockerfile.tpu: linted; its install steps resolve, and what it copies makes the wheel."""

from __future__ import annotations

import json
import os
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
    """Its steps in their order, in a fresh environment: each has what was copied before it."""
    image = tmp_path / "image"
    image.mkdir()
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--python", sys.executable, tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    resolved: list[str] = []
    variables = image_variables()
    # The environment is the test's own, and torch's CPU build lies in an index of its own, which
    # tests do without: PyPI's is resolved instead.
    assert variables.pop("UV_SYSTEM_PYTHON") == "1"
    assert variables.pop("UV_TORCH_BACKEND") == "cpu"
    for word, rest in instructions():
        if word == "COPY":
            copy(image, *rest.split())
        if word != "RUN" or not rest.startswith("uv pip"):
            continue
        # The dependencies are resolved and not installed: the wheel's own test installs them.
        dry = [] if "--no-deps" in rest else ["--dry-run"]
        done = subprocess.run(
            [*uv, *shlex.split(rest)[1:], *dry, "--python", python],
            cwd=image,
            env=os.environ | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        resolved.append(done.stderr)
    for package in ("torch==2.9.0", "torch-xla==2.9.0", "libtpu==0.0.21", "gcsfs=="):
        assert f"+ {package}" in resolved[0]
    assert "+ radcap==" in resolved[1]
    done = subprocess.run(
        [python, "-m", "radcap.train", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and done.stdout.startswith("usage: python -m radcap.train")
    for packed in ("radcap/configs/experiment/epoch1.yaml", "radcap/assets/vocab.txt"):
        assert list((tmp_path / "venv").rglob(packed))


def image_variables() -> dict[str, str]:
    """What ENV sets, with the defaults of ARG."""
    defaults = dict(rest.split("=", 1) for word, rest in instructions() if word == "ARG")
    pairs = (pair for word, rest in instructions() if word == "ENV" for pair in shlex.split(rest))
    found = dict(pair.split("=", 1) for pair in pairs)
    return {name: re.sub(r"\$\{(\w+)\}", lambda m: defaults[m[1]], v) for name, v in found.items()}


def copy(image: Path, *words: str) -> None:
    """COPY: files into a folder, or a folder's content to a name."""
    *sources, target = words
    for source in sources:
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, image / target)
        else:
            shutil.copy(ROOT / source, image / target)
