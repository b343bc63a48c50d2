"""Prints radcap's numbers, each a ratio to the model card's way of doing it: `bench.py NAME`.

    tpu-step    the compiled v3-8 training step at batch 336 against the card's own step compiled
                for one v3 core at batch 32: bytes and FLOPs an image (needs the extra preflight)
    train       a training step of the full model, batch 16, against the card's loop: images a
                second on the CPU, and on a GPU where there is one
    generate    captions of 16 images on the CPU against the card's loop, float32, the same ids:
                images a second at 32 and 80 tokens
    image       PNG bytes to pixels on one core against the card's transform
    pipeline    the whole input pipeline on two cores against decoding alone on two cores
    startup     seconds of the default run to its first step, and of each command's --help
    memory      memory of the training process and its workers over 100,000 rows
    hub         bytes fetched from the Hub against the bytes of the row groups read
    wan         the stream over a slow network against what network and decoding allow

What a number is measured against stands in scripts/card_loop.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_generate import bench_generate
from bench_hub import bench_hub
from bench_image import bench_image
from bench_memory import bench_memory
from bench_pipeline import bench_pipeline
from bench_startup import bench_startup
from bench_train import bench_train
from bench_wan import bench_wan

from radcap.aot.chips import Topology, find_topology
from radcap.aot.figures import Compiled, program_figures
from radcap.aot.jobs import LOWER_ENVIRONMENT, check_installed, compile_all, run_job
from radcap.errors import ConfigError
from radcap.host.console import run_command, say

_HERE = Path(__file__).parent
_CARD_BATCH = 32


def tpu_step() -> None:
    """Compile both steps and print what an image costs in each."""
    check_installed()
    topology = find_topology("v3-8")
    with tempfile.TemporaryDirectory(prefix="radcap-bench-") as name:
        folder = Path(name)
        words = [str(_HERE / "card_lower.py"), str(_CARD_BATCH), name]
        run_job(words, LOWER_ENVIRONMENT, folder, "recording the card's step")
        (card,) = compile_all(topology, _CARD_BATCH, 1, folder)
        ours = folder / "preflight.json"
        subprocess.run(
            [
                sys.executable,
                "-m",
                "radcap.preflight",
                "+experiment=epoch1",
                f"preflight.out={ours}",
            ],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        figures = json.loads(ours.read_text(encoding="utf-8"))
    flops, bytes_ = card.figures["flops"], card.figures["bytes_accessed"]
    say(
        f"the card's step, batch {_CARD_BATCH} on one v3 core, float32: "
        f"{flops / 1e9:.1f} GFLOP, {bytes_ / 1e9:.2f} GB"
    )
    counts = {kind: found["count"] for kind, found in figures["collectives"].items()}
    say(
        f"radcap's step, batch {figures['batch_size']} on v3-8, {figures['precision']}: "
        f"{figures['flops'] / 1e9:.1f} GFLOP, {figures['bytes'] / 1e9:.2f} GB, "
        f"{counts['all-reduce']} all-reduces, {counts['all-gather']} all-gathers"
    )
    say("an image         card     radcap    ratio")
    for title, theirs, own in (
        ("GFLOP", flops / _CARD_BATCH / 1e9, figures["flops_per_image"] / 1e9),
        ("MB", bytes_ / _CARD_BATCH / 1e6, figures["bytes_per_image"] / 1e6),
        ("estimated us", *_estimates(card, figures, topology)),
    ):
        say(f"{title:12s} {theirs:9.2f}  {own:9.2f}  {own / theirs:6.2f}x")


def _estimates(card: Compiled, figures: dict, topology: Topology) -> tuple[float, float]:
    """Microseconds of one core for an image by the compiler's cycles, collectives left out."""
    theirs = program_figures(card, topology)["estimated_ms"] / _CARD_BATCH
    ours = figures["estimated_ms"] / figures["rows_per_device"]
    return 1e3 * theirs, 1e3 * ours


BENCHMARKS = {
    "tpu-step": tpu_step,
    "train": bench_train,
    "generate": bench_generate,
    "image": bench_image,
    "pipeline": bench_pipeline,
    "startup": bench_startup,
    "memory": bench_memory,
    "hub": bench_hub,
    "wan": bench_wan,
}


def main(words: list[str]) -> int:
    if len(words) != 1 or words[0] not in BENCHMARKS:
        raise ConfigError(f"name one of {', '.join(BENCHMARKS)}")
    BENCHMARKS[words[0]]()
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, __doc__ or ""))
