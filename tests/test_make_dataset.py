"""scripts/make_dataset.py: a user's own pictures become a data set that trains."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
from command_line import run_interpreter
from dicom_files import dicom
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from radcap.data.image.decode import decode_image
from radcap.data.labels import Labels
from radcap.data.open import open_source
from radcap.data.records import Example, parse_row
from radcap.serving.pictures import read_frame, read_picture

SCRIPT = Path(__file__).parent.parent / "scripts" / "make_dataset.py"
SECRET = "SECRET-7"


def make(*words: object) -> subprocess.CompletedProcess[str]:
    return programs.run([SCRIPT, *map(str, words)])


def noise(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (40, 30), np.uint8)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    for number in range(12):
        Image.fromarray(noise(number)).save(folder / "sub" / f"{number}.png")
    return folder


def table(folder: Path, lines: list[str], header: str = "file,caption,modality") -> Path:
    path = folder.parent / "captions.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def examples(out: Path, split: str) -> list[Example]:
    source = open_source(split=split, path=str(out), config="alignment")
    rows = (row for group in range(len(source.row_groups)) for row in source.read(group))
    return [example for row in rows if isinstance(example := parse_row(row), Example)]


def captions(out: Path, split: str) -> list[str]:
    return [example.caption for example in examples(out, split)]


def outcome(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text())


def everything_in(folder: Path) -> bytes:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return b"".join(str(file).encode() + file.read_bytes() for file in files)


def test_every_good_row_arrives_and_every_other_is_named(pictures: Path, tmp_path: Path) -> None:
    (pictures / "broken.png").write_bytes(b"no picture")
    (pictures / "twin.png").write_bytes((pictures / "sub" / "0.png").read_bytes())
    (pictures / "unlisted.png").write_bytes((pictures / "sub" / "1.png").read_bytes())
    lines = [f"sub/{n}.png,picture number {n},{'ct' if n % 2 else 'mri'}" for n in range(11)]
    lines += ["sub/11.png,  ,ct", "gone.png,a,ct", "broken.png,b,ct", "twin.png,c,ct"]
    lines += ["../captions.csv,d,ct"]
    done = make(pictures, table(pictures, lines), tmp_path / "out", "--rows-per-group", 4)
    assert done.returncode == 0, done.stderr
    found = captions(tmp_path / "out", "train") + captions(tmp_path / "out", "val")
    assert sorted(found) == sorted(f"picture number {n}" for n in range(11))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    reasons = {item["file"]: item["reason"] for item in report["left_out"]}
    assert reasons == {
        "sub/11.png": "no caption",
        "gone.png": "cannot be read: No such file or directory",
        "broken.png": "undecodable",
        "twin.png": "duplicate of an earlier picture",
        "../captions.csv": "outside of the folder",
    }
    assert report["pictures_without_a_row"] == ["unlisted.png"]
    assert report["rows"]["val"] >= 1
    source = open_source(split="train", path=str(tmp_path / "out"), config="alignment")
    assert max(group.num_rows for group in source.row_groups) <= 4


def test_what_is_validated_on_does_not_move(pictures: Path, tmp_path: Path) -> None:
    lines = [f"sub/{n}.png,picture {n}," for n in range(12)]
    make(pictures, table(pictures, lines[:11]), tmp_path / "some", "--val-fraction", 0.4)
    make(pictures, table(pictures, lines), tmp_path / "all", "--val-fraction", 0.4)
    assert set(captions(tmp_path / "some", "val")) <= set(captions(tmp_path / "all", "val"))
    assert set(captions(tmp_path / "some", "train")) <= set(captions(tmp_path / "all", "train"))


def test_tables_as_people_have_them(pictures: Path, tmp_path: Path) -> None:
    """A byte order mark, semicolons, capitals in the header and further columns."""
    path = table(pictures, ["sub/1.png;x;a knee, seen from aside"], "File;Note;CAPTION")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    done = make(pictures, path, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert captions(tmp_path / "out", "train") == ["a knee, seen from aside"]
    assert "no validation split" in done.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sub/1.png,a knee, left side\nsub/2.png,x\n", r"line 2 has 3 fields, the header 2: "),
        ("sub/1.png\n", r"line 2 has 1 field, the header 2"),
        ('sub/1.png,"a knee\nsub/2.png,x\n', r"line 2: a quotation mark is opened and never"),
        ('sub/1.png,"a knee\nsub/2.png,4"\n', r"line 2: .* before line 3, which looks like"),
        ("sub/1.png,x\nsub\0/2.png,y\n", r"line 3 holds a NUL character"),
    ],
)
def test_a_row_that_is_none_ends_it_with_its_line(
    pictures: Path, tmp_path: Path, text: str, message: str
) -> None:
    path = table(pictures, [])
    path.write_text("file,caption\n" + text)
    done = make(pictures, path, tmp_path / "out")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "out").exists()
    assert re.search(message, done.stderr), done.stderr


def test_line_breaks_of_unicode_are_blanks_of_a_caption(pictures: Path, tmp_path: Path) -> None:
    chars = "\u2028\u2029\x85\x0b\x0c\x1c"
    lines = [f"sub/{n}.png,a knee{char}from aside {n},mri" for n, char in enumerate(chars)]
    assert make(pictures, table(pictures, lines), tmp_path / "out").returncode == 0
    found = captions(tmp_path / "out", "train") + captions(tmp_path / "out", "val")
    assert sorted(found) == [f"a knee from aside {n}" for n in range(len(chars))]


def test_names_that_lead_nowhere_cost_their_row_alone(pictures: Path, tmp_path: Path) -> None:
    (pictures / "loop.png").symlink_to("loop.png")
    (pictures / "round").symlink_to(".")
    names = {
        "loop.png": "cannot be read: Too many levels of symbolic links",
        "x" * 300 + ".png": "cannot be read: File name too long",
        "/etc/passwd": "outside of the folder",
        "sub/7.png/x.png": "cannot be read: Not a directory",
    }
    lines = [f"{name},x,ct" for name in names] + ["sub\\1.png,as on windows,", "round/sub/2.png,y,"]
    done = make(pictures, table(pictures, lines), tmp_path / "out", "--val-fraction", 0)
    assert done.returncode == 0, done.stderr
    assert sorted(captions(tmp_path / "out", "train")) == ["as on windows", "y"]
    left_out = {item["file"]: item["reason"] for item in outcome(tmp_path / "out")["left_out"]}
    assert left_out == names
    assert [item["line"] for item in outcome(tmp_path / "out")["left_out"]] == [2, 3, 4, 5]


def test_columns_of_other_names(pictures: Path, tmp_path: Path) -> None:
    path = table(pictures, ["sub/1.png,a knee", "sub/2.png,a hip"], "image path,report text")
    done = make(pictures, path, tmp_path / "out")
    assert done.returncode == 2
    assert "no column file and caption; there are image path, report text; --column" in done.stderr
    words = ("--column", "file=Image_Path", "--column", "caption=report text")
    assert make(pictures, path, tmp_path / "out", *words).returncode == 0
    found = captions(tmp_path / "out", "train") + captions(tmp_path / "out", "val")
    assert sorted(found) == ["a hip", "a knee"]


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """PICTURES/N/series/0 and 1, DICOM files without a suffix, of four patients, N their study."""
    folder = tmp_path / "studies"
    for number in range(8):
        for image in range(2):
            file = folder / str(number) / "series" / str(image)
            file.parent.mkdir(parents=True, exist_ok=True)
            header = {"PatientID": f"{SECRET}-{number % 4}", "PatientName": "Doe^Jane"}
            header |= {"StudyInstanceUID": f"1.2.{number}", "StudyDescription": "MR KNEE OF DOE"}
            header |= {"Modality": "MR", "BodyPartExamined": "KNEE"}
            header["BurnedInAnnotation"] = "YES" if number == 3 else "NO"
            file.write_bytes(dicom(16 * noise(10 * number + image).astype(np.uint16), **header))
    return folder


def test_folders_of_dicom_files_by_patient(studies: Path, tmp_path: Path) -> None:
    path, out = table(studies, [f"{n},study {n}" for n in range(8)], "file,caption"), tmp_path / "o"
    done = make(studies, path, out, "--val-list", tmp_path / "val.txt")
    assert done.returncode == 0, done.stderr
    train, val = (examples(out, split) for split in ("train", "val"))
    assert len(train) + len(val) == 16
    patients = [{int(e.caption.split()[1]) % 4 for e in part} for part in (train, val)]
    assert patients[1] and patients[0] and not patients[0] & patients[1]
    assert f"split by patient: {len(patients[0])} in training, " in done.stdout
    # What is trained on is what radcap.caption sees of the file.
    listed = (tmp_path / "val.txt").read_text().splitlines()
    seen = {decode_image(example.image).tobytes() for example in val}
    assert seen == {read_picture(file).tobytes() for file in listed}
    assert len(listed) == len(val)
    # Of the header nothing is left.
    for word in (SECRET, "Doe", "DOE", "1.2.", "KNEE"):
        assert word.encode() not in everything_in(out), word
        assert word not in done.stdout + done.stderr
    assert all(example.labels == Labels() for example in train + val)
    assert "2 DICOM files say that text" in done.stderr
    assert outcome(out)["burned_in_annotation"] == ["3/series/0", "3/series/1"]


def test_of_a_header_comes_what_is_asked_for_by_name(studies: Path, tmp_path: Path) -> None:
    lines = [f"{n},,{'ct' if n == 7 else ''}" for n in range(8)]
    path, out = table(studies, lines, "file,caption,modality"), tmp_path / "out"
    words = [("--header", word) for word in ("modality=Modality", "caption=BodyPartExamined")]
    done = make(studies, path, out, *sum(words, ()))
    assert done.returncode == 0, done.stderr
    found = examples(out, "train") + examples(out, "val")
    assert {example.caption for example in found} == {"KNEE"}
    assert sorted(str(example.labels.modality) for example in found) == ["ct"] * 2 + ["mri"] * 14
    assert b"OF DOE" not in everything_in(out)
    for word, message in (
        ("modality=PatientName", "says who a person is"),
        ("caption=Nothing", "no keyword of DICOM"),
        ("patient=Modality", "NAME one of caption, modality"),
    ):
        done = make(studies, path, out, "--force", "--header", word)
        assert done.returncode == 2 and message in done.stderr


def test_a_frame_of_several(studies: Path, tmp_path: Path) -> None:
    frames = np.stack([noise(50), noise(51), noise(52)]).astype(np.uint16)
    (studies / "many.dcm").write_bytes(dicom(frames, NumberOfFrames=3))
    words = (tmp_path / "out", "--val-fraction", 0)
    done = make(studies, table(studies, ["many.dcm,x"], "file,caption"), *words)
    assert "several frames, of which the first is taken: 1 (column frame)" in done.stdout
    lines = ["many.dcm,two,2", "many.dcm,zero,0", "many.dcm,none,3", "0/series/0,a,x"]
    done = make(studies, table(studies, lines, "file,caption,frame"), *words, "--force")
    assert "several frames" not in done.stdout
    pixels = {e.caption: decode_image(e.image).tobytes() for e in examples(words[0], "train")}
    file = studies / "many.dcm"
    assert pixels == {
        name: read_frame(file, frame=frame).pixels.tobytes()
        for name, frame in (("two", 2), ("zero", 0))
    }
    reasons = [item["reason"] for item in outcome(words[0])["left_out"]]
    assert reasons == ["no frame 3: the frames are 0 to 2", "frame is no number"]


def test_a_column_of_patients_wins(pictures: Path, tmp_path: Path) -> None:
    lines = [f"sub/{n}.png,picture {n},{SECRET}-{n % 3}" for n in range(12)]
    path, out = table(pictures, lines, "file,caption,Patient ID"), tmp_path / "out"
    done = make(pictures, path, out)
    assert done.returncode == 0, done.stderr
    patients = [
        {int(text.split()[1]) % 3 for text in captions(out, split)} for split in ("train", "val")
    ]
    assert [len(part) for part in patients] == [2, 1] and not patients[0] & patients[1]
    assert SECRET.encode() not in everything_in(out) and SECRET not in done.stdout


def test_pictures_of_one_patient_are_still_split(studies: Path, tmp_path: Path) -> None:
    lines = [f"{n},{n},one" for n in range(3)]
    done = make(studies, table(studies, lines, "file,caption,patient"), tmp_path / "out")
    assert "split by study: all are of one patient" in done.stdout
    assert len(set(captions(tmp_path / "out", "val"))) == 1
    assert len(captions(tmp_path / "out", "train")) == 4


@pytest.mark.parametrize("count", [2, 3, 9])
def test_few_pictures_have_a_validation_split(pictures: Path, tmp_path: Path, count: int) -> None:
    lines = [f"sub/{n}.png,picture {n}," for n in range(count)]
    done = make(pictures, table(pictures, lines), tmp_path / "out")
    rows = outcome(tmp_path / "out")["rows"]
    assert rows["val"] >= 1 and rows["train"] >= 1 and sum(rows.values()) == count
    assert "split by picture: neither a column patient nor DICOM headers tell" in done.stdout


SPACE = runpy.run_path(str(SCRIPT))


def entry(patient: str, number: int) -> Any:
    content = SPACE["hashed"](f"{patient} {number}")
    who = SPACE["hashed"](patient)
    return SPACE["Entry"](content, 0, content, content, who, None, patient, Labels())


def split(patients: Mapping[str, int], seed: int = 0, fraction: float = 0.2) -> dict[str, str]:
    """Patient -> split."""
    entries = [entry(name, n) for name, count in patients.items() for n in range(count)]
    groups, kind = SPACE["_groups"](entries)
    assert kind == "patient"
    splits = SPACE["_split"](entries, groups, fraction, seed)
    found = {(e.caption, name) for name, part in splits.items() for e in part}
    assert len(found) == len(patients), "a patient in both"
    return dict(found)


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(1, 4), min_size=2, max_size=40),
    more=st.lists(st.integers(1, 4), max_size=20),
    seed=st.integers(0, 99),
)
def test_patients_stay_where_they_are(counts: list[int], more: list[int], seed: int) -> None:
    before = {f"p{n}": count for n, count in enumerate(counts)}
    found = split(before, seed)
    assert set(found.values()) == {"train", "val"}
    assert split({name: 2 * count for name, count in before.items()}, seed) == found
    after = split(before | {f"q{n}": count for n, count in enumerate(more)}, seed)
    assert {name for name in before if found[name] != after[name]} <= {
        name for name in before if list(found.values()).count(found[name]) == 1
    }


def test_another_seed_holds_out_others() -> None:
    patients = {f"p{n}": 1 for n in range(400)}
    held_out = [{n for n, s in split(patients, seed).items() if s == "val"} for seed in range(4)]
    assert all(50 < len(part) < 110 for part in held_out)
    assert not held_out[0] & held_out[1]
    assert len(set.union(*held_out)) > 200


def test_long_captions_over_several_lines(pictures: Path, tmp_path: Path) -> None:
    long = "word " * 40_000
    lines = ['sub/1.png,"a knee,\nseen from aside",ct', f"sub/2.png,{long},ct"]
    done = make(pictures, table(pictures, lines), tmp_path / "out", "--val-fraction", 0)
    assert done.returncode == 0, done.stderr
    assert sorted(captions(tmp_path / "out", "train")) == ["a knee, seen from aside", long.strip()]


def test_a_small_set_still_has_places_to_draw_from(pictures: Path, tmp_path: Path) -> None:
    lines = [f"sub/{n}.png,picture {n}," for n in range(12)]
    make(pictures, table(pictures, lines), tmp_path / "out", "--val-fraction", 0)
    source = open_source(split="train", path=str(tmp_path / "out"), config="alignment")
    assert len(source.row_groups) >= 8


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ("file in the way", 2, "a file is in the way"),
        ("no folder", 2, "no such folder"),
        ("no table", 2, "No such file"),
        ("no column", 2, "no column caption"),
        ("pipe for a table", 2, "neither a file nor a folder"),
        ("pipe for a picture", 1, "no usable picture"),
        ("not empty", 2, "--force"),
        ("nothing usable", 1, "no usable picture"),
        ("nowhere to write", 1, "OUT "),
        ("column twice", 2, "--column file: given twice"),
        ("column of no name", 2, "--column x=y: give NAME=VALUE"),
        ("column that is not there", 2, "has no such column; there are file, caption, modality"),
        ("unknown option", 2, "--help lists"),
    ],
)
def test_mistakes_are_told_in_one_line(
    pictures: Path, tmp_path: Path, change: str, status: int, message: str
) -> None:
    path, out = table(pictures, ["sub/1.png,x,ct"]), tmp_path / "out"
    if change == "no folder":
        pictures = tmp_path / "absent"
    elif change == "no table":
        path = tmp_path / "absent.csv"
    elif change == "pipe for a table":
        path.unlink()
        os.mkfifo(path)
    elif change == "pipe for a picture":
        path.write_text("file,caption\npipe.png,x\n")
        os.mkfifo(pictures / "pipe.png")
    elif change == "no column":
        path.write_text("file,text\na,b\n")
    elif change == "file in the way":
        out.write_text("mine")
    elif change == "not empty":
        out.mkdir()
        (out / "mine.txt").write_text("x")
    elif change == "nowhere to write":
        out = path / "out"
    elif change == "nothing usable":
        path.write_text("file,caption\nabsent.png,x\n")
    words = {
        "column twice": ["--column", "file=a", "--column", "file=b"],
        "column of no name": ["--column", "x=y"],
        "column that is not there": ["--column", "file=y"],
        "unknown option": ["--vall-list", "y"],
    }
    done = make(pictures, path, out, *words.get(change, []))
    assert done.returncode == status
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_help_is_quick_and_loads_no_torch() -> None:
    done = run_interpreter("-X", "importtime", SCRIPT, "--help")
    assert done.returncode == 0
    assert "data.path=my_data" in done.stdout
    assert not [line for line in done.stderr.splitlines() if line.endswith("| torch")]
