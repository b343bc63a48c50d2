"""scripts/compare_commits.py: a difference is named, with the effect of rounding."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from command_line import ROOT, environment, run_interpreter
from torch import Tensor

from radcap.serving.pictures import read_picture

SCRIPT = ROOT / "scripts" / "compare_commits.py"
WATCH = ROOT / "scripts" / "compare_watch.py"

# One array of each kind that the measurements hold.
ARRAYS = {
    "row order|captions in the order of training": np.array(["a1", "b2", "c3", "d4"]),
    "pixels|pictures": np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2),
    "model outputs|logits, float64": np.linspace(-2, 2, 10),
    "losses|default run": np.linspace(10, 1, 50),
    "captions|their log-probabilities": np.array([-4.5, -6.25]),
}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import compare_commits

    return compare_commits


def changed(name: str, place: object, value: object) -> dict[str, np.ndarray]:
    arrays = {key: array.copy() for key, array in ARRAYS.items()}
    arrays[name][place] = value
    return arrays


def report(
    script: ModuleType,
    new: dict[str, np.ndarray],
    threads: dict[str, np.ndarray] | None = None,
    lacks: dict[str, str] | None = None,
) -> tuple[list[str], list[str]]:
    """The report's lines, and the parts that count as different."""
    old = script.Measured(ARRAYS, {})
    new = script.Measured(new, lacks or {})
    rows = script.compare(old, new, script.Measured(threads or {}, {}))
    lines = list(script.lines(rows, old, new))
    assert max(map(len, lines)) <= 100
    return lines, [row.part for row in rows if row.counts]


def test_the_same_on_both_sides_is_no_difference(script: ModuleType) -> None:
    lines, parts = report(script, changed("row order|captions in the order of training", 0, "a1"))
    assert parts == []
    assert lines[-1] == "nothing differs in 5 comparisons"


@pytest.mark.parametrize(
    ("name", "place", "value", "expected"),
    [
        ("row order|captions in the order of training", 2, "x9", "1/4 from 3"),
        ("pixels|pictures", (1, 0, 0, 0), 15, "3 of 255, 1/2 from 2"),
        ("model outputs|logits, float64", 0, np.nextafter(-2, 0), "1.1e-16, 1/10 from 1"),
        ("losses|default run", 49, 1.5, "5.0e-02, 1/50 from 50"),
        ("losses|default run", slice(30, 50), 0.0, "4.5e-01, 20/50 from 31"),
        ("losses|default run", 7, np.nan, "nan, 1/50 from 8"),
    ],
)
def test_a_difference_is_named_with_its_size_and_place(
    script: ModuleType, name: str, place: object, value: object, expected: str
) -> None:
    lines, parts = report(script, changed(name, place, value))
    part, _, what = name.partition("|")
    assert parts == [part]
    assert f"{part:16s}  {what:33s}  {expected:24s}  -" in lines
    assert lines[-2:] == [f"differs: {part}", f"first in {part}, {what}: {expected}"]


def test_zeros_of_the_other_sign_and_other_shapes_differ(script: ModuleType) -> None:
    assert script.difference(np.array([0.0]), np.array([-0.0])) == "signs of zeros or NaNs"
    assert script.difference(np.array([np.nan]), np.array([np.nan])) == "same"
    assert script.difference(np.zeros((4, 2)), np.zeros((3, 2))) == "4x2 float -> 3x2 float"
    assert script.difference(np.float32([1]), np.float64([1])) == "float32 -> float64"
    assert script.difference(np.array(["ab"]), np.array(["abc"])) == "1/1 from 1"
    assert script.difference(np.zeros(20_000), np.ones(20_000)) == "1.0e+00, 100%"
    assert script.difference(np.array(2.0), np.array(2.5)) == "2.5e-01, 1/1 from 1"


