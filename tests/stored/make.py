"""Write a small run, checkpoint and export of one commit, for later commits to read.

    cd CHECKOUT_OF_THE_COMMIT && PYTHONPATH=. python .../tests/stored/make.py COMMIT

All files are written by the code of that commit. Large weights and moments are then filled by a
formula and saved by the same code, so that they compress; README.md says what is left out.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from radcap.training.run.checkpoint import (
    list_checkpoints,
    load_checkpoint,
    prune,
    save_checkpoint,
)

WORDS = (
    "+experiment=smoke",
    "model.embed_dim=8",
    "model.num_heads=2",
    "data.path=data",
    "data.batch_size=4",
    "runtime=cpu",
    "runtime.precision=fp32",
    "runtime.threads=1",
    "trainer.eval_every=null",
    "trainer.save_every=null",
    "trainer.caption_rows=0",
    "trainer.samples=0",
    "logger.tensorboard=false",
)
RUN = Path("runs/smoke")
STEPS, MORE = 4, 6
LEFT_OUT = ("tokenizer.json", "vocab.txt", "encode.pt2", "decode_step.pt2")
_PERIOD = 251
_KEPT = 100  # numbers of a tensor that stays as it was trained
_CAPTIONS = ("mri of the knee with a meniscal tear", "chest radiograph without findings")


def filled(tensor: Tensor, scale: float) -> Tensor:
    """A tensor of the same shape, of a few values in turn, mean 0."""
    if tensor.numel() <= _KEPT or not tensor.is_floating_point():
        return tensor
    index = torch.arange(tensor.numel(), dtype=torch.int64)
    values = (index * 97 % _PERIOD).float() / (_PERIOD // 2) - 1
    return (scale * values).view(tensor.shape)


def fill(checkpoint: Path) -> None:
    """Rewrite a checkpoint with weights and moments by the formula."""
    found = load_checkpoint(checkpoint)
    model = {
        name: filled(t, float(t.std())) if t.ndim > 1 or name == "fc_out.bias" else t
        for name, t in found.model.items()
    }
    optimizer = dict(found.optimizer)
    scales = {"exp_avg": 1e-4, "exp_avg_sq": 1e-6}
    for state in optimizer["state"].values():
        for name, scale in scales.items():
            moment = filled(state[name], scale)
            state[name] = moment.abs() if name == "exp_avg_sq" else moment
    save_checkpoint(checkpoint.parent, dataclasses.replace(found, model=model, optimizer=optimizer))
    prune(checkpoint.parent, keep=1, best_step=None)  # the one before is in the same folder


def command(name: str, *words: str) -> str:
    """Run one of the commit's commands; what it said."""
    done = subprocess.run(
        [sys.executable, *name.split(), *words],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    return done.stdout


def draw(folder: Path) -> None:
    """Twelve small pictures and their captions."""
    folder.mkdir()
    lines = ["file,caption,modality,location,pathology"]
    for number in range(12):
        pixels = np.full((32, 32), 20 * number, np.uint8)
        pixels[number : number + 8, 8:16] = 255
        Image.fromarray(pixels).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{_CAPTIONS[number % 2]} {number},mri,knee,tear")
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")


def expectations(home: Path) -> dict[str, object]:
    """What the commit itself does with the files, on a copy of them."""
    copy = home / "copy"
    for name in ("data", "runs", "pictures"):
        shutil.copytree(home / name, copy / name)
    os.chdir(copy)
    caption = command("-m radcap.caption", str(RUN), "pictures/0.png", "--json")
    command("-m radcap.evaluate", f"run={RUN}", "evaluate.captions=0", "runtime=cpu")
    (results,) = RUN.glob("evaluation/*/results.json")
    command("-m radcap.train", *WORDS, f"trainer.max_steps={MORE}")
    lines = (RUN / "metrics.jsonl").read_text().splitlines()
    os.chdir(home)
    record = json.loads(caption)
    return {
        "losses": {str(r["step"]): r["loss"] for r in map(json.loads, lines)},
        "results": json.loads((copy / results).read_text()),
        "caption": {name: record[name] for name in ("caption", "log_probability")},
    }


def main(commit: str, source: Path, out: Path) -> None:
    """Make all of it in a folder of its own, and pack it.

    Args:
        commit: its name, which the file gets.
        source: the checkout of the commit.
        out: folder of the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        os.chdir(home)
        draw(Path("pictures"))
        script = str(source / "scripts" / "make_dataset.py")
        words = ("pictures", "pictures/captions.csv", "data")
        command(script, *words, "--val-fraction=0.34", "--rows-per-group=2")
        command("-m radcap.train", *WORDS, f"trainer.max_steps={STEPS}")
        (checkpoint,) = list_checkpoints(RUN / "checkpoints")
        fill(checkpoint)
        command("-m radcap.export", str(RUN), "exported")
        for name in LEFT_OUT:
            (Path("exported") / name).unlink()
        expected = json.dumps(expectations(home), indent=1)
        Path("expected.json").write_text(expected + "\n")
        target = out / f"{commit}.tar.xz"
        with tarfile.open(target, "w:xz", preset=9) as archive:
            for name in ("expected.json", "data", "exported", "pictures/0.png", "runs"):
                archive.add(name)
        print(f"{target}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1], Path.cwd(), Path(__file__).resolve().parent)
