"""TensorBoard's tabs and the demo's page in a real browser, photographed by the scripts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from browser import need_chromium
from command_line import ROOT, run_interpreter, train
from evaluation.known import looking_model, save
from PIL import Image


def run_script(name: str, cwd: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return run_interpreter(ROOT / "scripts" / name, *words, cwd=cwd)


@pytest.mark.slow
def test_every_tab_shows_the_run(tmp_path: Path, cache: Path) -> None:
    need_chromium()
    done = train(tmp_path, cache, "+experiment=smoke", "runtime=cpu")
    assert done.returncode == 0, done.stderr
    done = run_script("screenshots.py", tmp_path, "runs", "pictures")
    assert done.returncode == 0, done.stderr
    pictures = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert pictures == ["dashboard.png", "hparams.png", "images.png", "text.png"]


@pytest.mark.slow
def test_the_page_before_with_a_caption_a_heat_map_and_a_bad_file(tmp_path: Path) -> None:
    need_chromium()
    save(looking_model(1, 8), tmp_path / "weights.safetensors")
    done = run_script("demo_screenshots.py", tmp_path, "weights.safetensors", "pictures")
    assert done.returncode == 0, done.stderr
    pictures = sorted((tmp_path / "pictures").iterdir())
    names = ["bad_file.png", "before.png", "caption.png", "heat_map.png"]
    assert [path.name for path in pictures] == names
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.width == 1240 and picture.height >= 900
            assert len(picture.convert("L").getcolors(maxcolors=256) or ()) > 50


@pytest.mark.parametrize(
    ("script", "words"),
    [("screenshots.py", "RUNS FOLDER"), ("demo_screenshots.py", "WEIGHTS FOLDER")],
)
def test_without_its_two_words_it_says_how_it_is_used(script: str, words: str) -> None:
    done = run_script(script, ROOT, "runs")
    assert done.returncode == 2
    assert done.stderr == f"usage: python scripts/{script} {words}\n"


def test_the_picture_of_the_readme_is_small() -> None:
    readme = (ROOT / "README.md").read_text()
    for picture in sorted((ROOT / "scripts").glob("*.png")):
        assert picture.stat().st_size < 300_000
        assert f"scripts/{picture.name}" in readme
