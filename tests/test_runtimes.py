"""The same command on every kind of device: a CPU, several processes, virtual XLA devices."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from command_line import WORDS, metrics, start, summary, train, wait_for_step
from waiting import PATIENCE_S

pytestmark = pytest.mark.slow
needs_xla = pytest.mark.skipif(
    importlib.util.find_spec("torch_xla") is None, reason="torch_xla is not installed"
)

# A second training graph ends a run.
STRICT = {"RADCAP_STRICT_GRAPHS": "1"}


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in metrics(run)]


ALIKE = (
    *("+experiment=smoke", "model.dropout=0", "runtime.precision=fp32", "trainer.max_steps=8"),
    *("trainer.eval_every=null", "trainer.caption_rows=0", "trainer.samples=0"),
    "trainer.eval_rows=8",
)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A run on the CPU, which all others are to equal.

    Float32 is chaos some steps later, and a virtual device takes seconds for each.
    """
    cwd = tmp_path_factory.mktemp("alone")
    assert train(cwd, cache, *ALIKE, "runtime=cpu").returncode == 0
    return cwd / "runs" / "smoke"


# Name of each runtime: processes, options.
RUNTIMES = {
    "eight": (1, ("runtime=xla_cpu", "runtime.devices=8")),
    "one": (1, ("runtime=xla_cpu", "runtime.devices=1")),
    "torchrun": (2, ("runtime=cpu", "runtime.threads=1")),
}
FULL = "RADCAP_STEPS"


@needs_xla
@pytest.mark.slow(minutes=2)
def test_the_first_losses_are_the_same_everywhere(tmp_path: Path, cache: Path, alone: Path) -> None:
    same_losses(tmp_path, cache, ALIKE, RUNTIMES, losses(alone))


@needs_xla
@pytest.mark.slow(minutes=3)
def test_the_default_run_begins_alike_everywhere(tmp_path: Path, cache: Path) -> None:
    """The whole model, at its own batch: 5 steps on eight devices, RADCAP_STEPS on everything."""
    steps = int(os.environ.get(FULL, "5"))
    words: tuple[str, ...] = (
        *(f"trainer.max_steps={steps}", "trainer.eval_every=null", "trainer.caption_rows=0"),
        *("trainer.samples=0", f"data.phantom.train_rows={max(640, 32 * steps)}"),
        *("data.phantom.val_rows=16", "runtime.precision=fp32"),
    )
    runtimes = RUNTIMES
    if FULL not in os.environ:
        runtimes = {"eight": RUNTIMES["eight"]}
        words += ("schedule.warmup=0steps",)  # or five steps would hardly move the weights
    assert train(tmp_path, cache, *words, "runtime=cpu", "run.name=cpu").returncode == 0
    expected = losses(tmp_path / "runs" / "cpu")
    assert len(expected) == steps
    same_losses(tmp_path, cache, words, runtimes, expected)


def same_losses(
    cwd: Path,
    cache: Path,
    words: Sequence[str],
    runtimes: Mapping[str, tuple[int, Sequence[str]]],
    expected: Sequence[float],
) -> None:
    """Assert that the same words draw a curve, by so many processes and such options."""
    for name, (processes, runtime) in runtimes.items():
        done = train(cwd, cache, *words, *runtime, f"run.name={name}", processes=processes)
        assert done.returncode == 0, done.stderr
        found = losses(cwd / "runs" / name)
        assert found == pytest.approx(expected, rel=1e-3), name


@needs_xla
def test_one_training_graph_through_everything_that_a_run_does(tmp_path: Path, cache: Path) -> None:
    """8 steps on two devices: an epoch's short last batch, validations, captions, checkpoints."""
    words = (
        *("+experiment=smoke", "runtime=xla_cpu", "runtime.devices=2", "trainer.max_steps=8"),
        *("trainer.eval_every=4", "trainer.save_every=3", "trainer.log_every=2"),
        *("data.phantom.train_rows=43", "data.phantom.val_rows=11", "trainer.caption_rows=8"),
    )
    done = train(tmp_path, cache, *words, **STRICT)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "smoke"
    end = summary(run)
    assert end["train_graphs"] == end["graphs"]["train"] == 1
    assert end["graphs"]["validate"] == 1
    assert end["graphs"]["generate"] <= 2
    assert end["device_reads"] == 0
    curve = metrics(run)
    assert len(curve) == 8
    assert end["images"] == 43 + 2 * 8  # 6 batches, the last one of 3 rows, and 2 more
    assert end["val_rows"] == 11
    assert curve[5]["tokens"] < 0.6 * curve[4]["tokens"]
    assert "first step after" in done.stdout and "compile" in done.stdout


@needs_xla
def test_a_batch_that_the_devices_cannot_share_is_refused(tmp_path: Path, cache: Path) -> None:
    done = train(tmp_path, cache, "+experiment=smoke", "runtime=xla_cpu", "runtime.devices=3")
    assert done.returncode == 2
    assert "data.batch_size=8 does not divide by 3 devices; 6 or 9 does" in done.stderr


