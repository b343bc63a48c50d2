"""The learning proof: the default run comes near the lowest loss its data allows, by looking."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import programs
import pytest
from waiting import PATIENCE_S

ROOT = Path(__file__).parent.parent


def run(tmp_path: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RADCAP_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
        timeout=6 * PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Two thirds of the default run learn enough; the whole of it is for the figures of the README.
SEEDS = os.environ.get("RADCAP_SEEDS")
LENGTH = () if SEEDS else ("trainer.max_epochs=2", "trainer.eval_every=null")


@pytest.mark.slow(minutes=10)
@pytest.mark.timeout(13 * PATIENCE_S)
@pytest.mark.parametrize("seed", (SEEDS or "0").split(","))
def test_the_default_run_learns_what_the_image_shows(tmp_path: Path, seed: str) -> None:
    said = run(tmp_path, "-m", "radcap.train", f"seed={seed}", *LENGTH)
    end = json.loads((tmp_path / "runs" / "default" / "summary.json").read_text())
    excess = end["val_loss_per_caption"] - end["floor"]["nats_per_caption"]
    assert 0 < excess <= 0.6
    assert f"{excess:.3f} above it" in said
    assert end["slots"]["modality"]["count"] >= 500
    for slot, least in (("modality", 0.99), ("location", 0.95), ("pathology", 0.75)):
        assert end["slots"][slot]["accuracy"] >= least, slot
        assert f"{slot} {end['slots'][slot]['accuracy']:.1%}" in " ".join(said.split())

    told = run(tmp_path, str(ROOT / "scripts" / "needs_image.py"), "runs/default")
    shares = {
        name: float(share) / 100
        for name, share in re.findall(r"right pathology, (.*): ([\d.]+)%", told)
    }
    assert shares["captions, as trained"] == pytest.approx(
        end["slots"]["pathology"]["accuracy"], abs=0.005
    )
    assert shares["captions, memory set to zero"] < 0.45
    assert shares["linear probe on thumbnails"] < 0.45


def test_the_sheet_in_the_readme_is_what_the_code_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    from PIL import Image

    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    drawn = np.asarray(importlib.import_module("phantom_sheet").sheet())
    with Image.open(ROOT / "scripts" / "phantom_sheet.png") as stored:
        assert np.abs(np.asarray(stored.convert("L")).astype(int) - drawn).max() <= 1
    assert "scripts/phantom_sheet.png" in (ROOT / "README.md").read_text()


def test_a_folder_without_a_run_is_told_in_one_line(tmp_path: Path) -> None:
    done = programs.run([ROOT / "scripts" / "needs_image.py", "nowhere"], cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["needs_image: nowhere holds no run"]