def test_the_first_part_of_a_rows_way_is_named_first(script: ModuleType) -> None:
    new = changed("losses|default run", 3, 0.0)
    new["pixels|pictures"] = new["pixels|pictures"] + np.uint8(1)
    new["captions|their log-probabilities"] = np.array([-4.5, -6.0])
    lines, parts = report(script, new)
    assert parts == ["pixels", "losses", "captions"]
    assert lines[-2] == "differs: pixels, losses, captions"
    assert lines[-1] == "first in pixels, pictures: 1 of 255, 2/2 from 1"


def test_rounding_stands_beside_a_difference_and_is_none_itself(script: ModuleType) -> None:
    name = "losses|default run"
    threads = {name: changed(name, 40, 2.0)[name]}
    lines, parts = report(script, dict(ARRAYS), threads)
    assert parts == []
    assert f"{'losses':16s}  {'default run':33s}  {'same':24s}  6.5e-02, 1/50 from 41" in lines
    assert f"{'captions':16s}  {'their log-probabilities':33s}  {'same':24s}  -" in lines


def test_what_new_lacks_is_a_difference_and_what_old_lacks_is_none(script: ModuleType) -> None:
    less = {key: array for key, array in ARRAYS.items() if not key.startswith("captions")}
    reason = {"captions": "status 1: no such option"}
    lines, parts = report(script, less, lacks=reason)
    assert parts == ["captions"]
    assert "NEW lacks captions: status 1: no such option" in lines
    lines, parts = report(script, {**ARRAYS, "8 devices|losses": np.zeros(5)})
    assert parts == []
    assert [line for line in lines if line.startswith("8 devices") and "OLD lacks it" in line]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository of one commit, with a changed file, a new one and an ignored one."""
    folder = tmp_path / "checkout"
    (folder / "radcap").mkdir(parents=True)
    (folder / "radcap" / "__init__.py").write_text("committed = True\n")
    (folder / ".gitignore").write_text("runs/\n")
    for words in (
        ("init", "--quiet"),
        ("add", "."),
        ("-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "--quiet", "-m", "first"),
    ):
        subprocess.run(["git", "-C", folder, *words], check=True)
    (folder / "radcap" / "__init__.py").write_text("committed = False\n")
    (folder / "new.py").write_text("")
    (folder / "runs").mkdir()
    (folder / "runs" / "log").write_text("")
    return folder


def test_a_commit_is_checked_out_as_it_was_and_the_working_tree_as_it_is(
    script: ModuleType, checkout: Path, tmp_path: Path
) -> None:
    expected = script.check_out(checkout, "HEAD", tmp_path / "old")
    assert expected.split(maxsplit=1)[1] == "first"
    assert (tmp_path / "old/radcap/__init__.py").read_text() == "committed = True\n"
    script.check_out(checkout, ".", tmp_path / "new")
    assert (tmp_path / "new/radcap/__init__.py").read_text() == "committed = False\n"
    files = {str(p.relative_to(tmp_path / "new")) for p in (tmp_path / "new").rglob("*")}
    assert files == {".gitignore", "new.py", "radcap", "radcap/__init__.py"}


def run_script(cwd: Path, *words: str, tmp: Path) -> subprocess.CompletedProcess[str]:
    return run_interpreter(SCRIPT, *words, cwd=cwd, TMPDIR=str(tmp))


@pytest.mark.parametrize(
    ("words", "outside", "expected"),
    [
        (("nonsense",), False, "nonsense: no such revision in "),
        (("HEAD", "--upload-pack=x"), False, "unrecognized arguments: --upload-pack=x"),
        ((), False, "the following arguments are required: old"),
        (("HEAD",), True, "not in a checkout of git"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(
    checkout: Path, tmp_path: Path, words: tuple[str, ...], outside: bool, expected: str
) -> None:
    spare = tmp_path / "spare"
    spare.mkdir()
    done = run_script(tmp_path if outside else checkout, *words, tmp=spare)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("radcap: ") and expected in line
    assert list(spare.iterdir()) == []


@pytest.fixture
def sleeping(checkout: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """The script at work on a radcap that never ends; and its folder for temporary files."""
    (checkout / "radcap" / "__init__.py").write_text("import time\n\ntime.sleep(1000)\n")
    spare = tmp_path / "spare"
    spare.mkdir()
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), ".", "."],
        cwd=checkout,
        env={**os.environ, "TMPDIR": str(spare), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process, spare
    process.kill()
    process.communicate()


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "TERM"]
)
def test_a_signal_leaves_neither_files_nor_processes(
    sleeping: tuple[subprocess.Popen[str], Path], number: signal.Signals, status: int
) -> None:
    process, spare = sleeping
    assert process.stdout is not None
    assert [process.stdout.readline()[:4] for _ in range(2)] == ["OLD ", "NEW "]
    (folder,) = spare.iterdir()
    while not processes_of(folder):
        assert process.poll() is None
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == status
    assert list(spare.iterdir()) == []
    assert processes_of(folder) == []


def processes_of(folder: Path) -> list[Path]:
    """Those that were started with a path in a folder among their words."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if str(folder).encode() in (process / "cmdline").read_bytes():
                found.append(process)
    return found


