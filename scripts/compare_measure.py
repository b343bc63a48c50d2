"""Measures one commit by its public commands:

    compare_measure.py CHECKOUT OUT CORES NAME STAGE ...

OUT becomes a folder with measured.npz, arrays by `PART|WHAT`, and lacks.json, what could not be
measured: a line for each stage. CORES, such as 0,1, are those to run on, a thread each. NAME is
what the commit is called in what is printed. Run by scripts/compare_commits.py, in a process of its
own. All knowledge of radcap is here: its commands, its options, the files of a run folder
and of the phantom data set.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import safetensors.numpy
from PIL import Image

_HERE = Path(__file__).parent
_STEPS, _STEPS_WITH_DROPOUT, _STEPS_ON_DEVICES = 50, 20, 5
_PHANTOM = ("data=phantom", "data.phantom.train_rows=640", "data.phantom.val_rows=40")
_SHORT = (
    *("trainer.eval_every=null", "trainer.caption_rows=0", "trainer.samples=0"),
    "logger.tensorboard=false",
)
_TINY = ("model=tiny", *_PHANTOM, *_SHORT)
# Two lanes of four row groups each and small windows, so that every rule of the order has a say; 21
# steps are an epoch's 20 and the first of the next.
_FEED = ("data.batch_size=32", "data.workers=0", "data.lanes=2", "data.window_gb=0.002")
_FEED = (*_FEED, "schedule=constant", "trainer.max_steps=21", *_TINY)
_FEED_EPOCH = 640
_DROPOUT = ("model.dropout=0.1", "optimizer.clip_norm=1", "optimizer.weight_decay=0.01")
_DROPOUT = (*_DROPOUT, "trainer.accumulate=2")
_PICTURES = 16

Arrays = dict[str, np.ndarray]


class Lacking(Exception):
    """The commit cannot do a stage; the message says why."""


class Measurement:
    """Stages of one commit, each a method that returns its arrays."""

    def __init__(self, checkout: Path, folder: Path, threads: int) -> None:
        """Args:
        checkout: the commit's files.
        folder: a new one to work in.
        threads: CPU threads of every command.
        """
        self.checkout, self.folder = checkout, folder
        self._threads = str(threads)
        self._cpu = ("runtime=cpu", f"runtime.threads={threads}")
        self._cache = folder / "cache"
        self._weights = folder / "golden.bin"
        folder.mkdir(parents=True)

    def feed(self) -> Arrays:
        """The phantom's files; the rows, pictures and updates of a run of the tiny model."""
        seen, _ = self._watched("radcap.train", *_FEED, *self._cpu, "run.name=feed")
        files = sorted(p for p in self._cache.rglob("*") if p.suffix in (".parquet", ".json"))
        pictures = [hashlib.sha256(p.tobytes()).hexdigest() for p in seen["pictures"]]
        found = {
            "data set|files of the phantom, SHA-256": np.array([_digest(file) for file in files]),
            "word pieces|captions of an epoch, sorted": np.sort(seen["captions"][:_FEED_EPOCH]),
            "row order|captions in the order of training": seen["captions"],
            "pixels|pictures of an epoch, sorted": np.array(sorted(pictures[:_FEED_EPOCH])),
        }
        for key, name in (
            ("initial weights|tiny model, seed 0", "initial"),
            ("optimizer update|fixed weights, 3 fixed gradients", "updated"),
        ):
            if name in seen:
                found[key] = seen[name]
        return found

    def model(self) -> Arrays:
        """Golden answers; captions of pictures by golden weights."""
        out = self.folder / "golden.npz"
        script = str(_HERE / "compare_golden.py")
        self._python(script, str(out), str(self._weights), self._threads)
        return _load(out)

    def captions(self) -> Arrays:
        """Pixels and captions of pictures of the phantom and of other files.

        After a run, which draws the phantom, and `model`, which writes the weights.
        """
        phantom = write_phantom_pictures(self._cache, self.folder / "phantom", _PICTURES)
        others = write_pictures(self.folder / "others")
        files = [str(path) for path in (*phantom, *others)]
        options = ("--json", "--device", "cpu", "--max-len", "12", "--batch-size", "8")
        seen, text = self._watched("radcap.caption", str(self._weights), *files, *options)
        records = [json.loads(line) for line in text.splitlines()][:_PICTURES]
        return {
            "pixels|16 pictures of the phantom": seen["pictures"][:_PICTURES],
            f"pixels|{len(others)} files of other forms": seen["pictures"][_PICTURES:],
            "captions|word pieces, 16 of the phantom": np.array(
                [" ".join(record["tokens"]) for record in records]
            ),
            "captions|their log-probabilities": np.array(
                [record["log_probability"] for record in records]
            ),
        }

    def default(self) -> Arrays:
        """Curves of the default run."""
        words = (f"trainer.max_steps={_STEPS}", *_PHANTOM, *_SHORT)
        curve = self._train("default", *words, *self._cpu)
        return {
            "row order|tokens of each step, default run": curve["tokens"],
            "learning rate|of each step, default run": curve["lr"],
            "losses|default run": curve["loss"],
            "losses|default run, gradient norms": curve["grad_norm"],
        }

    def dropout(self) -> Arrays:
        """Curves of the default run with dropout, clipping, decay and micro-batches."""
        words = (f"trainer.max_steps={_STEPS_WITH_DROPOUT}", *_PHANTOM, *_SHORT, *_DROPOUT)
        curve = self._train("dropout", *words, *self._cpu)
        return {
            "losses|dropout, clipping, decay": curve["loss"],
            "losses|dropout .., gradient norms": curve["grad_norm"],
        }

    def devices(self) -> Arrays:
        """Curves and weights of the tiny model on eight virtual devices."""
        words = (f"trainer.max_steps={_STEPS_ON_DEVICES}", "trainer.save_every=1")
        words = (*words, "trainer.keep_checkpoints=9", "data.batch_size=8", "data.workers=0")
        curve = self._train("devices", *_TINY, *words, "runtime=xla_cpu", "runtime.devices=8")
        file = self.folder / "runs" / "devices" / "checkpoints" / "step-1" / "model.safetensors"
        weights = [value for _, value in sorted(safetensors.numpy.load_file(file).items())]
        floats = [value.ravel() for value in weights if value.dtype == np.float32]
        return {
            "8 devices|weights after step 1": np.concatenate(floats),
            "8 devices|losses": curve["loss"],
            "8 devices|gradient norms": curve["grad_norm"],
        }

    def compiled(self) -> Arrays:
        """Figures of epoch1's step, compiled for v3-8."""
        out = self.folder / "preflight.json"
        words = ("+experiment=epoch1", "preflight.topology=v3-8", f"preflight.out={out}")
        self._python("-m", "radcap.preflight", *words)
        figures = json.loads(out.read_text(encoding="utf-8"))
        collectives = [row for _, row in sorted(figures["collectives"].items())]
        programs = figures.get("programs", {})
        prints = [str(program.get("stablehlo_fingerprint")) for program in programs.values()]
        return {
            "compiled step|program as recorded": np.array(prints),
            "compiled step|FLOPs": np.array([figures["flops"]]),
            "compiled step|bytes": np.array([figures["bytes"]]),
            "compiled step|bytes of memory a device": np.array([figures["memory"]["needed"]]),
            "compiled step|collectives": np.array([row["count"] for row in collectives]),
            "compiled step|bytes of collectives": np.array([row["bytes"] for row in collectives]),
            "compiled step|compiler's estimate, ms": np.array([figures["estimated_ms"] or 0.0]),
        }

    def _train(self, name: str, *words: str) -> Arrays:
        """The curves of a run: its metrics.jsonl as columns."""
        self._python("-m", "radcap.train", f"run.name={name}", *words)
        text = (self.folder / "runs" / name / "metrics.jsonl").read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
        return {key: np.array([line[key] for line in lines]) for key in lines[0]}

    def _watched(self, module: str, *words: str) -> tuple[Arrays, str]:
        """Run a command under compare_watch.py.

        Returns:
            What the model and the optimizer were given, and what the command printed.

        Raises:
            Lacking: it failed, or what it gives to the model is not seen.
        """
        out = self.folder / f"{module}.npz"
        text = self._python(str(_HERE / "compare_watch.py"), str(out), module, *words)
        seen = _load(out)
        missing = {"pictures", "captions"} - set(seen)
        if missing:
            raise Lacking(f"no {' and no '.join(sorted(missing))} seen on their way to the model")
        return seen, text

    def _python(self, *words: str) -> str:
        """Run Python with the commit's radcap; what it prints.

        Raises:
            Lacking: it failed.
        """
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if done.returncode:
            raise Lacking(f"status {done.returncode}: {last_line(done.stderr) or 'no word'}")
        return done.stdout

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(self.checkout),
            "RADCAP_CACHE": str(self._cache),
            "HF_HUB_OFFLINE": "1",
            "PYTHONHASHSEED": "0",
        }

    def check_origin(self) -> None:
        """Make sure that it is the checkout's radcap that is measured.

        Raises:
            Lacking: it is another one's, or cannot be imported.
        """
        found = self._python("-c", "import radcap; print(radcap.__file__)").strip()
        if not Path(found).is_relative_to(self.checkout):
            raise Lacking(f"{found} is found before {self.checkout}")


