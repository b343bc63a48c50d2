"""The curves: one value per step, whatever was killed in between."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command_line import run_python
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugin_util import markdown_to_safe_html

from radcap.config.compose import compose
from radcap.data.phantom.dataset import Floor
from radcap.errors import RadcapError
from radcap.host.console import printable
from radcap.inference.scoring_pass import CaptionedRow
from radcap.training.log import dashboard
from radcap.training.log.curves import RunLog
from radcap.training.log.summary import report_validation
from radcap.training.run.folder import RunFolder
from radcap.training.validate import Validation

FLOOR = Floor(rows=600, tokens=8445, nats_per_caption=3.7, nats_per_token=0.25)


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
from radcap.training.log.curves import RunLog
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
    log.samples(4, [CaptionedRow(7, picture, "ct scan of the lung", "ct examination of the lung")])
    log.show(0, [dashboard.text("config", "```yaml\nseed: 0\n```")])
    log.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    (image,) = events.Images("val/samples/0")
    assert image.step == 4
    text = events.Tensors("val/captions")[0].tensor_proto.string_val[0].decode()
    assert "ct scan of the lung" in text
    assert "seed: 0" in events.Tensors("config")[0].tensor_proto.string_val[0].decode()


def test_an_image_stands_above_its_captions(tmp_path: Path) -> None:
    """In one picture: TensorBoard shows images and texts in two tabs."""
    log = RunLog(tmp_path, resume_step=0, tensorboard=True)
    noise = np.random.default_rng(0).integers(0, 256, (3, 224, 224), np.uint8)
    long = "a nodule of the lung " * 40 + "x" * 500
    for step, says in ((1, "ct scan of the lung"), (2, "ct scan of the lun"), (3, long), (4, "")):
        log.samples(step, [CaptionedRow(0, noise, says, "ct examination of the lung")])
    log.close()
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    shown = []
    for event in events.Images("val/samples/0"):
        picture = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)).convert("RGB"))
        assert picture.shape == (event.height, event.width, 3)
        np.testing.assert_array_equal(picture[:224], noise.transpose(1, 2, 0))
        below = picture[224:]
        assert 40 < len(below) < 250
        assert (below[:, -4:] == 255).all() and (below[-4:] == 255).all()  # nothing is cut off
        shown.append(below)
    assert shown[0].shape == shown[1].shape and (shown[0] != shown[1]).any()
    assert len({len(below) for below in shown}) == 2


def test_captions_in_tensorboard_are_text_and_one_row_each(tmp_path: Path) -> None:
    nasty = "a|b ![x](http://127.0.0.1:9/leak.png) <b>**c**</b> \x1b]0;x\x07\n| 9 | d | e |"
    log = RunLog(tmp_path, resume_step=0, tensorboard=True)
    picture = np.zeros((3, 8, 6), np.uint8)
    rows = [CaptionedRow(7, picture, nasty, "knee"), CaptionedRow(8, picture, "hip", nasty)]
    log.samples(4, rows)
    log.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    text = events.Tensors("val/captions")[0].tensor_proto.string_val[0].decode()
    page = markdown_to_safe_html(text)
    assert re.findall("<(?!/)([a-z0-9]+)", page) == [
        *("table", "thead", "tr", "th", "th", "th", "tbody"),
        *("tr", "td", "td", "td", "tr", "td", "td", "td"),
    ]
    cells = [unescape(cell) for cell in re.findall("<td>(.*?)</td>", page)]
    shown = printable(" ".join(nasty.split()))
    assert cells == ["0", shown, "knee", "1", "hip", shown]


def read_curve(run: Path, name: str, tag: str = "loss") -> list[tuple[int, float]]:
    assert len(list((run / name).iterdir())) == 1
    return read_tensorboard(run / name, tag)


def test_train_validation_and_bound_are_runs_of_their_own(tmp_path: Path) -> None:
    """TensorBoard has a colour for each run, and for each tag of a run none."""
    log = RunLog(tmp_path, resume_step=0, tensorboard=True, floor=FLOOR)
    for step in (1, 2):
        log.step(record(step, 3.0 - step), {})
    log.validation({"step": 2, "loss": 1.5, "perplexity": 4.5, "time": 1.8e9}, {}, FLOOR)
    log.close()
    assert read_curve(tmp_path, "train") == [(1, 2.0), (2, 1.0)]
    assert read_curve(tmp_path, "train", "perplexity") == [(1, 2.0), (2, 2.0)]
    assert read_curve(tmp_path, "val") == [(2, 1.5)]
    assert read_curve(tmp_path, "val", "perplexity") == [(2, 4.5)]
    assert read_curve(tmp_path, "bound") == [(0, 0.25), (2, 0.25)]
    assert read_curve(tmp_path, "bound", "perplexity")[1] == (2, pytest.approx(math.exp(0.25)))
    # And where they always were.
    assert read_tensorboard(tmp_path, "train/loss") == [(1, 2.0), (2, 1.0)]
    assert read_tensorboard(tmp_path, "val/loss") == [(2, 1.5)]


def test_they_have_one_value_a_step_after_a_resume_and_all_of_an_older_run(tmp_path: Path) -> None:
    def go_on(resume_step: int, last: int, loss: float, *, tensorboard: bool = True) -> None:
        log = RunLog(tmp_path, resume_step=resume_step, tensorboard=tensorboard, floor=FLOOR)
        for step in range(resume_step + 1, last + 1):
            log.step(record(step, loss), {})
        log.validation(record(last, loss), {}, FLOOR)
        log.close()

    def curves() -> list[list[tuple[int, float]]]:
        return [read_curve(tmp_path, name) for name in ("train", "val", "bound")]

    go_on(0, 15, 3.0)
    go_on(10, 20, 2.0)
    losses = [(step, 3.0 if step <= 10 else 2.0) for step in range(1, 21)]
    bound = [(0, 0.25), (20, 0.25)]
    assert curves() == [losses, [(20, 2.0)], bound]
    # As a commit without them, or a copy elsewhere, leaves a run.
    for name in ("train", "val", "bound"):
        shutil.rmtree(tmp_path / name)
    go_on(20, 21, 1.0)
    assert curves() == [[*losses, (21, 1.0)], [(20, 2.0), (21, 1.0)], [*bound, (21, 0.25)]]
    go_on(12, 13, 9.0, tensorboard=False)  # draws nothing, and leaves nothing that is not so
    assert read_curve(tmp_path, "train") == losses[:12]
    go_on(0, 1, 5.0)
    assert curves() == [[(1, 5.0)], [(1, 5.0)], [(0, 0.25), (1, 0.25)]]


def test_data_without_a_bound_has_no_run_for_it(tmp_path: Path) -> None:
    write(tmp_path, 1, 2, 3.0)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["train", "val"]


def test_no_link_leads_the_curves_out_of_the_run_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "events.out.tfevents.1").write_text("theirs")
    (tmp_path / "run" / "val").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RadcapError, match="run/val is a link"):
        RunLog(tmp_path / "run", resume_step=0, tensorboard=True)
    assert (tmp_path / "elsewhere" / "events.out.tfevents.1").read_text() == "theirs"
    (tmp_path / "run" / "val").unlink()
    (tmp_path / "run" / "val").write_text("a file")
    with pytest.raises(RadcapError, match="run/val cannot be made: File exists"):
        RunLog(tmp_path / "run", resume_step=0, tensorboard=True)


def test_no_tensorboard(tmp_path: Path) -> None:
    log = RunLog(tmp_path, resume_step=0, tensorboard=False)
    log.step(record(1, 3.0), {})
    log.close()
    assert not list(tmp_path.rglob("events*"))
    assert (tmp_path / "metrics.jsonl").exists()


def test_perplexity_is_logged_beside_the_loss(tmp_path: Path) -> None:
    write(tmp_path, 1, 1, 3.0)
    assert read_tensorboard(tmp_path, "train/perplexity") == [(1, pytest.approx(2.0))]


def test_a_perplexity_that_no_float_holds_is_infinite_and_the_files_are_json(
    tmp_path: Path,
) -> None:
    log = RunLog(tmp_path, resume_step=0, tensorboard=True)
    log.step({**record(1, 800.0), "perplexity": math.inf}, {})
    scores = {"step": 1, "time": 1.8e9, "loss": 800.0, "perplexity": math.inf}
    log.validation(scores, {"location": 0.5})
    log.close()
    for name in ("metrics.jsonl", "val_metrics.jsonl"):
        (line,) = (tmp_path / name).read_text().splitlines()
        found = json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
        assert (found["loss"], found["perplexity"]) == (800.0, "Infinity")
    for tag in ("train/perplexity", "val/perplexity"):
        assert read_tensorboard(tmp_path, tag) == [(1, math.inf)]
    # A later process of the run keeps these lines.
    RunLog(tmp_path, resume_step=1, tensorboard=False).close()
    assert "Infinity" in (tmp_path / "metrics.jsonl").read_text()


def test_the_summary_and_the_console_say_infinity_too(tmp_path: Path) -> None:
    lost = Validation(loss=800.0, perplexity=math.inf, tokens=9, rows=2, loss_per_caption=3600.0)
    said: list[str] = []
    run: Any = SimpleNamespace(
        step=5,
        total_steps=9,
        log=RunLog(None, resume_step=0, tensorboard=False),
        inputs=SimpleNamespace(floor=None),
        bar=SimpleNamespace(note=said.append),
    )
    report_validation(run, lost)
    assert len(said) == 1 and "loss 800.0000, perplexity infinity over 2 rows" in said[0]
    folder = RunFolder(compose([f"run.dir={tmp_path / 'run'}"]))
    folder.accept()
    folder.write_summary({"val_perplexity": lost.perplexity})
    folder.close()
    text = (tmp_path / "run/summary.json").read_text()
    stored = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert stored == folder.summary() == {"val_perplexity": "Infinity"}
