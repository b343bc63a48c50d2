"""`python -m radcap.train` as a user runs it: in a process of its own, on the embedded data."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import WORDS, command, environment, metrics, start, summary, train, wait_for_step
from waiting import PATIENCE_S
from watched import watch


def test_a_mirror_that_takes_nothing_is_told_before_the_first_step(
    tmp_path: Path, cache: Path
) -> None:
    address = "run.mirror=/proc/1/mirror"
    done = train(tmp_path, cache, "+experiment=smoke", "runtime=cpu", address)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()  # as if it had not been asked for


def test_smoke_leaves_curves_checkpoints_and_captions(tmp_path: Path, cache: Path) -> None:
    done = train(tmp_path, cache, "+experiment=smoke", "runtime=cpu")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "smoke"
    curve = metrics(run)
    assert [line["step"] for line in curve] == list(range(1, 21))
    assert sum(line["loss"] for line in curve[-5:]) < sum(line["loss"] for line in curve[:5])
    fields = "step epoch loss perplexity tokens lr grad_norm images_per_s step_s data_wait_s time"
    assert set(curve[0]) == set(fields.split())
    assert {path.name for path in (run / "checkpoints").iterdir()} <= {"step-10", "step-20"}
    assert list(run.glob("events.out.tfevents.*"))
    end = summary(run)
    assert end["finished"]
    assert end["steps"] == 20
    assert end["val_perplexity"] == pytest.approx(2.718281828 ** end["val_loss"], rel=1e-6)
    assert end["skipped"] == {}
    assert len(end["captions"]) == 5
    assert end["slots"]["pathology"]["count"] == 16
    assert "captions of 16 validation images are right in: modality" in done.stdout
    assert done.stdout.count("reference:") == 5
    assert "validation loss" in done.stdout.splitlines()[-3]
    assert end["val_loss_per_caption"] > end["floor"]["nats_per_caption"] > 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["runs"]  # Hydra writes nothing

    again = train(tmp_path, cache, "+experiment=smoke", "runtime=cpu")
    assert again.returncode == 0
    assert "is finished" in again.stdout
    assert metrics(run) == curve

    changed = train(tmp_path, cache, "+experiment=smoke", "runtime=cpu", "optimizer.lr=1")
    assert changed.returncode == 2
    assert "optimizer.lr" in changed.stderr

    shorter = train(tmp_path, cache, "+experiment=smoke", "runtime=cpu", "trainer.max_steps=10")
    assert shorter.returncode == 2
    assert "shortened" in shorter.stderr

    # Killed between the last checkpoint and the summary: the end is told, nothing is logged twice.
    (run / "summary.json").unlink()
    told = train(tmp_path, cache, "+experiment=smoke", "runtime=cpu")
    assert told.returncode == 0, told.stderr
    assert summary(run)["val_loss"] == pytest.approx(end["val_loss"], rel=1e-6)
    assert metrics(run) == curve

    longer = train(tmp_path, cache, "+experiment=smoke", "runtime=cpu", "trainer.max_steps=24")
    assert longer.returncode == 0, longer.stderr
    assert metrics(run)[:20] == curve
    assert summary(run)["steps"] == 24
    assert summary(run)["resumed_from"] == 20


# With a beat a hundredth of a second after the last line, and a line at each interval of the log.
TALKATIVE = """
import sys
from radcap import evaluate, export, train
from radcap.host import console
from radcap.training.log import progress

console._BEAT_S, progress._LONGEST_SILENCE_S = 0.01, 0.0
for command, words in ((train, {train}), (evaluate, {evaluate}), (export, {export})):
    print(f"-- {{command.__name__}}")
    sys.argv[1:] = words
    if status := console.run_command(command.main, ""):
        sys.exit(status)