def test_the_models_answers_are_golden(
    monkeypatch: pytest.MonkeyPatch, golden_answers: dict[str, Tensor]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from compare_golden import golden_answers as answers

    found = answers()
    memory = golden_answers["memory"].numpy()
    assert found["model outputs|memory, float64"] == pytest.approx(memory, rel=1e-8)
    loss = golden_answers["train_losses"][0].item()
    assert found["model outputs|loss in training, float64"] == pytest.approx(loss, rel=1e-8)
    greedy = golden_answers["greedy_1"].tolist()
    assert found["model outputs|ids, greedy"][1].tolist() == greedy
    assert np.abs(found["gradients|of all parameters, float64"]).max() > 0


def test_pictures_of_many_forms_are_read_and_no_two_are_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from compare_measure import write_pictures

    read = [read_picture(path) for path in write_pictures(tmp_path / "pictures")]
    assert len(read) == 8
    assert len({pixels.tobytes() for pixels in read}) == 8
    assert min(pixels.std() for pixels in read) > 20


def test_a_failed_commands_reason_is_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from compare_measure import last_line

    assert last_line("a\nradcap: no such option\nmore\n****\n") == "radcap: no such option"
    assert last_line("Traceback\nValueError: x\n****\n") == "ValueError: x"
    assert last_line("") == ""


def watched(tmp_path: Path, cache: Path, *words: str) -> dict[str, np.ndarray]:
    """What the model and the optimizer are given in four steps of the smoke run."""
    out = tmp_path / "seen.npz"
    short = ("+experiment=smoke", "runtime=cpu", "runtime.threads=1", "trainer.max_steps=4")
    short = (*short, "trainer.caption_rows=0", "trainer.samples=0", "run.fresh=true")
    words = (*short, *words)
    done = run_interpreter(WATCH, out, "radcap.train", *words, cwd=tmp_path, **environment(cache))
    assert done.returncode == 0, done.stderr
    with np.load(out) as stored:
        return {name: stored[name] for name in stored}


@pytest.mark.slow
def test_order_and_optimizer_are_seen_apart(tmp_path: Path, cache: Path) -> None:
    before = watched(tmp_path, cache)
    assert before["pictures"].shape == (4 * 8 + 40, 3, 224, 224)
    assert before["captions"].shape == (4 * 8 + 40,)
    again = watched(tmp_path, cache)
    assert all(np.array_equal(before[name], again[name]) for name in before)
    eps = watched(tmp_path, cache, "optimizer.eps=2e-8")
    assert {name for name in before if not np.array_equal(before[name], eps[name])} == {"updated"}
    batch = watched(tmp_path, cache, "data.lanes=1")
    assert np.array_equal(before["updated"], batch["updated"])
    assert not np.array_equal(before["captions"][:32], batch["captions"][:32])
    assert np.array_equal(before["captions"][32:], batch["captions"][32:])  # of validation
