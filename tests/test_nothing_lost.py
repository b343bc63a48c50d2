"""What may come between a run and its end: full disks, torn files, a second command, signals."""

from __future__ import annotations

import fcntl
import json
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import (
    command,
    environment,
    metrics,
    run_python,
    start,
    summary,
    train,
    wait_for_step,
)
from waiting import PATIENCE_S
from watched import watch

from radcap.training.run.checkpoint import list_checkpoints, load_checkpoint

pytestmark = pytest.mark.slow

WORDS = (
    "+experiment=smoke",
    "runtime=cpu",
    "runtime.threads=1",
    "trainer.max_steps=24",
    "trainer.save_every=4",
    "trainer.eval_every=null",
    "trainer.log_every=1",
    "trainer.caption_rows=0",
    "trainer.samples=0",
)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    cwd = tmp_path_factory.mktemp("unbroken")
    done = train(cwd, cache, *WORDS)
    assert done.returncode == 0, done.stderr
    return cwd / "runs" / "smoke"


def same_curve(run: Path, unbroken: Path) -> bool:
    names = ("step", "loss", "grad_norm", "tokens", "lr")
    curves = [[[line[n] for n in names] for line in metrics(r)] for r in (run, unbroken)]
    return curves[0] == curves[1]


def test_a_checkpoint_that_finds_no_room_is_missed_and_the_run_goes_on(
    tmp_path: Path, cache: Path, unbroken: Path
) -> None:
    """A limit on the size of files breaks every save off in the middle of its optimizer state."""
    words = (*WORDS, "trainer.save_every=8")
    limit = 15_000_000  # the weights have 12 MB, the optimizer 24
    process = start(
        tmp_path,
        cache,
        *words,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    out, err = process.communicate(timeout=PATIENCE_S)
    run = tmp_path / "runs" / "smoke"
    assert process.returncode == 1, err
    assert "warning: cannot save runs/smoke/checkpoints/step-8: File too large" in out
    assert "warning: cannot save runs/smoke/checkpoints/step-16: " in out
    assert err.splitlines()[-1].startswith("radcap: cannot save runs/smoke/checkpoints/step-24: ")
    assert len(metrics(run)) == 24  # it went on to its last step
    assert list((run / "checkpoints").iterdir()) == []
    assert train(tmp_path, cache, *words).returncode == 0
    assert same_curve(run, unbroken)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for two checkpoints of the tiny model and for half of a third."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=92m", "radcap-test", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk; the test above needs none")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_disk_that_is_full_in_the_middle_of_a_save(
    small_disk: Path, tmp_path: Path, cache: Path, unbroken: Path
) -> None:
    run = small_disk / "run"
    words = (*WORDS, f"run.dir={run}", "trainer.keep_checkpoints=5")
    done = train(tmp_path, cache, *words)
    assert done.returncode == 1, done.stderr
    assert "No space left on device" in done.stderr
    assert "step-8 is whole, and the same command goes on from there" in done.stderr
    assert "warning: cannot save" in done.stdout  # at 12 already, and the run went on
    assert [path.name for path in list_checkpoints(run / "checkpoints")] == ["step-4", "step-8"]
    assert [load_checkpoint(path).step for path in list_checkpoints(run / "checkpoints")] == [4, 8]
    assert not list((run / "checkpoints").glob(".*"))
    done = train(tmp_path, cache, *words, "trainer.keep_checkpoints=1")
    assert done.returncode == 0, done.stderr
    assert same_curve(run, unbroken)


@pytest.mark.parametrize("damage", ["torn", "gone"])
def test_a_damaged_newest_checkpoint_is_named_and_costs_no_more_than_its_steps(
    tmp_path: Path, cache: Path, unbroken: Path, damage: str
) -> None:
    run = tmp_path / "runs" / "smoke"
    words = (*WORDS, "trainer.keep_checkpoints=5")
    shutil.copytree(unbroken, run)
    for file in (run / "summary.json", run / "val_metrics.jsonl"):
        file.unlink()
    newest = list_checkpoints(run / "checkpoints")[-1]
    before = list_checkpoints(run / "checkpoints")[-2].name.removeprefix("step-")
    file = newest / "optimizer.pt"
    if damage == "torn":
        os.truncate(file, file.stat().st_size - 1)
    else:
        file.unlink()
    done = train(tmp_path, cache, *words)
    assert done.returncode == 0, done.stderr
    assert f"{newest.name} is damaged: optimizer.pt" in done.stdout
    assert f"resumed after step {before}" in done.stdout
    assert summary(run)["resumed_from"] == int(before)
    assert same_curve(run, unbroken)