STAGES: dict[str, Callable[[Measurement], Arrays]] = {
    "feed": Measurement.feed,
    "default run": Measurement.default,
    "dropout": Measurement.dropout,
    "model": Measurement.model,
    "captions": Measurement.captions,
    "8 devices": Measurement.devices,
    "compiled step": Measurement.compiled,
}


def last_line(text: str) -> str:
    """The error of a command that failed: radcap's own line, else the last with a word."""
    lines = [line for line in text.splitlines() if re.search(r"\w", line)]
    own = [line for line in lines if line.startswith("radcap: ")]
    return (own or lines or [""])[-1]


def write_phantom_pictures(cache: Path, folder: Path, count: int) -> list[Path]:
    """Pictures of the phantom's validation split as files, from all over it."""
    folder.mkdir()
    (table, *_) = (pq.read_table(p) for p in sorted(cache.rglob("alignment/val*.parquet")))
    rows = np.linspace(0, table.num_rows - 1, count).astype(int)
    paths = [folder / f"{number:02d}.png" for number in range(count)]
    for path, row in zip(paths, rows.tolist(), strict=True):
        path.write_bytes(table["image"][row].as_py()["bytes"])
    return paths


def write_pictures(folder: Path) -> list[Path]:
    """Files of other sizes and forms than the phantom's, always the same."""
    folder.mkdir()
    rng = np.random.default_rng(0)

    def grey(height: int, width: int) -> np.ndarray:
        y, x = np.mgrid[:height, :width] / 29.0
        waves = 127 + 90 * np.sin(x + np.cos(y)) + rng.normal(0, 12, (height, width))
        return np.clip(waves, 0, 255).astype(np.uint8)

    def colour(height: int, width: int, channels: int = 3) -> np.ndarray:
        return np.stack([grey(height, width) for _ in range(channels)], axis=-1)

    turned = Image.Exif()
    turned[0x0112] = 6  # orientation: lies on its side
    made: dict[str, tuple[Image.Image, dict[str, object]]] = {
        "grey.png": (Image.fromarray(grey(200, 300)), {}),
        "native.png": (Image.fromarray(colour(224, 224)), {}),
        "16-bit.png": (Image.fromarray(grey(256, 256).astype(np.uint16) * 31 + 700), {}),
        "transparent.png": (Image.fromarray(colour(80, 100, 4)), {}),
        "palette.gif": (Image.fromarray(colour(120, 90)).convert("P"), {}),
        "turned.jpg": (Image.fromarray(colour(300, 240)), {"exif": turned}),
        "large.jpg": (Image.fromarray(colour(1100, 1500)), {"quality": 90}),
        "float.tif": (Image.fromarray(grey(260, 230).astype(np.float32) / 7 - 3), {}),
    }
    for name, (image, options) in made.items():
        image.save(folder / name, **options)
    return [folder / name for name in made]


def _digest(file: Path) -> str:
    return f"{hashlib.sha256(file.read_bytes()).hexdigest()} {file.name}"


def _load(path: Path) -> Arrays:
    with np.load(path) as stored:
        return {name: stored[name] for name in stored}


def main() -> None:
    checkout, out, cores, name, *stages = sys.argv[1:]
    chosen = [int(core) for core in cores.split(",")]
    os.sched_setaffinity(0, chosen)
    measurement = Measurement(Path(checkout), Path(out), len(chosen))
    try:
        measurement.check_origin()
    except Lacking as error:
        sys.exit(f"{name}: cannot be imported: {error}")
    found: Arrays = {}
    lacks: dict[str, str] = {}
    for stage in stages:
        start = time.monotonic()
        try:
            found |= STAGES[stage](measurement)
        except (Lacking, OSError, KeyError, ValueError) as error:
            lacks[stage] = str(error) if isinstance(error, Lacking) else repr(error)
        print(f"  {name}: {stage}, {time.monotonic() - start:.0f} s", flush=True)
    np.savez(Path(out) / "measured.npz", **found)
    (Path(out) / "lacks.json").write_text(json.dumps(lacks), encoding="utf-8")


if __name__ == "__main__":
    main()
