"""The recorded programs are the trainer's own."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from command_line import run_python, train
from programs import QUICK_XLA

from radcap.aot.chips import find_topology
from radcap.aot.hlo import fingerprint
from radcap.aot.jobs import lower
from radcap.config.compose import compose

RECORD = Path(__file__).with_name("train_step.json")
RENEW = "RADCAP_RENEW"


def record(folder: Path, *words: str, topology: str = "v3-8") -> dict[str, Any]:
    """Name of a program -> its StableHLO as `text`, and its notes."""
    folder.mkdir()
    config = compose(words)
    batch_size = config.data.batch_size
    lower(config, find_topology(topology), [batch_size], folder)
    programs = {}
    for file in folder.glob("*.bytecode"):
        code = "import sys; from pathlib import Path; from radcap.aot.compile import *; "
        code += "print(stablehlo_text(Path(sys.argv[1]).read_bytes()))"
        done = run_python(code, file, JAX_PLATFORMS="cpu")
        assert done.returncode == 0, done.stderr
        notes = json.loads(file.with_suffix(".json").read_text())
        programs[file.stem.partition("-")[2]] = {"text": done.stdout, **notes}
    return programs


def operations(text: str) -> dict[str, int]:
    return dict(sorted(Counter(re.findall(r' = "?stablehlo\.(\w+)', text)).items()))


@pytest.mark.slow
def test_the_step_of_epoch1_is_unchanged(tmp_path: Path) -> None:
    """Refactoring must not change what the TPU is given; who means to change it renews the record:

    RADCAP_RENEW=1 python -m pytest tests/aot/test_lower.py -k epoch1
    """
    text = record(tmp_path / "a", "+experiment=epoch1")["train"]["text"]
    found = {"fingerprint": fingerprint(text), "operations": operations(text)}
    if os.environ.get(RENEW) == "1":
        RECORD.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(RECORD.read_text())


@pytest.mark.slow
def test_the_learning_rate_is_no_part_of_the_program_and_dropout_is(tmp_path: Path) -> None:
    prints = [
        fingerprint(record(tmp_path / str(i), "+experiment=smoke", word)["train"]["text"])
        for i, word in enumerate(["optimizer.lr=1e-4", "optimizer.lr=3e-3", "model.dropout=0"])
    ]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.slow
def test_the_recorded_step_is_the_one_that_the_trainer_compiles(
    tmp_path: Path, cache: Path
) -> None:
    """XLA writes down what a real run gives it: the same results, donors, shards and work."""
    dump = tmp_path / "dump"
    words = ["+experiment=smoke", "trainer.max_steps=2", "trainer.caption_rows=0"]
    words += ["trainer.samples=0", "runtime=xla_cpu", "runtime.devices=2"]
    flags = f"{QUICK_XLA['XLA_FLAGS']} --xla_dump_to={dump} --xla_dump_hlo_as_text"
    done = train(tmp_path, cache, *words, XLA_FLAGS=flags)
    assert done.returncode == 0, done.stderr
    files = list(dump.glob("*.before_optimizations.txt"))
    real = max(files, key=lambda file: file.stat().st_size).read_text()
    entry = real[real.index("\nENTRY") :]

    # v5e:1x2 has as many devices as the run; in float32, as the run.
    words = ["+experiment=smoke", "runtime.precision=fp32"]
    traced = record(tmp_path / "traced", *words, topology="v5e:1x2")["train"]
    text = traced["text"]
    results = re.search(r"ROOT \S+ = \((.*?)\) tuple", entry)
    assert results is not None
    returned = re.search(r"func\.func @main\(.*\) -> \((.*)\) \{", text)
    assert returned is not None
    assert Counter(shapes_of_hlo(results[1])) == Counter(shapes_of_mlir(returned[1]))
    donors = re.search(r"buffer_donor=\{(.*?) \}, ", real)
    assert donors is not None
    assert len(re.findall(r"\(\d+, \{\}\)", donors[1])) == len(traced["aliases"])
    sharded = re.findall(r"parameter\(\d+\), sharding=\{devices=\[2", entry)
    assert len(sharded) == sum(traced["sharded"]) == 2
    assert len(re.findall(r" parameter\(\d+\)", entry)) == len(traced["sharded"])
    found = operations(text)
    for in_hlo, in_mlir in (
        ("dot", "dot_general"),
        ("rng-bit-generator", "rng_bit_generator"),
        ("exponential", "exponential"),
        ("sqrt", "sqrt"),
        ("rsqrt", "rsqrt"),
        ("scatter", "scatter"),
        ("gather", "gather"),
    ):
        assert len(re.findall(rf" {in_hlo}\(", real)) == found.get(in_mlir, 0), in_hlo
    # The gradient of the images, which nobody asks for: StableHLO drops what has no use.
    assert len(re.findall(r" convolution\(", real)) == found["convolution"] + 1


def shapes_of_hlo(text: str) -> list[str]:
    """`f32[3,4]{1,0}` -> `f32 3x4`."""
    return [f"{kind} {sizes.replace(',', 'x')}" for kind, sizes in re.findall(ARRAY, text)]


ARRAY = r"([a-z]+\d+)\[([\d,]*)\]"


def shapes_of_mlir(text: str) -> list[str]:
    """`tensor<3x4xf32>` -> `f32 3x4`."""
    kinds = {"i64": "s64", "i32": "s32"}
    found = []
    for inner in re.findall(r"tensor<([^>]*)>", text):
        *sizes, kind = inner.split("x")
        found.append(f"{kinds.get(kind, kind)} {'x'.join(sizes)}")
    return found


@pytest.mark.slow
def test_captions_are_two_programs_and_the_second_goes_on_in_place(tmp_path: Path) -> None:
    programs = record(tmp_path / "a", "+experiment=smoke", "preflight.graph=generate")
    assert set(programs) == {"start", "token"}
    token = programs["token"]
    # One layer: its cache's keys and values, and the words written.
    assert len(token["aliases"]) == 3
    # These, the memory's keys and values, the newest ids, lengths, log-probabilities and ends: all
    # but the position.
    assert sum(token["sharded"]) == 3 + 2 + 4
