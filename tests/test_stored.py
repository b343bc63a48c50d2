"""What earlier commits wrote: later ones resume, score, caption with and export it."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from command_line import environment, metrics, summary

STORED = Path(__file__).parent / "stored"
sys.path.insert(0, str(STORED))
from make import MORE, RUN, STEPS, WORDS  # noqa: E402

# In one process, whose imports take longer than all of the work.
PROGRAM = """
import json, sys
from importlib import import_module
for name, words in json.loads(sys.argv[1]):
    status = import_module(f"radcap.{name}").main(words)
    assert not status, (name, words, status)
"""
CHECKPOINT = RUN / "checkpoints" / f"step-{STEPS}"


def scored(folder: Path) -> float:
    results = json.loads((folder / "results.json").read_text())
    return results["scores"]["loss"]["value"]


@pytest.mark.parametrize("archive", sorted(STORED.glob("*.tar.xz")), ids=lambda file: file.name)
def test_it_is_still_read(tmp_path: Path, archive: Path) -> None:
    assert archive.stat().st_size < 1_000_000
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    expected: dict[str, Any] = json.loads((tmp_path / "expected.json").read_text())
    sources = [str(RUN), str(CHECKPOINT), "exported", "exported/pytorch_model.bin"]
    cpu = ("runtime=cpu", "runtime.threads=1")
    commands: list[tuple[str, list[str]]] = [
        *(("caption", [source, "pictures/0.png", "--json"]) for source in sources),
        ("evaluate", [f"run={RUN}", "evaluate.captions=0", "evaluate.out=scored/run", *cpu]),
        (
            "evaluate",
            [
                f"run={RUN}",
                "evaluate.weights=exported",
                "evaluate.captions=0",
                "evaluate.out=scored/export",
                *cpu,
            ],
        ),
        ("export", [str(RUN), "again"]),
        ("train", [*WORDS, f"trainer.max_steps={MORE}"]),
    ]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands)],
        cwd=tmp_path,
        env=environment(tmp_path / "cache"),
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    captions = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(captions) == len(sources)
    for caption in captions:
        assert caption["caption"] == expected["caption"]["caption"]
        assert caption["log_probability"] == pytest.approx(
            expected["caption"]["log_probability"], rel=1e-3
        )
    loss = expected["results"]["scores"]["loss"]["value"]
    for name in ("run", "export"):
        assert scored(tmp_path / "scored" / name) == pytest.approx(loss, rel=1e-4)
    stored = safetensors.torch.load_file(tmp_path / CHECKPOINT / "model.safetensors")
    again = safetensors.torch.load_file(tmp_path / "again" / "model.safetensors")
    assert stored.keys() == again.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in stored.items())
    assert summary(tmp_path / RUN)["resumed_from"] == STEPS
    losses = {str(record["step"]): record["loss"] for record in metrics(tmp_path / RUN)}
    assert losses == pytest.approx(expected["losses"], rel=1e-4)
