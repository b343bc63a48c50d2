"""TensorBoard's further tabs, read back with TensorBoard's own loaders and its own HTTP answers."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from command_line import summary, train
from tensorboard import program
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata
from waiting import wait_until
from werkzeug.test import Client

from radcap.config.compose import compose
from radcap.data.phantom.dataset import Floor
from radcap.scoring.perplexity import perplexity
from radcap.training.log import dashboard
from radcap.training.log.curves import RunLog
from radcap.training.validate import Validation

FLOOR = Floor(rows=600, tokens=8445, nats_per_caption=3.7, nats_per_token=0.25)


def validation(loss: float) -> Validation:
    slots = {"location": {"accuracy": 0.5, "correct": 1, "count": 2}}
    return Validation(
        loss=loss, perplexity=perplexity(loss), tokens=9, rows=2, loss_per_caption=4 * loss,
        slots=slots, samples=[], traffic=None,
    )  # type: ignore[arg-type]  # fmt: skip


def write(folder: Path, resume_step: int, last: int, loss: float, *words: str) -> None:
    folder.mkdir(exist_ok=True)
    log = RunLog(folder, resume_step=resume_step, tensorboard=True)
    log.show(0, dashboard.opening(compose(words)))
    if not resume_step:
        log.show(0, dashboard.floor_lines(FLOOR))
    result = validation(loss)
    log.validation({"step": last, "time": 1.8e9, **result.scores()}, result.accuracies(), FLOOR)
    log.show(last, dashboard.closing(result))
    log.close()


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def points(events: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, pytest.approx(event.value)) for event in events.Scalars(tag)]


def test_every_chart_shows_tags_that_a_run_writes(tmp_path: Path, cache: Path) -> None:
    done = train(tmp_path, cache, "+experiment=smoke", "runtime=cpu")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs/smoke"
    events = read(run)
    content = events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    layout = layout_pb2.Layout.FromString(content)
    there = {name: read(run / name).Tags()["scalars"] for name in (".", "train", "val", "bound")}
    charts = {chart.title: chart for category in layout.category for chart in category.chart}
    for title, chart in charts.items():
        (tag,) = chart.multiline.tag
        lines = [name for name, tags in there.items() for one in tags if re.match(tag, one)]
        # A line has the colour of its run.
        assert lines and len(set(lines)) == len(lines), title
        if title.startswith(("loss", "perplexity")):
            assert lines == ["train", "val", "bound"]
    end = summary(run)
    floor = end["floor"]["nats_per_token"]
    assert points(events, "floor/loss") == [(0, floor), (10, floor), (20, floor)]
    assert points(events, "floor/perplexity")[0][1] == math.exp(floor)
    assert points(events, "final/loss") == [(20, end["val_loss"])]
    slots = {name: score["accuracy"] for name, score in end["slots"].items()}
    assert points(events, "final/slots/all") == [(20, slots["all"])]
    # And once more, as the browser asks for them.
    experiment = ask(tmp_path / "runs", "hparams/experiment", {"experimentName": ""})
    # Of settings and of scores TensorBoard shows the first five.
    names = [info["name"] for info in experiment["hparamInfos"]]
    main = ["data.batch_size", "model.embed_dim", "optimizer.lr", "schedule.name", "seed"]
    assert names[:5] == main and len(names) > 20
    scores = [info["displayName"] for info in experiment["metricInfos"]]
    shares = [f"slots/{name}" for name in ("all", "pathology", "location")]
    assert scores[:5] == ["loss", *shares, "perplexity"]
    assert sorted(scores[5:]) == ["loss_per_caption", "slots/abnormal", "slots/modality"]
    assert ask(tmp_path / "runs", "custom_scalars/layout", None)["category"][0]["title"] == (
        "Learning"
    )


def test_a_run_that_goes_on_has_one_end(tmp_path: Path) -> None:
    write(tmp_path, 0, 10, 3.0)
    write(tmp_path, 10, 20, 2.0)
    events = read(tmp_path)
    assert points(events, "final/loss") == [(20, 2.0)]
    assert points(events, "val/loss") == [(10, 3.0), (20, 2.0)]
    # Killed after its last checkpoint and before its end: the end is told again, once.
    write(tmp_path, 20, 20, 2.0)
    events = read(tmp_path)
    assert points(events, "final/loss") == [(20, 2.0)]
    assert points(events, "floor/loss") == [(0, 0.25), (10, 0.25), (20, 0.25)]
    assert len(events.Tensors(metadata.SESSION_START_INFO_TAG)) == 1


def test_a_run_that_goes_on_shows_what_it_is_told_now(tmp_path: Path) -> None:
    write(tmp_path / "mine", 0, 10, 3.0, "trainer.max_steps=10")
    write(tmp_path / "mine", 10, 20, 2.0, "trainer.max_steps=20")
    events = read(tmp_path / "mine")
    for tag in (metadata.EXPERIMENT_TAG, "custom_scalars__config__"):
        assert len(events.Tensors(tag)) == 1
    (told,) = events.Tensors("config")
    assert told.step == 0
    assert "max_steps: 20" in told.tensor_proto.string_val[0].decode()
    (group,) = session_groups(tmp_path)
    assert group["hparams"]["trainer.max_steps"] == "20"


def test_a_run_and_the_one_it_moved_aside_are_two_lines(tmp_path: Path) -> None:
    # Both were told the same run.name: grouped by it they would be one line of mean scores.
    write(tmp_path / "mine.old-1", 0, 10, 3.0, "run.name=mine", "optimizer.lr=0.1")
    write(tmp_path / "mine", 0, 10, 2.0, "run.name=mine", "optimizer.lr=0.2")
    groups = session_groups(tmp_path)
    assert [group["name"] for group in groups] == ["mine", "mine.old-1"]
    assert [group["hparams"]["optimizer.lr"] for group in groups] == [0.2, 0.1]
    assert [len(group["sessions"]) for group in groups] == [1, 1]


def test_the_runs_of_a_sweep_compare(tmp_path: Path) -> None:
    for rate, loss in ((1e-3, 0.5), (2e-3, 0.4)):
        write(tmp_path / f"lr{rate}", 0, 10, loss, f"optimizer.lr={rate}", f"run.name=lr{rate}")
    groups = session_groups(tmp_path)
    assert [group["name"] for group in groups] == ["lr0.002", "lr0.001"]  # the best first
    assert [group["hparams"]["optimizer.lr"] for group in groups] == [2e-3, 1e-3]
    assert groups[0]["metricValues"][0]["value"] == pytest.approx(0.4)
    assert groups[0]["sessions"][0]["status"] == "STATUS_SUCCESS"


def test_an_infinite_perplexity_leaves_the_tab_whole(tmp_path: Path) -> None:
    write(tmp_path / "lost", 0, 10, 800.0)
    write(tmp_path / "good", 0, 10, 0.5)
    groups = session_groups(tmp_path)
    values = [
        {one["name"]["tag"]: one["value"] for one in group["metricValues"]} for group in groups
    ]
    assert [group["name"] for group in groups] == ["good", "lost"]
    assert values[0]["final/perplexity"] == pytest.approx(math.exp(0.5))
    assert float(values[1]["final/perplexity"]) == math.inf


def session_groups(logdir: Path) -> Any:
    """The lines of the HParams tab, the best first."""
    statuses = {"allowedStatuses": ["STATUS_SUCCESS", "STATUS_RUNNING", "STATUS_UNKNOWN"]}
    columns = [{"metric": {"tag": "final/loss"}, "order": "ORDER_ASC"}]
    wanted = {"experimentName": "", "colParams": columns, "startIndex": 0, "sliceSize": 10}
    return ask(logdir, "hparams/session_groups", {**wanted, **statuses})["sessionGroups"]


def test_columns_have_one_type_whatever_is_set() -> None:
    def kinds(*words: str) -> dict[str, int]:
        values = dashboard.opening(compose(words))
        (told,) = [value for value in values if value.tag == metadata.EXPERIMENT_TAG]
        content = told.metadata.plugin_data.content
        infos = metadata.parse_experiment_plugin_data(content).hparam_infos
        return {info.name: info.type for info in infos}

    given = kinds("optimizer.clip_norm=1", "runtime.precision=bf16", "trainer.max_steps=5")
    assert given == kinds()
    assert {"seed", "model.dropout", "schedule.warmup", "data.batch_size"} <= set(given)
    assert not [name for name in given if name.startswith(("run.", "logger.", "preflight."))]


class Captured:
    """In the place of TensorBoard's server: keeps what would be served."""

    def __init__(self, app: Any, flags: Any) -> None:
        self.app = app
        board.append(self)

    def serve_forever(self) -> None:
        pass

    def get_url(self) -> str:
        return ""


board: list[Captured] = []


def ask(logdir: Path, path: str, content: dict[str, Any] | None) -> Any:
    """TensorBoard's own answer to its page."""
    tensorboard = program.TensorBoard(server_class=Captured)
    words = ["--logdir", str(logdir), "--load_fast", "false", "--reload_interval", "0"]
    tensorboard.configure(argv=["tensorboard", *words])
    tensorboard.launch()
    client = Client(board.pop().app)
    address = f"/data/plugin/{path}"

    def answer() -> Any:
        answer = client.get(address) if content is None else client.post(address, json=content)
        found = json.loads(answer.data) if answer.status_code == 200 else {}
        return (
            any(found.get(name) for name in ("sessionGroups", "hparamInfos", "category")) and found
        )

    return wait_until(answer, f"{path} of the files, which are read beside", every_s=0.1)
