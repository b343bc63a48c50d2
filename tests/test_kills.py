"""A run that is killed at random moments draws the curve of an unbroken one, bit for bit.

`RADCAP_KILLS=100 scripts/test.sh --all tests/test_kills.py -rP` prints the table of a
hundred and those of twenty for each way of a run: accumulated gradients, dropout, a local folder,
caches, a local copy, a run that is lengthened. Without the variable one kill of several together
has to do.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import metrics, summary
from hub.stand_in import serving
from kills import (
    COMBINED,
    NUM_STEPS,
    SHORT_STEPS,
    VARIANTS,
    Found,
    Kill,
    carry_out,
    finish,
    plan,
)
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from radcap.data.phantom.dataset import write_phantom

MANY = int(os.environ.get("RADCAP_KILLS", "6"))
EACH = max(1, MANY // 5) if "RADCAP_KILLS" in os.environ else 1
TRIED = [(name,) for name in VARIANTS] if "RADCAP_KILLS" in os.environ else [COMBINED]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, float]:
    """The run's folder, and the seconds to its first step."""
    cwd = tmp_path_factory.mktemp("unbroken")
    finish(cwd, cache)
    run = cwd / "runs" / "smoke"
    return run, to_first_step_s(run)


def to_first_step_s(run: Path) -> float:
    """Seconds to a run's first step, for a process that finds its data drawn."""
    parts = summary(run)["first_step_s"]
    return 1.0 + sum(s for name, s in parts.items() if name != "data")


def test_five_kills(tmp_path: Path, cache: Path) -> None:
    words = [f"trainer.max_steps={SHORT_STEPS}"]
    for name in ("unbroken", "killed"):
        (tmp_path / name).mkdir()
    finish(tmp_path / "unbroken", cache, words)
    run = tmp_path / "unbroken" / "runs" / "smoke"
    check(5, tmp_path / "killed", cache, run, to_first_step_s(run), SHORT_STEPS, words)


@pytest.mark.slow(minutes=3)
@pytest.mark.timeout(7200 + 600 * MANY)
def test_many_kills(tmp_path: Path, cache: Path, unbroken: tuple[Path, float]) -> None:
    check(MANY, tmp_path, cache, *unbroken)


@pytest.mark.slow
@pytest.mark.timeout(7200 + 600 * EACH)
@pytest.mark.parametrize("variant", TRIED, ids="-".join)
def test_kills_of_a_variant(tmp_path: Path, cache: Path, variant: tuple[str, ...]) -> None:
    folder = tmp_path / "set"
    write_phantom(folder, train_rows=320, val_rows=40, seed=0, row_group_size=20)
    words = [word.replace("FOLDER", str(folder)) for name in variant for word in VARIANTS[name]]
    begun = [*words, f"trainer.max_steps={SHORT_STEPS // 2}"]
    words += [f"trainer.max_steps={SHORT_STEPS}", "data.lanes=8", "data.window_gb=0.01"]
    begun += words[-2:]
    with serving(folder) as hub:
        online = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
        online |= {"HF_HUB_OFFLINE": "0", "http_proxy": ""}
        for name in ("unbroken", "killed"):
            (tmp_path / name).mkdir()
            if "lengthened" in variant:
                finish(tmp_path / name, cache, begun, online)
        finish(tmp_path / "unbroken", cache, words, online)
        run = tmp_path / "unbroken" / "runs" / "smoke"
        start_s = to_first_step_s(run)
        check(EACH, tmp_path / "killed", cache, run, start_s, SHORT_STEPS, words, online)


def check(
    count: int,
    cwd: Path,
    cache: Path,
    unbroken: Path,
    start_s: float,
    num_steps: int = NUM_STEPS,
    words: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
) -> None:
    (cwd / "tmp").mkdir(exist_ok=True)
    run = cwd / "runs" / "smoke"
    safe = 0
    outcomes: list[tuple[Kill, Found]] = []
    for kill in plan(count, count, num_steps):
        # One that came when its phase was over, on a machine that is faster now, comes once more.
        for share in (1.0, 0.5, 0.25, 0.0):
            again = replace(kill, delay=share * kill.delay)
            found = carry_out(again, cwd, cache, start_s, words, variables)
            assert found.saved >= safe, (again, found)  # what was saved stays saved
            safe = found.saved
            outcomes.append((again, found))
            if found.in_phase:
                break
    finish(cwd, cache, words, variables)
    print_table(outcomes)
    for phase in ("start", "step", "save", "validation") if count >= 5 else ():
        assert any(kill.phase == phase and found.in_phase for kill, found in outcomes), phase

    expected, curve = metrics(unbroken), metrics(run)
    assert [line["step"] for line in curve] == list(range(1, num_steps + 1))
    for name in ("loss", "perplexity", "grad_norm", "tokens", "lr", "epoch"):
        assert [line[name] for line in curve] == [line[name] for line in expected], name
    assert timeless(run / "val_metrics.jsonl") == timeless(unbroken / "val_metrics.jsonl")
    for name in ("val_loss", "images", "skipped", "slots", "captions", "steps"):
        assert summary(run)[name] == summary(unbroken)[name], name
    assert events(run) == events(unbroken)
    assert files(run) == files(unbroken)
    assert [path.name for path in cwd.iterdir() if path.name not in ("tmp", "kept")] == ["runs"]
    # torch itself leaves a folder of its own when it is killed.
    left = {path.name.split(".")[0] for path in (cwd / "tmp").rglob("*") if path.is_file()}
    assert left <= {"_remote_module_non_scriptable"}
    assert living(cwd) == []


def timeless(file: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in file.read_text().splitlines()]
    return [{name: v for name, v in record.items() if name != "time"} for record in records]


def events(run: Path) -> dict[str, list[int]]:
    """Tag -> steps in TensorBoard's files, in order."""
    found: dict[str, list[int]] = defaultdict(list)
    for file in run.glob("events.out.tfevents.*"):
        records = list(EventFileLoader(str(file)).Load())
        assert len(records) > 1, "a file that shows nothing"
        for event in records:
            for value in event.summary.value:
                found[value.tag].append(event.step)
    return {tag: sorted(steps) for tag, steps in found.items()}


def files(run: Path) -> list[str]:
    """Every file of a run, TensorBoard's apart: each process has its own."""
    paths = (str(path.relative_to(run)) for path in run.rglob("*"))
    return sorted(path for path in paths if not Path(path).name.startswith("events.out"))


def living(cwd: Path) -> list[str]:
    """Processes that still work in a folder."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdecimal() and (process / "cwd").resolve() == cwd.resolve():
                found.append((process / "cmdline").read_text())
        except (FileNotFoundError, PermissionError):
            continue  # it has ended meanwhile, or is somebody else's
    return found


def print_table(outcomes: list[tuple[Kill, Found]]) -> None:
    print("kill  phase       signal   from step  reached  saved  in phase  stopped after")
    for number, (kill, found) in enumerate(outcomes, start=1):
        print(
            f"{number:4d}  {kill.phase:10s}  {kill.number.name}  {kill.step:9d}  "
            f"{found.step:7d}  {found.saved:5d}  {'yes' if found.in_phase else 'no':>8s}  "
            f"{found.stop_s:11.2f} s"
        )
    met = Counter(kill.phase for kill, found in outcomes if found.in_phase)
    print(", ".join(f"{count} in {phase}" for phase, count in sorted(met.items())))
