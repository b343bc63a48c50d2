"""What a sweep says of its jobs at the end."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from radcap.config.compose import split_options
from radcap.sweep.jobs import plan
from radcap.sweep.results import DONE, FAILED, Result, best, ranked, table, write


def summary(loss: float) -> dict[str, Any]:
    slots = {"pathology": {"accuracy": 0.5, "correct": 1, "count": 2}}
    perplexity = math.exp(loss)
    return {
        "steps": 1200, "val_loss": loss, "val_perplexity": perplexity, "slots": slots, "wall_s": 61
    }  # fmt: skip


def results(*words: str, losses: list[float | None]) -> list[Result]:
    jobs = plan(*split_options(words))
    return [
        Result(job, FAILED, "no room") if loss is None else Result(job, DONE, summary=summary(loss))
        for job, loss in zip(jobs, losses, strict=True)
    ]


def test_the_lowest_loss_is_the_best_and_a_failure_the_last(tmp_path: Path) -> None:
    found = results("optimizer.lr=1e-3,2e-3", "seed=1,2", losses=[0.5, None, 0.3, math.nan])
    assert [result.job.number for result in ranked(found)] == [3, 1, 4, 2]
    lines = table(found)
    told = [" ".join(line.split()) for line in lines]
    assert told[0] == "lr seed steps val loss perplexity pathology time status"
    assert told[1] == "* 0.002 1 1,200 0.3000 1.350 50.0% 1 min 1 s done"
    assert lines[2].split()[:2] == ["0.001", "1"]
    assert lines[3].split()[3] == "-"  # a loss that is no number
    assert lines[4].split() == ["0.001", "2", *"-----", "failed"]
    assert lines[5] == "job 2 of 4 (optimizer.lr=0.001 seed=2) failed: no room"
    assert max(len(line) for line in lines) <= 100
    write(tmp_path / "sweep.json", ["seed=1,2"], found)
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert content["best"] == content["jobs"][0]["folder"] == "optimizer.lr-0.002+seed-1"
    assert content["jobs"][0]["overrides"] == {"optimizer.lr": "0.002", "seed": "1"}
    assert content["jobs"][0]["slots"] == {"pathology": 0.5}
    assert content["jobs"][3] == {
        "folder": "optimizer.lr-0.001+seed-2", "status": "failed", "error": "no room",
        "overrides": {"optimizer.lr": "0.001", "seed": "2"},
        "steps": None, "val_loss": None, "val_perplexity": None, "wall_s": None, "slots": {},
    }  # fmt: skip


def test_losses_on_different_rows_have_no_best() -> None:
    for word in ("data.path=a,b", "data.max_length=8,16", "data.phantom.seed=1,2"):
        found = results(word, losses=[0.5, 0.3])
        assert best(found) is None
        assert [result.job.number for result in ranked(found)] == [1, 2]
        assert table(found)[-1].startswith("no best one")
    assert best(results("data.lanes=1,2", losses=[0.5, 0.3])) is not None


def test_a_summary_of_another_form_has_no_figures(tmp_path: Path) -> None:
    found = results("seed=1,2", losses=[0.5, 0.3])
    odd = {"steps": "x", "wall_s": [1], "val_loss": "low", "slots": {"a": 1, "pathology": {}}}
    found[1] = Result(found[1].job, DONE, summary=odd)
    assert table(found)[2].split() == ["2", *"-----", "done"]
    write(tmp_path / "sweep.json", ["seed=1,2"], found)
    record = json.loads((tmp_path / "sweep.json").read_text())["jobs"][1]
    assert (record["steps"], record["val_loss"], record["slots"]) == (None, None, {})


def test_values_that_leave_no_room_are_told_below() -> None:
    words = (
        "optimizer.lr=1e-3,2e-3", "seed=1", "data.path=choice(a_folder_with_a_long_name)",
        "run.name=x", "data.phantom.seed=choice(3)", "optimizer.weight_decay=choice(0.01)",
        "trainer.max_steps=choice(1000000)", "data.cache=choice(another_folder_of_some_length)",
    )  # fmt: skip
    lines = table(results(*words, losses=[0.5, 0.3]))
    assert max(len(line) for line in "\n".join(lines).splitlines()) <= 100
    assert lines[0].split()[:2] == ["job", "steps"]
    assert lines[1].split()[:2] == ["*", "2"]
    assert lines[3].startswith("job 2: optimizer.lr=0.002 data.path=a_folder_with_a_long_name")


def test_names_that_are_not_plain_are_told_in_full() -> None:
    found = results("data.phantom.seed=1,2", "seed=1,2", losses=[0.5, 0.3, 0.2, 0.1])
    assert table(found)[0].split()[:2] == ["data.phantom.seed", "seed"]


def test_an_infinite_perplexity_is_said(tmp_path: Path) -> None:
    found = results("seed=1,2", losses=[0.5, 0.3])
    lost = {**summary(0.5), "val_loss": 800.0, "val_perplexity": "Infinity"}
    capped = {**summary(0.5), "val_loss": 750.0, "val_perplexity": math.exp(700.0)}
    for place, stored in enumerate((lost, capped)):
        found[place] = Result(found[place].job, DONE, summary=stored)
    told = [" ".join(line.split()) for line in table(found)]
    assert told[1] == "* 2 1,200 750.0000 1.014e+304 50.0% 1 min 1 s done"
    assert told[2] == "1 1,200 800.0000 infinity 50.0% 1 min 1 s done"
    write(tmp_path / "sweep.json", ["seed=1,2"], found)
    jobs = json.loads((tmp_path / "sweep.json").read_text())["jobs"]
    assert [job["val_perplexity"] for job in jobs] == [math.exp(700.0), "Infinity"]