def test_a_second_command_on_the_same_folder_is_refused(
    tmp_path: Path, cache: Path, unbroken: Path
) -> None:
    process = start(tmp_path, cache, *WORDS)
    run = tmp_path / "runs" / "smoke"
    wait_for_step(run, 2, process)
    process.send_signal(signal.SIGSTOP)  # whoever waited for it would wait for ever
    try:
        for words in (WORDS, (*WORDS, "run.fresh=true")):
            second = watch(tmp_path, "-m", "radcap.train", *words, variables=environment(cache))
            assert second.done.returncode == 1
            err = second.done.stderr
            assert err.count("\n") == 1 and "runs/smoke is in use by" in err
            assert not second.heavy
    finally:
        process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert same_curve(run, unbroken)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["smoke"]


def test_a_signal_in_a_validation_breaks_it_off_and_saves(
    tmp_path: Path, cache: Path, unbroken: Path
) -> None:
    words = (*WORDS, "trainer.eval_every=6", "trainer.save_every=null", "trainer.caption_rows=40")
    process = start(tmp_path, cache, *words)
    run = tmp_path / "runs" / "smoke"
    wait_for_step(run, 6, process)  # logged before the validation begins
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 75, err
    assert "stopped after step 6, saved" in out  # by itself, before the grace was over
    assert len(metrics(run)) == 6 and (run / "val_metrics.jsonl").read_text() == ""
    assert (run / "checkpoints" / "step-6" / "manifest.json").is_file()
    assert train(tmp_path, cache, *words).returncode == 0
    assert same_curve(run, unbroken)
    validated = [json.loads(s)["step"] for s in (run / "val_metrics.jsonl").open()]
    assert validated == [6, 12, 18, 24]  # the one that was broken off is made up for


def test_a_signal_in_the_last_validation_leaves_the_end_to_the_next_process(
    tmp_path: Path, cache: Path
) -> None:
    words = (*WORDS, "trainer.max_steps=8", "trainer.eval_every=4", "trainer.keep_checkpoints=1")
    process = start(tmp_path, cache, *words, "trainer.caption_rows=40")
    run = tmp_path / "runs" / "smoke"
    wait_for_step(run, 8, process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 75 and "stopped after step 8, saved" in out, err
    assert not (run / "summary.json").exists()
    again = train(tmp_path, cache, *words, "trainer.caption_rows=40")
    assert again.returncode == 0, again.stderr
    kept = {path.name: load_checkpoint(path) for path in list_checkpoints(run / "checkpoints")}
    # It is the best: captions and scores are those of the newest checkpoint that names it.
    assert list(kept) == ["step-8"]
    assert kept["step-8"].progress["best"]["step"] == summary(run)["best"]["step"] == 8
    assert not kept["step-8"].progress["owed"]


@pytest.mark.usefixtures("hangups")
def test_a_terminal_that_is_closed_loses_nothing(
    tmp_path: Path, cache: Path, unbroken: Path
) -> None:
    """The system tells the whole process group, data workers too, and nothing can be printed."""
    terminal, end = os.openpty()

    def on_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        command((*WORDS, "trainer.max_steps=4000")),
        cwd=tmp_path,
        env=environment(cache),
        stdin=end,
        stdout=end,
        stderr=end,
        preexec_fn=on_terminal,
    )
    os.close(end)
    run = tmp_path / "runs" / "smoke"
    while not (run / "metrics.jsonl").exists() or len(metrics(run)) < 6:
        assert process.poll() is None
        if select.select([terminal], [], [], 0.1)[0]:
            os.read(terminal, 1 << 16)
    os.close(terminal)
    assert process.wait(timeout=PATIENCE_S) == 75
    last = metrics(run)[-1]["step"]
    assert (run / "checkpoints" / f"step-{last}" / "manifest.json").is_file()
    assert train(tmp_path, cache, *WORDS).returncode == 0
    assert same_curve(run, unbroken)


