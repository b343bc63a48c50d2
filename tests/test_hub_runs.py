"""`python -m radcap.train` against a Hub that misbehaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import programs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import environment, metrics, summary, wait_for_step
from data.conftest import row
from hub.stand_in import FAULTS, StandInHub, one_in, serving
from waiting import PATIENCE_S, is_alive, is_asleep, wait_until
from watched import watch

from radcap.data.phantom.dataset import write_phantom

WORDS = (
    "+experiment=smoke",
    "data=radimagenet_vqa",
    "data.batch_size=8",
    "data.window_gb=0.01",
    "data.lanes=8",
    "data.workers=1",
    "runtime=cpu",
    "trainer.caption_rows=0",
    "trainer.samples=0",
    "trainer.max_steps=30",
    "trainer.save_every=10",
    "trainer.eval_every=30",
)
# Or all that a short run takes would have been read before its first step.
LITTLE_AHEAD = "data.read_ahead_mb=0.01"


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom(folder, train_rows=320, val_rows=16, seed=0, row_group_size=20)
    return folder


@pytest.fixture
def stand_in(phantom: Path) -> Iterator[StandInHub]:
    with serving(phantom) as hub:
        yield hub


def online(hub: str, cwd: Path) -> dict[str, str]:
    """The environment of a command that reads from a Hub."""
    settings = environment(cwd / "cache") | {"HF_ENDPOINT": hub, "HF_HOME": str(cwd / "home")}
    del settings["HF_HUB_OFFLINE"], settings["http_proxy"]
    return settings


def start(hub: str, cwd: Path, *words: str, **variables: str) -> Any:
    pipe = subprocess.PIPE
    return programs.popen(
        ["-m", "radcap.train", *WORDS, *words],
        **{"cwd": cwd, "env": online(hub, cwd) | variables, "stdout": pipe, "stderr": pipe},
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


def test_a_run_goes_on_through_transient_faults_and_counts_them(
    stand_in: StandInHub, tmp_path: Path
) -> None:
    stand_in.fault = one_in(3)
    status, out, err = finish(start(stand_in.endpoint, tmp_path, "data.hub_timeout_s=2"))
    assert status == 0, err
    run = tmp_path / "runs/smoke"
    found = summary(run)
    assert found["steps"] == 30 and found["skipped"] == {}
    assert found["retries"] > 0 and set(stand_in.failed) == set(FAULTS)
    words = found["data_health"]["words"]
    assert "retries" in words and words in " ".join(out.split())  # printed in lines
    lines = [json.loads(line) for line in (run / "data_health.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 10, 15, 20, 25, 30]
    assert lines[-1]["images"] == 240 and lines[-1]["bound"] in ("input", "compute")
    assert "the Hub: " in err and "Traceback" not in err


@pytest.mark.slow
def test_an_epoch_with_every_third_request_failing(tmp_path: Path) -> None:
    """Of 2,000 rows; of as many as RADCAP_ROWS says, a multiple of 2,000."""
    num_rows = int(os.environ.get("RADCAP_ROWS", "2000"))
    folder = tmp_path / "set" / "alignment"
    folder.mkdir(parents=True)
    rows = [row(number) for number in range(500)]
    schema = pa.Table.from_pylist(rows).schema
    for name in [f"train-{i:05d}-of-00004" for i in range(4)] + ["val-00000-of-00001"]:
        with pq.ParquetWriter(folder / f"{name}.parquet", schema) as writer:
            table = pa.Table.from_pylist(rows, schema)
            for _ in range(num_rows // 2000 if name.startswith("train") else 1):
                writer.write_table(table, row_group_size=50)
    with serving(folder.parent) as hub:
        hub.fault = one_in(3)
        words = [f"trainer.max_steps={num_rows // 100}", "data.batch_size=100"]  # one epoch
        words += ["data.hub_timeout_s=1", "trainer.save_every=null", "data.workers=2"]
        status, _, err = finish(start(hub.endpoint, tmp_path, *words))
        assert status == 0, err
        found = summary(tmp_path / "runs/smoke")
        assert found["images"] == num_rows and found["skipped"] == {}
        assert set(hub.failed) == set(FAULTS)
        assert found["retries"] >= sum(hub.failed.values()) // 2
        print({**hub.failed}, "retries", found["retries"])


FINAL: dict[str, tuple[int | str, str]] = {
    "not allowed": (401, "HF_TOKEN"),
    "gated": (403, "HF_TOKEN"),
    "vanished": (404, "has gone"),
    "refused": (451, "451"),
}


@pytest.mark.parametrize("name", FINAL)
def test_a_final_fault_in_mid_run_ends_it_and_the_checkpoint_stays(
    stand_in: StandInHub, tmp_path: Path, name: str
) -> None:
    fault, said = FINAL[name]
    words = ["trainer.max_steps=400", "data.window_gb=0.002", "trainer.log_every=1"]
    words += ["schedule=constant", "trainer.eval_every=null", "data.connections=3", LITTLE_AHEAD]
    process = start(stand_in.endpoint, tmp_path, *words)
    run = tmp_path / "runs/smoke"
    wait_for_step(run, 11, process)
    stand_in.fault = lambda number, method, path: fault
    done = finish(process)
    assert stand_in.failed, done
    assert done[0] == 1
    assert done[2].splitlines()[-1].startswith("radcap: ") and said in done[2], done[2]
    assert "Traceback" not in done[2]
    # Asked once, by each of those that were asking.
    assert sum(stand_in.failed.values()) <= 3
    # Nothing was wrong with the steps so far: all of them are saved.
    last_step = max(line["step"] for line in metrics(run))
    assert (run / "checkpoints" / f"step-{last_step}" / "manifest.json").is_file()

    stand_in.fault = lambda number, method, path: None
    steps = max(line["step"] for line in metrics(run)) + 3
    status, out, err = finish(
        start(stand_in.endpoint, tmp_path, *words, f"trainer.max_steps={steps}")
    )
    assert status == 0, err
    assert "resumed after step" in out
    assert [line["step"] for line in metrics(run)] == list(range(1, steps + 1))


@pytest.mark.parametrize(
    ("fault", "said"), [(401, "HF_TOKEN"), (403, "accept its terms"), (404, "check its name")]
)
def test_a_final_fault_at_the_start_is_told_at_once(
    stand_in: StandInHub, tmp_path: Path, fault: int, said: str
) -> None:
    stand_in.fault = lambda number, method, path: fault
    status, _, err = finish(start(stand_in.endpoint, tmp_path))
    assert status == 1 and said in err and err.count("\n") == 1, err
    assert stand_in.requests["GET listing"] == 1


def test_no_server_at_all_is_told_before_torch_is_loaded(tmp_path: Path) -> None:
    variables = online("http://127.0.0.1:9", tmp_path)
    watched = watch(tmp_path, "-m", "radcap.train", *WORDS, variables=variables)
    # Tried for five seconds with growing pauses, not for the ten minutes of a Hub once met.
    assert 1 <= len(watched.connections) <= 9 and not watched.heavy
    err = watched.done.stderr
    last = err.splitlines()[-1]
    assert (
        watched.done.returncode == 1 and "http://127.0.0.1:9" in last and "data=phantom" in last
    ), err


def test_a_run_keeps_to_its_revision_unless_told_otherwise(
    stand_in: StandInHub, tmp_path: Path, phantom: Path
) -> None:
    first = stand_in.commit
    status, _, err = finish(start(stand_in.endpoint, tmp_path, "trainer.max_steps=10"))
    assert status == 0, err
    second = stand_in.publish(phantom)
    run = tmp_path / "runs/smoke"

    def revision() -> str:
        return json.loads((run / "versions.json").read_text())["data_revision"]

    # The Hub has something newer; the run goes on with what it began with.
    status, _, err = finish(start(stand_in.endpoint, tmp_path, "trainer.max_steps=12"))
    assert status == 0, err
    assert revision() == first
    # What it began with has gone.
    del stand_in.commits[first]
    status, _, err = finish(start(stand_in.endpoint, tmp_path, "trainer.max_steps=14"))
    assert status == 1 and "data.revision" in err, err
    words = ["trainer.max_steps=14", "data.accept_revision=true"]
    status, _, err = finish(start(stand_in.endpoint, tmp_path, *words))
    assert status == 0, err
    assert revision() == second
    assert [line["step"] for line in metrics(run)] == list(range(1, 15))
    # From then on it keeps to that one.
    stand_in.publish(phantom)
    status, _, err = finish(start(stand_in.endpoint, tmp_path, "trainer.max_steps=15"))
    assert status == 0, err
    assert revision() == second


def test_a_local_copy_and_a_cache_serve_without_the_hub(
    stand_in: StandInHub, tmp_path: Path
) -> None:
    words = ["trainer.max_steps=10", "data.local_copy=copy"]
    status, _, err = finish(start(stand_in.endpoint, tmp_path, *words))
    assert status == 0, err
    first: list[Any] = [line["loss"] for line in metrics(tmp_path / "runs/smoke")]
    words += ["data.cache=kept", "data.cache_decoded=true", "run.name=again"]
    status, _, err = finish(start("http://127.0.0.1:9", tmp_path, *words))
    assert status == 0, err
    assert [line["loss"] for line in metrics(tmp_path / "runs/again")] == first
    assert list((tmp_path / "kept").rglob("*.rows"))


def test_a_signal_while_the_loader_stalls_saves_and_stops(
    stand_in: StandInHub, tmp_path: Path
) -> None:
    words = ["trainer.max_steps=400", "data.window_gb=0.002", "trainer.log_every=1"]
    words += ["trainer.save_every=null", "trainer.eval_every=null", "data.hub_timeout_s=1e6"]
    words += [LITTLE_AHEAD]
    process = start(stand_in.endpoint, tmp_path, *words)
    run = tmp_path / "runs/smoke"
    wait_for_step(run, 5, process)
    stand_in.fault = lambda number, method, path: "stall"
    looks: list[bool] = []

    def waits() -> bool:
        """When what was loaded ahead is used up: not at work, whenever one looks."""
        assert process.poll() is None, process.communicate()
        looks.append(bool(stand_in.failed) and is_asleep(process.pid))
        return all(looks[-20:]) and len(looks) >= 20

    wait_until(waits, "a run that waits for data", every_s=0.1)
    process.send_signal(signal.SIGTERM)
    status, out, err = finish(process)
    assert status == 75 and "not stopped" not in err, err
    last = max(line["step"] for line in metrics(run))
    assert last < 400
    assert f"stopped after step {last}, saved" in out
    assert (run / "checkpoints" / f"step-{last}" / "manifest.json").is_file()


def processes_below(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_until_ended(pids: list[int]) -> None:
    wait_until(lambda: not any(map(is_alive, pids)), "the end of the workers")


@pytest.mark.slow
def test_a_kill_in_the_middle_of_a_fetch_leaves_nothing_and_changes_nothing(
    stand_in: StandInHub, tmp_path: Path
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    words = ["trainer.max_steps=60", "data.window_gb=0.002", "trainer.log_every=1"]
    words += ["trainer.save_every=4", "trainer.eval_every=25", "data.workers=2"]
    words += ["data.hub_timeout_s=1e6", "runtime.threads=1", LITTLE_AHEAD]

    def begin(name: str) -> Any:
        words_here = (*words, f"run.name={name}")
        return start(stand_in.endpoint, tmp_path, *words_here, TMPDIR=str(temporary))

    def curve(name: str) -> list[tuple[int, float, int]]:
        run = tmp_path / "runs" / name
        return [(line["step"], line["loss"], line["tokens"]) for line in metrics(run)]

    status, _, err = finish(begin("unbroken"))
    assert status == 0, err
    unbroken = curve("unbroken")
    assert len(unbroken) == 60

    for name in ("run", "worker"):
        stand_in.failed.clear()
        process = begin(name)
        wait_for_step(tmp_path / "runs" / name, 5, process)
        stand_in.fault = lambda number, method, path: "stall"
        wait_until(lambda: len(stand_in.failed) > 0, "a fetch that stalls")
        children = processes_below(process.pid)
        assert len(children) >= 3  # two for training, one for validations
        os.kill(process.pid if name == "run" else children[0], signal.SIGKILL)
        status, _, err = finish(process)
        if name == "run":
            assert status == -signal.SIGKILL, err
        else:
            assert status == 1 and "data worker 0" in err and "was killed by SIGKILL" in err, err
        wait_until_ended(children)
        assert name == "run" or list(temporary.iterdir()) == []

        stand_in.fault = lambda number, method, path: None
        status, out, err = finish(begin(name))
        assert status == 0 and "resumed after step" in out, err
        assert list(temporary.iterdir()) == []
        assert curve(name) == unbroken


@pytest.mark.parametrize("token", ["hf_OpenSesame", "hf_OpenSesame\u00e9"])
def test_the_token_reaches_no_file_and_no_line(
    stand_in: StandInHub, tmp_path: Path, token: str
) -> None:
    words = ["trainer.max_steps=12", "data.cache=kept", f"run.mirror=file://{tmp_path}/mirror"]
    done = finish(start(stand_in.endpoint, tmp_path, *words, HF_TOKEN=token))
    assert done[0] == (0 if token.isascii() else 1), done
    assert "OpenSesame" not in done[1] + done[2], done
    assert stand_in.token == (f"Bearer {token}" if token.isascii() else None)
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"OpenSesame" not in file.read_bytes(), file
