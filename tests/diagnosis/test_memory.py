"""How much memory a run is said to take, and does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from command_line import ROOT
from memory_use import family, held

from radcap.config.compose import compose
from radcap.diagnosis.memory import needed_bytes


def needed(*words: str) -> float:
    return needed_bytes(compose(["runtime=cpu", *words]))


def test_the_optimizer_holds_four_numbers_a_parameter_and_a_checkpoint_three() -> None:
    frozen_batch = ("data.batch_size=1", "data.workers=1")
    card, small = needed("model=card", *frozen_batch), needed("model=small", *frozen_batch)
    assert card - small == pytest.approx(28 * (49_566_298 - 9_909_850))


def test_rows_count_once_and_no_more_than_there_are(tmp_path: Path) -> None:
    (tmp_path / "alignment").mkdir()
    path = tmp_path / "alignment/train-00000-of-00001.parquet"
    words = (f"data.path={tmp_path}", "data.read_ahead_mb=1", "model=tiny")
    with path.open("wb") as file:
        file.truncate(3_000_000)
    few = needed(*words, "data.window_gb=4")
    assert needed(*words, "data.window_gb=0.002") == few - 1e6
    with path.open("wb") as file:
        file.truncate(9_000_000_000)
    assert needed(*words, "data.window_gb=4") == few + 4e9 - 3e6
    several = needed(*words, "data.window_gb=4", "data.workers=3")
    assert 2 * 0.2e9 < several - (few + 4e9 - 3e6) < 2 * 0.3e9


def test_the_hubs_window_is_taken_as_it_is_asked_for() -> None:
    words = ("data=radimagenet_vqa", "model.encoder_weights=none", "data.workers=1")
    more = needed(*words, "data.window_gb=6") - needed(*words, "data.window_gb=4")
    assert more == pytest.approx(2e9)


@pytest.mark.slow
def test_a_run_takes_no_more_than_is_said(tmp_path: Path) -> None:
    """The trainer and its loaders over training, a validation and a checkpoint."""
    sizes = ("data.phantom.train_rows=320", "data.phantom.val_rows=40", "data.batch_size=16")
    ends = ("trainer.max_steps=6", "trainer.eval_every=3", "trainer.eval_rows=32")
    words = ("model=small", *sizes, *ends, "trainer.samples=0", "trainer.caption_rows=0")
    run = subprocess.Popen(
        [sys.executable, "-m", "radcap.train", "runtime=cpu", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    most = 0
    while run.poll() is None:
        with suppress(FileNotFoundError, ProcessLookupError, IndexError):  # one has just ended
            most = max(most, held(family(run.pid)))
        time.sleep(0.1)
    assert run.returncode == 0
    assert 0.5 * needed(*words) < most < needed(*words)