@needs_xla
def test_a_killed_run_goes_on_with_dropout_bit_for_bit(tmp_path: Path, cache: Path) -> None:
    words = (
        *("+experiment=smoke", "runtime=xla_cpu", "runtime.devices=2", "trainer.max_steps=10"),
        *("trainer.save_every=2", "trainer.eval_every=5", "trainer.log_every=2"),
        *("trainer.caption_rows=0", "trainer.samples=0", "trainer.eval_rows=8"),
    )
    assert train(tmp_path, cache, *words, "run.name=unbroken").returncode == 0
    process = start(tmp_path, cache, *words)
    run = tmp_path / "runs" / "smoke"
    wait_for_step(run, 4, process)
    process.kill()
    process.communicate()
    again = train(tmp_path, cache, *words, **STRICT)
    assert again.returncode == 0, again.stderr
    assert summary(run)["resumed_from"] in (2, 4, 6)  # the kill may come before the save's end
    for name in ("loss", "grad_norm", "tokens", "lr"):
        expected = [line[name] for line in metrics(tmp_path / "runs" / "unbroken")]
        assert [line[name] for line in metrics(run)] == expected, name


@needs_xla
def test_a_run_moves_from_eight_devices_to_anything_else(
    tmp_path: Path, cache: Path, alone: Path
) -> None:
    """The next batches are those of the unbroken run: so are their tokens and losses."""
    eight = ("runtime=xla_cpu", "runtime.devices=8", "trainer.max_steps=4")
    assert train(tmp_path, cache, *ALIKE, *eight).returncode == 0
    runs = tmp_path / "runs"
    whole = metrics(alone)
    print("8 devices, then         largest difference of a loss")
    for name, processes, runtime in (
        ("4 devices", 1, ("runtime=xla_cpu", "runtime.devices=4")),
        ("2 devices", 1, ("runtime=xla_cpu", "runtime.devices=2")),
        ("1 device", 1, ("runtime=xla_cpu", "runtime.devices=1")),
        ("a CPU with 2 loaders", 1, ("runtime=cpu", "data.workers=2")),
        ("2 processes", 2, ("runtime=cpu", "runtime.threads=1")),
    ):
        run = runs / name.replace(" ", "-")
        shutil.copytree(runs / "smoke", run)
        done = train(tmp_path, cache, *ALIKE, *runtime, f"run.dir={run}", processes=processes)
        assert done.returncode == 0, done.stderr
        assert summary(run)["resumed_from"] == 4
        moved = metrics(run)
        assert [line["tokens"] for line in moved] == [line["tokens"] for line in whole]
        found, expected = losses(run), losses(alone)
        worst = max(abs(f / e - 1) for f, e in zip(found, expected, strict=True))
        print(f"{name:22s}  {worst:.1e}")
        assert found == pytest.approx(expected, rel=1e-3), name


def test_processes_train_as_one_stop_as_one_and_one_goes_on_alone(
    tmp_path: Path, cache: Path
) -> None:
    words = (*WORDS, "model.dropout=0", "trainer.save_every=4")
    alone = train(tmp_path, cache, *words, "run.name=alone")
    assert alone.returncode == 0, alone.stderr
    process = start(tmp_path, cache, *words, "runtime.threads=1", processes=2)
    run = tmp_path / "runs" / "smoke"
    wait_for_step(run, 8, process)
    process.send_signal(signal.SIGTERM)
    said, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode != 0
    assert said.count("device:") == 1, said  # one speaks for both
    assert "2 processes" in said
    stopped = len(metrics(run))
    assert 8 <= stopped < 60, errors
    assert (run / "checkpoints" / f"step-{stopped}").is_dir()
    rest = train(tmp_path, cache, *words)
    assert rest.returncode == 0, rest.stderr
    assert summary(run)["resumed_from"] == stopped
    expected, found = losses(tmp_path / "runs" / "alone"), losses(run)
    assert len(found) == len(expected) == 60
    assert found[:20] == pytest.approx(expected[:20], rel=1e-3)
    tokens = [
        [line["tokens"] for line in metrics(tmp_path / "runs" / n)] for n in ("alone", "smoke")
    ]
    assert tokens[0] == tokens[1]  # the same rows to the end
    assert summary(run)["images"] == summary(tmp_path / "runs" / "alone")["images"]


def test_processes_finish_with_one_summary(tmp_path: Path, cache: Path) -> None:
    words = ("+experiment=smoke", "runtime=cpu", "runtime.threads=1", "trainer.max_steps=12")
    done = train(tmp_path, cache, *words, processes=2)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "smoke"
    end: dict[str, Any] = summary(run)
    assert end["val_rows"] == 40
    assert end["images"] == 12 * 8
    assert end["slots"]["location"]["count"] == 16
    assert len(end["captions"]) == 5
    assert len(metrics(run)) == 12
    assert done.stdout.count("validation loss") == 2  # once on the way, once at the end
    again = train(tmp_path, cache, *words, processes=2)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("is finished") == 1


def test_processes_refuse_a_batch_they_cannot_share(tmp_path: Path, cache: Path) -> None:
    words = ("+experiment=smoke", "runtime=cpu", "data.batch_size=7")
    done = train(tmp_path, cache, *words, processes=2)
    assert done.returncode == 1  # torchrun's own
    assert "data.batch_size=7 does not divide by 2 devices; 6 or 8 does" in done.stderr
