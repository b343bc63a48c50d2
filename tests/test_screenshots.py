"""TensorBoard's tabs in a real browser.

Skipped without playwright, which no extra brings, or without a Chromium.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ROOT, train

BROWSERS = ("chromium", "chromium-browser")


@pytest.mark.slow
def test_every_tab_shows_the_run(tmp_path: Path, cache: Path) -> None:
    pytest.importorskip("playwright")
    if not any(map(shutil.which, BROWSERS)):
        pytest.skip("no Chromium on the path")
    done = train(tmp_path, cache, "+experiment=smoke", "runtime=cpu")
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/screenshots.py", "runs", "pictures"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    pictures = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert pictures == ["dashboard.png", "hparams.png", "images.png", "text.png"]


def test_without_its_two_words_it_says_how_it_is_used() -> None:
    script = [sys.executable, ROOT / "scripts/screenshots.py", "runs"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "usage: python scripts/screenshots.py RUNS FOLDER\n"


def test_the_picture_of_the_readme_is_small() -> None:
    readme = (ROOT / "README.md").read_text()
    for picture in sorted((ROOT / "scripts").glob("*.png")):
        assert picture.stat().st_size < 300_000
        assert f"scripts/{picture.name}" in readme
