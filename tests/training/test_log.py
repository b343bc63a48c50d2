"""The curves: one value per step, whatever was killed in between."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import run_python
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from radcap.training import dashboard
from radcap.training.captions import Sample
from radcap.training.log import RunLog


def record(step: int, loss: float) -> dict[str, float]:
    return {
        "step": step,
        "epoch": step / 10,
        "loss": loss,
        "perplexity": 2.0,
        "tokens": 5,
        "lr": 1e-3,
        "grad_norm": 1.0,
        "images_per_s": 8.0,
        "step_s": 0.1,
        "data_wait_s": 0.0,
        "time": 1.8e9 + step,
    }


def write(folder: Path, first: int, last: int, loss: float) -> None:
    log = RunLog(folder, resume_step=first - 1, tensorboard=True)
    for step in range(first, last + 1):
        log.step(record(step, loss), {"skipped": 0, "truncated": 1})
    log.validation({"step": last, "loss": loss, "time": 1.8e9}, {"location": 0.5})
    log.close()


def read_tensorboard(folder: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    return [(e.step, e.value) for e in events.Scalars(tag)]


RESUMED = """
import sys
from pathlib import Path
from radcap.training.log import RunLog
for first in (0, 1):
    log = RunLog(Path(sys.argv[1]), resume_step=first, tensorboard=True)
    log.validation({"step": first + 1, "loss": 2.0, "time": 1.8e9}, {})
    log.close()
"""


def test_tensorflow_is_left_alone(tmp_path: Path) -> None:
    """It takes a TPU for itself where it is installed."""
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("raise SystemExit('TensorFlow loaded')")
    done = run_python(RESUMED, str(tmp_path), PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert read_tensorboard(tmp_path, "val/loss") == [(1, 2.0), (2, 2.0)]


def test_after_a_resume_each_step_has_one_value(tmp_path: Path) -> None:
    write(tmp_path, 1, 15, 3.0)
    write(tmp_path, 11, 20, 2.0)
    expected = [(step, 3.0 if step <= 10 else 2.0) for step in range(1, 21)]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == expected
    assert read_tensorboard(tmp_path, "train/loss") == expected
    assert read_tensorboard(tmp_path, "val/loss") == [(20, 2.0)]
    assert read_tensorboard(tmp_path, "val/slots/location") == [(20, 0.5)]
    (line,) = (tmp_path / "val_metrics.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "step": 20,
        "loss": 2.0,
        "time": 1.8e9,
        "slots": {"location": 0.5},
    }


def test_a_line_torn_by_a_kill_is_dropped(tmp_path: Path) -> None:
    write(tmp_path, 1, 5, 3.0)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    events = next(tmp_path.glob("events*"))
    events.write_bytes(events.read_bytes()[:-7])
    write(tmp_path, 6, 7, 2.0)
    lines = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").open()]
    assert lines == [1, 2, 3, 4, 5, 6, 7]
    assert [step for step, _ in read_tensorboard(tmp_path, "train/loss")] == lines


def test_a_validation_repeated_after_a_resume_is_logged_once(tmp_path: Path) -> None:
    write(tmp_path, 1, 10, 3.0)
    log = RunLog(tmp_path, resume_step=10, tensorboard=True)
    assert not log.validation({"step": 10, "loss": 3.0, "time": 1.8e9}, {"location": 0.5})
    log.close()
    assert len((tmp_path / "val_metrics.jsonl").read_text().splitlines()) == 1
    assert read_tensorboard(tmp_path, "val/loss") == [(10, 3.0)]


def test_a_line_torn_in_the_middle_costs_no_other(tmp_path: Path) -> None:
    write(tmp_path, 1, 5, 3.0)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    lines[1], lines[2] = "[]", '{"st'
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    write(tmp_path, 6, 6, 2.0)
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").open()] == [
        1,
        4,
        5,
        6,
    ]


def test_a_run_that_begins_again_has_one_of_each_text(tmp_path: Path) -> None:
    for _ in range(2):
        log = RunLog(tmp_path, resume_step=0, tensorboard=True)
        log.show(0, [dashboard.text("config", "seed: 0")])
        log.close()
    assert len(EventAccumulator(str(tmp_path)).Reload().Tensors("config")) == 1


def test_what_is_logged_is_in_the_files_at_once(tmp_path: Path) -> None:
    log = RunLog(tmp_path, resume_step=0, tensorboard=True)
    log.step(record(1, 3.0), {})
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1
    assert read_tensorboard(tmp_path, "train/loss") == [(1, 3.0)]
    log.close()


def test_a_process_without_a_folder_logs_into_nothing() -> None:
    log = RunLog(None, resume_step=0, tensorboard=True)
    log.step(record(1, 3.0), {})
    log.health({"step": 1})
    assert log.validation({"step": 1, "loss": 3.0, "time": 1.8e9}, {})
    log.close()


def test_samples_and_texts_reach_tensorboard(tmp_path: Path) -> None:
    log = RunLog(tmp_path, resume_step=0, tensorboard=True)
    picture = np.full((3, 8, 6), 200, np.uint8)
    log.samples(4, [Sample(7, picture, "ct scan of the lung", "ct examination of the lung")])
    log.show(0, [dashboard.text("config", "```yaml\nseed: 0\n```")])
    log.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    (image,) = events.Images("val/samples/0")
    assert (image.step, image.width, image.height) == (4, 6, 8)
    text = events.Tensors("val/captions")[0].tensor_proto.string_val[0].decode()
    assert "ct scan of the lung" in text
    assert "seed: 0" in events.Tensors("config")[0].tensor_proto.string_val[0].decode()


def test_no_tensorboard(tmp_path: Path) -> None:
    log = RunLog(tmp_path, resume_step=0, tensorboard=False)
    log.step(record(1, 3.0), {})
    log.close()
    assert not list(tmp_path.glob("events*"))
    assert (tmp_path / "metrics.jsonl").exists()


def test_perplexity_is_logged_beside_the_loss(tmp_path: Path) -> None:
    write(tmp_path, 1, 1, 3.0)
    assert read_tensorboard(tmp_path, "train/perplexity") == [(1, pytest.approx(2.0))]
