"""`python -m radcap.caption` in a process of its own."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
import torch
from command_line import ROOT
from hub.stand_in import serving
from PIL import Image

from radcap.model.captioner import ImageCaptioningModel

pydicom = pytest.importorskip("pydicom")

SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"
FAST = ("--max-len", "4", "--device", "cpu")


def caption(
    cwd: Path, *words: str, stdin: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_ENDPOINT": "http://127.0.0.1:9"}
    return programs.run(["-m", "radcap.caption", *words], cwd=cwd, env=env | variables, input=stdin)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """weights.bin, and study/ with good pictures and bad ones."""
    folder = tmp_path_factory.mktemp("caption")
    torch.manual_seed(0)
    torch.save(ImageCaptioningModel(30_522, 16, 1, 8).state_dict(), folder / "weights.bin")
    study = folder / "study"
    study.mkdir()
    draw = np.random.default_rng(0)
    for name in ("one.png", "two.jpg", "three.tif", "four.webp"):
        size = (40, 50, 3) if name != "three.tif" else (40, 50)
        Image.fromarray(draw.integers(0, 256, size, dtype=np.uint8)).save(study / name)
    (study / "text.png").write_text("not a picture\n")
    (study / "empty.png").touch()
    for name in ("CT_small", "MR_small", "MR_small_jp2klossless", "SC_rgb_rle_2frame"):
        (study / f"{name}.dcm").write_bytes((SHIPPED / f"{name}.dcm").read_bytes())
    (study / "IM0001").write_bytes((SHIPPED / "CT_small.dcm").read_bytes())
    return folder


def test_a_folder_with_everything_in_it(folder: Path) -> None:
    done = caption(folder, "weights.bin", "study", "--batch-size", "3", *FAST)
    assert done.returncode == 1
    first, *lines = done.stdout.splitlines()
    assert first == (
        "# not for diagnosis: captions of a research model, weights.bin (8 heads assumed)"
    )
    captions = dict(line.split(": ", 1) for line in lines)
    good = sorted(
        path for path in (folder / "study").iterdir() if path.name not in ("text.png", "empty.png")
    )
    assert list(captions) == [str(path.relative_to(folder)) for path in good]
    assert all(len(text) > 3 for text in captions.values())
    assert captions["study/IM0001"] == captions["study/CT_small.dcm"]
    assert sorted(done.stderr.splitlines()) == [
        "radcap: study/SC_rgb_rle_2frame.dcm: the file holds 2 frames, and the caption is of the "
        "first; --frame N chooses another, from 0",
        "radcap: study/empty.png: the file is empty",
        "radcap: study/text.png: not a picture that radcap can read",
    ]
    header = pydicom.dcmread(SHIPPED / "CT_small.dcm")
    for value in (header.PatientName, header.PatientID):
        assert str(value) not in done.stdout + done.stderr


def test_json_and_csv_say_the_same(folder: Path) -> None:
    files = ["study/two.jpg", "study/CT_small.dcm", "study/one.png"]
    done = caption(folder, "weights.bin", "--json", *files, "--beams", "3", *FAST)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["file"] for record in records] == files
    for record in records:
        assert list(record)[:6] == [
            "file",
            "caption",
            "log_probability",
            "tokens",
            "seconds",
            "note",
        ]
        assert record["note"] == "not for diagnosis"
        assert 1 <= len(record["tokens"]) <= 4
        totals = [other["log_probability"] for other in record["alternatives"]]
        assert [record["log_probability"], *totals] == sorted(
            [record["log_probability"], *totals], reverse=True
        )
    listed = "\n".join(files) + "\n"
    done = caption(folder, "weights.bin", "-", "--csv", "--beams", "3", *FAST, stdin=listed)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    for row, record in zip(rows, records, strict=True):
        assert (row["file"], row["caption"]) == (record["file"], record["caption"])
        assert row["tokens"].split(" ") == record["tokens"]
        assert float(row["log_probability"]) == pytest.approx(record["log_probability"], abs=1e-3)
        assert row["note"] == "not for diagnosis"


@pytest.mark.parametrize("trained_on", ["phantom", "hub", 7])
def test_of_a_model_that_knows_drawings_only_every_form_says_so(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    trained_on: Any,
) -> None:
    from radcap.caption import main
    from radcap.serving.note import DRAWINGS_ONLY

    shutil.copy(folder / "weights.bin", tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps({"num_heads": 8, "trained_on": trained_on}))
    words = [str(tmp_path), str(folder / "study/one.png"), *FAST]
    said = []
    for form in ([], ["--json"], ["--csv"]):
        assert main([*words, *form]) == 0
        said.append(capsys.readouterr())
    (text, as_json, as_csv) = said
    note = json.loads(as_json.out)["note"]
    assert next(csv.DictReader(io.StringIO(as_csv.out)))["note"] == note
    if trained_on == "phantom":
        assert note == f"not for diagnosis; {DRAWINGS_ONLY}"
        assert text.out.splitlines()[1] == f"# {DRAWINGS_ONLY}"
        assert as_json.err.splitlines()[1] == f"radcap: {DRAWINGS_ONLY}"
    else:
        assert note == "not for diagnosis"
        assert "drawings" not in "".join(text + as_json + as_csv)


def test_a_table_is_exact_for_a_program_and_does_not_steer_a_terminal(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from radcap.caption import main

    name = "\x1b]0;owned\x07\n|.png"
    shutil.copy(folder / "study/one.png", tmp_path / name)
    words = [str(folder / "weights.bin"), str(tmp_path / name), "--csv", *FAST]
    assert main(words) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["file"] == str(tmp_path / name)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(words) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 2 and "\\x1b]0;owned\\x07\\n|.png" in out


def test_names_that_are_no_text_and_lists_of_nothing(folder: Path, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/bad\xff\nname.png"
    Path(os.fsdecode(odd)).write_bytes((folder / "study" / "one.png").read_bytes())
    line = ["-m", "radcap.caption", "weights.bin", odd, odd + b".gone", *FAST]
    done = programs.run(line, cwd=folder, text=False)
    assert done.returncode == 1
    first, line = done.stdout.splitlines()
    assert first.startswith(b"# not for diagnosis: ")
    assert line.startswith(odd.replace(b"\n", b"\\n") + b": ")
    assert b"name.png.gone: no such file or folder\n" in done.stderr
    done = caption(folder, "weights.bin", "-", stdin="\n")
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing to caption" in done.stderr


def test_nobody_reads_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from radcap.caption import main

    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.chdir(folder)
    with os.fdopen(writing, "w") as nobody:
        monkeypatch.setattr(sys, "stdout", nobody)
        status = main(["weights.bin", "study/one.png", *FAST])
    assert status == 128 + signal.SIGPIPE
    assert capsys.readouterr().err == ""


def test_a_fault_is_told_when_it_is_met(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from radcap.caption import main
    from radcap.serving.captioner import Captioner

    said = []
    describe = Captioner.describe

    def telling(captioner: Captioner, *args: Any, **options: Any) -> Any:
        said.append(capsys.readouterr().err)
        return describe(captioner, *args, **options)

    monkeypatch.setattr(Captioner, "describe", telling)
    monkeypatch.chdir(folder)
    words = ("study/empty.png", "study/one.png", "study/two.jpg", "study/text.png")
    assert main(["weights.bin", *words, "--batch-size", "1", *FAST]) == 1
    assert said == ["radcap: study/empty.png: the file is empty\n", ""]
    assert capsys.readouterr().err.startswith("radcap: study/text.png: not a picture")


def test_frames_and_faults_of_single_ones(folder: Path) -> None:
    two, one = "study/SC_rgb_rle_2frame.dcm", "study/one.png"
    done = caption(folder, "weights.bin", two, one, "gone.png", "--frame", "1", *FAST)
    assert done.returncode == 1
    assert [line.split(":")[0] for line in done.stdout.splitlines()[1:]] == [two]
    assert f"radcap: {one}: no frame 1: there is a single one, 0" in done.stderr
    assert "frames" not in done.stderr.replace("no frame 1", "")
    assert "radcap: gone.png: no such file or folder" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "the following arguments are required: weights, files"),
        (("weights.bin",), "the following arguments are required: files"),
        (("weights.bin", "a.png", "--beams", "0"), "--beams 0: from 1 to 64"),
        (("weights.bin", "a.png", "--max-len", "2001"), "--max-len 2001: from 1 to 2000"),
        (("weights.bin", "a.png", "--batch-size", "-3"), "--batch-size -3: from 1 to"),
        (("weights.bin", "a.png", "--frame", "-1"), "--frame -1: from 0"),
        (("weights.bin", "a.png", "--beams", "two"), "argument --beams: invalid int value: 'two'"),
        (("weights.bin", "a.png", "--device", "gpu"), "invalid choice: 'gpu'"),
        (("weights.bin", "a.png", "--device", "gpu"), "did you mean cuda?"),
        (("weights.bin", "a.png", "--device", "mps"), "Apple's GPU"),
        (("weights.bin", "a.png", "--precision", "int8"), "int8 is no more, use bf16"),
        (("weights.bin", "a.png", "--precision", "fp16"), "there are fp32 and bf16"),
        (("weights.bin", "a.png", "--json", "--csv"), "not allowed with argument"),
        (("weights.bin", "a.png", "--jsn"), "unrecognized arguments: --jsn"),
    ],
)
def test_wrong_words_are_refused(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from radcap.caption import read_options
    from radcap.errors import ConfigError

    with pytest.raises(ConfigError) as caught:
        read_options(words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_there_end_in_a_line(folder: Path) -> None:
    for source, status in [("none.bin", 1), ("some/model", 1), ("study", 1)]:
        done = caption(folder, source, "study/one.png", *FAST)
        assert (done.returncode, done.stdout) == (status, "")
        assert done.stderr.count("\n") == 1
        assert source in done.stderr
    done = caption(folder, "weights.bin", "a.png", "--max-len", "0")
    assert done.returncode == 2


def test_two_wrong_paths_are_both_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from radcap.caption import main

    (tmp_path / "runs").mkdir()
    (tmp_path / "scan.PNG").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    for weights, said in (
        ("run=runs", "radcap: run=runs: no such file or folder; write runs alone"),
        ("scan.PNG", "radcap: scan.PNG: a picture; the weights come before it"),
        ("weights.bin", "radcap: weights.bin: no such file or folder"),
        ("runs/typo", "radcap: runs/typo: no such file or folder; for a model of the Hub of that"),
        ("weights\nbin", "radcap: weights\\nbin: no such file or folder"),
    ):
        assert main([weights, "gone.png", "more/*.dcm"]) == 1
        out, err = capsys.readouterr()
        lines = err.splitlines()
        assert out == "" and len(lines) == 3
        assert lines[0].startswith(said)
        assert lines[1:] == [
            "radcap: gone.png: no such file or folder", "radcap: more/*.dcm: no file matches"
        ]  # fmt: skip
    # It may be the name of a model of the Hub, which nobody asks where there is nothing to caption.
    assert main(["someone/model", "gone.png"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "radcap: gone.png: no such file or folder",
        "radcap: someone/model: no such file or folder; on the Hub it was not looked for",
    ]


def test_weights_of_the_hub_by_its_address_and_token(folder: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "pytorch_model.bin").write_bytes((folder / "weights.bin").read_bytes())
    (repository / "config.json").write_text('{"num_heads": 4}')
    with serving(repository, "some/model", is_model=True) as hub:
        done = caption(
            folder,
            "some/model",
            "study/one.png",
            *FAST,
            HF_ENDPOINT=hub.endpoint,
            HF_HOME=str(tmp_path / "home"),
            HF_TOKEN="hf_secret",
        )
        assert done.returncode == 0, done.stderr
        assert hub.token == "Bearer hf_secret"
    first, line = done.stdout.splitlines()
    assert first.endswith(f"a research model, Hub some/model at {hub.commit}")
    assert line.startswith("study/one.png: ")