"""


def test_what_takes_long_is_named(tmp_path: Path) -> None:
    words = ["+experiment=smoke", "runtime=cpu", "trainer.max_steps=2", "trainer.eval_every=1"]
    words += ["trainer.log_every=1", "data.phantom.train_rows=16", "data.phantom.val_rows=16"]
    program = TALKATIVE.format(
        train=words, evaluate=["run=runs/smoke", "runtime=cpu"], export=["runs/smoke", "exported"]
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment(tmp_path / "cache") | {"OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    # As libgomp says when torch loads it: threads that wait for each other leave their cores soon.
    assert "GOMP_SPINCOUNT = '3000'" in done.stderr
    _, trained, evaluated, exported = done.stdout.split("-- radcap.")
    for said, phrases in (
        (trained, TRAINING),
        (evaluated, ["loading the weights", "row 0/16, scoring the next ones"]),
        (exported, ["recording the programs", "writing", "reading it back"]),
    ):
        missing = [one for one in phrases if not re.search(rf"^{one}", said, re.MULTILINE)]
        assert not missing, said
    told = re.findall(r"^step (\d)/2: loss [\d.]+, [\d,.]+ images/s, .* left(.*)$", trained, re.M)
    assert [step for step, _ in told] == ["1", "2"]
    assert told[0][1] == "" and re.fullmatch("; (compute|input)-bound.*", told[1][1])


TRAINING = [
    "drawing the phantom",
    "drawing",
    "loading torch",
    "starting the loaders",
    "making the model",
    "step 1/2, computing",
    r"validating after step \d, (8|16) of 16 rows",  # the last of them for a moment only
    "saving step 2",
]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("unbroken")
    done = train(folder, cache, *WORDS, "data.workers=0")
    assert done.returncode == 0, done.stderr
    return metrics(folder / "runs" / "smoke")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_goes_on_bit_for_bit(
    tmp_path: Path, cache: Path, unbroken: list[dict[str, Any]], workers: int, number: int
) -> None:
    run = tmp_path / "runs" / "smoke"
    words = (*WORDS, f"data.workers={workers}")
    process = start(tmp_path, cache, *words)
    wait_for_step(run, 40, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == (-9 if number == signal.SIGKILL else 75), errors
    again = train(tmp_path, cache, *words)
    assert again.returncode == 0, again.stderr
    restored = summary(run)["resumed_from"]
    assert restored >= 30
    curve = metrics(run)
    assert [line["step"] for line in curve] == list(range(1, 61))
    for name in ("loss", "grad_norm", "tokens", "lr"):
        assert [line[name] for line in curve] == [line[name] for line in unbroken], name


@pytest.mark.slow
def test_the_cards_model_trains_with_the_documented_command(tmp_path: Path, cache: Path) -> None:
    done = train(
        tmp_path,
        cache,
        "+experiment=epoch1",
        "data=phantom",
        "runtime=cpu",
        "model.encoder_weights=none",
        "data.batch_size=8",
        "trainer.max_steps=3",
        "data.phantom.train_rows=320",
        "data.phantom.val_rows=40",
    )
    assert done.returncode == 0, done.stderr
    assert "49,566,298 parameters" in done.stdout
    assert len(metrics(tmp_path / "runs" / "epoch1")) == 3


@pytest.mark.slow
def test_one_batch_can_be_learned_by_heart(tmp_path: Path, cache: Path) -> None:
    done = train(
        tmp_path,
        cache,
        "+experiment=smoke",
        "runtime=cpu",
        "debug=overfit",
        "trainer.max_steps=120",
        "trainer.eval_every=null",
        "trainer.save_every=null",
        "model.dropout=0",
    )
    assert done.returncode == 0, done.stderr
    curve = metrics(tmp_path / "runs" / "smoke")
    assert curve[-1]["loss"] < 0.25 * curve[0]["loss"]


def test_debug_presets(tmp_path: Path, cache: Path) -> None:
    words = ("+experiment=smoke", "runtime=cpu", "model.embed_dim=16", "logger.tensorboard=false")
    done = train(tmp_path, cache, *words, "debug=limit", "trainer.profile_steps=[2,3]")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "smoke"
    assert len(metrics(run)) == 5
    assert not list(run.glob("events*"))
    trace = json.loads((run / "profile" / "trace.json").read_text())
    convolutions = [e for e in trace["traceEvents"] if e.get("name") == "aten::convolution"]
    per_step = 52  # convolutions of MobileNetV3-Small, squeeze-and-excitation included
    assert len(convolutions) == 2 * per_step


def test_a_closed_pipe_does_not_end_a_run(tmp_path: Path, cache: Path) -> None:
    words = " ".join(command(["+experiment=smoke", "runtime=cpu", "debug=limit"]))
    subprocess.run(
        ["bash", "-c", f"{words} | head -1"],
        cwd=tmp_path,
        env=environment(cache),
        capture_output=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert summary(tmp_path / "runs" / "smoke")["finished"]


@pytest.mark.slow
def test_a_limit_does_not_bend_the_rate_of_the_whole_run(tmp_path: Path, cache: Path) -> None:
    words = ("+experiment=smoke", "runtime=cpu", "schedule=cosine", "schedule.warmup=0")
    words = (*words, "trainer.max_steps=6", "data.batch_size=2", "trainer.samples=0")
    assert train(tmp_path, cache, *words, "debug.limit=2").returncode == 0
    assert train(tmp_path, cache, *words).returncode == 0
    broken = [line["lr"] for line in metrics(tmp_path / "runs" / "smoke")]
    assert train(tmp_path, cache, *words, "run.name=whole").returncode == 0
    assert broken == [line["lr"] for line in metrics(tmp_path / "runs" / "whole")]


def test_a_diverging_run_ends_by_name(tmp_path: Path, cache: Path) -> None:
    done = train(tmp_path, cache, "+experiment=smoke", "runtime=cpu", "optimizer.lr=1e30")
    assert done.returncode == 1
    assert "not finite" in done.stderr
    assert "Traceback" not in done.stderr
    # The last finite step is logged; the one that failed is named, with its rows.
    curve = metrics(tmp_path / "runs" / "smoke")
    assert f"step {len(curve) + 1} " in done.stderr
    assert "train-0" in done.stderr
    # In the very last step it is not lost either, though nothing was to be logged before.
    last = ("run.name=last", f"trainer.max_steps={len(curve) + 1}", "trainer.log_every=1000")
    words = ("+experiment=smoke", "runtime=cpu", "optimizer.lr=1e30", *last)
    done = train(tmp_path, cache, *words)
    assert done.returncode == 1
    assert f"step {len(curve) + 1} " in done.stderr


def test_data_out_of_reach_is_told_in_one_line(tmp_path: Path, cache: Path) -> None:
    words = ("-m", "radcap.train", "data.path=nowhere")
    watched = watch(tmp_path, *words, variables=environment(cache))
    done = watched.done
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not watched.heavy


def test_the_hub_out_of_reach_is_told_in_one_line(tmp_path: Path, cache: Path) -> None:
    hub = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    words = ("-m", "radcap.train", "+experiment=epoch1")
    watched = watch(tmp_path, *words, variables=environment(cache) | hub)
    done = watched.done
    assert done.returncode == 1
    # Tried for five seconds with growing pauses, not for the minutes that a Hub once met is given.
    assert 1 <= len(watched.connections) <= 9 and not watched.heavy
    assert "127.0.0.1:9" in done.stderr
    assert "data=phantom" in done.stderr
    assert "Traceback" not in done.stderr
