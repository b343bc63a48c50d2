"""`python -m radcap.rehearse`: the user's own proof."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from command_line import run_module

WORDS = (
    "+experiment=smoke",
    "runtime=cpu",
    "trainer.max_steps=12",
    "trainer.log_every=1",
    "trainer.save_every=4",
    "trainer.eval_every=null",
    "trainer.caption_rows=0",
    "trainer.samples=0",
)


def rehearse(cwd: Path, cache: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run_module("radcap.rehearse", cwd, cache, *WORDS, *words)


@pytest.mark.slow
def test_a_killed_run_draws_the_unbroken_curve(tmp_path: Path, cache: Path) -> None:
    done = rehearse(tmp_path, cache, "rehearse.kill_at=[6,9]")
    assert done.returncode == 0, done.stderr
    assert "2 kills, 12 steps, each with one value: bit for bit the same" in done.stdout
    assert "SIGKILL" in done.stdout and "SIGTERM" in done.stdout
    home = tmp_path / "runs" / "smoke-rehearsal"
    assert {path.name for path in home.iterdir()} == {"unbroken", "broken"}
    # Another one leaves the first one's runs; a run that fails is told in its own words.
    failed = rehearse(tmp_path, cache, "rehearse.kill_at=[6]", "data.path=nowhere")
    assert failed.returncode == 1 and "nowhere is not a folder" in failed.stderr
    assert (home / "unbroken.old-1").is_dir()


def test_wrong_arguments_are_refused_at_once(tmp_path: Path, cache: Path) -> None:
    done = rehearse(tmp_path, cache, "rehearse.kill_at=[0]")
    assert done.returncode == 2 and "rehearse.kill_at" in done.stderr
    assert not (tmp_path / "runs").exists()