def test_a_run_whose_output_nobody_reads_saves_at_a_signal(
    tmp_path: Path, cache: Path, unbroken: Path
) -> None:
    """A line of each validation fills the pipe within some steps: the run waits for its reader."""
    reader, writer = os.pipe()
    size = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writer, b"-" * (size - 1200))
    words = (*WORDS, "trainer.eval_every=1", "trainer.eval_rows=4", "trainer.save_every=null")
    process = subprocess.Popen(
        command(words), cwd=tmp_path, env=environment(cache), stdout=writer, stderr=writer
    )
    os.close(writer)
    run = tmp_path / "runs" / "smoke"
    wait_for_step(run, 1, process)
    seen = [0]
    while len(seen) < 20 or len(set(seen[-20:])) > 1 or not seen[-1]:
        assert process.poll() is None
        seen.append(metrics(run)[-1]["step"])
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    status = process.wait(timeout=200)
    told = os.read(reader, size).decode()
    os.close(reader)
    assert status == 75 and "Traceback" not in told, told
    last = metrics(run)[-1]["step"]
    assert (run / "checkpoints" / f"step-{last}" / "manifest.json").is_file()
    assert train(tmp_path, cache, *words).returncode == 0
    assert same_curve(run, unbroken)


def test_a_run_folder_that_goes_while_it_is_in_use_ends_the_run(
    tmp_path: Path, cache: Path
) -> None:
    """Here somebody else's folder has taken its name."""
    process = start(tmp_path, cache, *WORDS, "trainer.max_steps=4000")
    run = tmp_path / "runs" / "smoke"
    wait_for_step(run, 2, process)
    run.rename(tmp_path / "elsewhere")
    run.mkdir()
    out, err = process.communicate(timeout=200)
    assert process.returncode == 1 and "Traceback" not in err, err
    assert err.splitlines()[-1].startswith("radcap: runs/smoke was deleted, moved or replaced")
    assert "done:" not in out and list(run.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("model.encoder_weights=nowhere.pth",), "nowhere.pth"),
        (("runtime=xla_cpu", "runtime.devices=8", "data.batch_size=12"), "does not divide by"),
    ],
)
def test_a_start_that_fails_leaves_nothing_behind(
    tmp_path: Path, cache: Path, words: tuple[str, ...], said: str
) -> None:
    (tmp_path / "tmp").mkdir()
    done = train(tmp_path, cache, *WORDS, *words, TMPDIR=str(tmp_path / "tmp"))
    assert done.returncode != 0 and said in done.stderr and done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["tmp"]


def test_a_second_signal_ends_at_once_and_says_what_is_safe(tmp_path: Path, cache: Path) -> None:
    err = ""
    # Where the save is done before the second one comes, once more.
    for step in range(10, 100, 10):
        process = start(tmp_path, cache, *WORDS, "trainer.max_steps=400")
        wait_for_step(tmp_path / "runs" / "smoke", step, process)
        while process.poll() is None:  # somebody leans on Ctrl-C
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 75
        if "stopped after step" not in out:
            break
    kept = list_checkpoints(tmp_path / "runs" / "smoke" / "checkpoints")
    steps = {int(path.name.removeprefix("step-")) for path in kept}
    told = re.search(r"step (\d+) is saved, and the same command goes on from there", err)
    assert told is not None and int(told[1]) in steps


def test_a_signal_while_xla_compiles_is_answered(tmp_path: Path, cache: Path) -> None:
    """By the grace at the latest: see training/test_signals.py for how long that is."""
    words = ("+experiment=smoke", "runtime=xla_cpu", "runtime.devices=8", "data.workers=1")
    process = start(tmp_path, cache, *words)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("device:"):
            break
    time.sleep(2)  # the first step is being traced or compiled
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 75, err
    run = tmp_path / "runs" / "smoke"
    saved = list_checkpoints(run / "checkpoints")
    assert saved or "nothing is saved yet, and the same command goes on from there" in err
    assert "Traceback" not in err


def test_what_a_device_has_written_opens_without_its_library(tmp_path: Path, cache: Path) -> None:
    words = ("+experiment=smoke", "runtime=xla_cpu", "runtime.devices=2", "trainer.max_steps=2")
    done = train(tmp_path, cache, *words, "trainer.caption_rows=0", "trainer.samples=0")
    assert done.returncode == 0, done.stderr
    program = (
        "import pathlib, sys\n"
        "sys.modules['torch_xla'] = None\n"  # importing it fails
        "import safetensors.torch, torch\n"
        f"files = sorted(pathlib.Path({str(tmp_path)!r}).rglob('step-*/*'))\n"
        "for file in files:\n"
        "    if file.suffix == '.pt': torch.load(file)\n"
        "    if file.suffix == '.safetensors': safetensors.torch.load_file(file)\n"
        "print(*[file.name for file in files])\n"
    )
    opened = run_python(program)
    assert opened.returncode == 0, opened.stderr
    names = "manifest.json model.safetensors optimizer.pt progress.json random.pt"
    assert opened.stdout.split() == names.split()
