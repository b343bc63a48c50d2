"""Does a trained captioner look at the image, and does its data set make it?

    python scripts/needs_image.py runs/default

Prints how often captions of the run's validation split name the right pathology: as trained, with
the image's memory set to zero, and by a linear probe that sees 32 x 32 thumbnails.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radcap.config.compose import read_config
from radcap.data.collate import Batch
from radcap.errors import ConfigError, RadcapError
from radcap.files.mappings import read_mapping
from radcap.forms.lists import place
from radcap.host.console import heartbeat, say
from radcap.runtime.select import open_runtime
from radcap.scoring.probe import linear_probe, thumbnails
from radcap.training.build import build_model
from radcap.training.inputs import Inputs
from radcap.training.run.checkpoint import load_latest
from radcap.training.run.folder import revision_in
from radcap.training.validate import validate

# More than enough for a linear probe; a large set is not streamed whole for it.
_PROBE_ROWS = 20_000


def figures(run: Path) -> dict[str, float]:
    """Share of right pathologies, by who names it.

    Raises:
        RadcapError: the folder holds no trained run, or its data is out of reach.
    """
    if not (run / "config.yaml").is_file():
        raise ConfigError(f"{run} holds no run")
    try:
        config = read_config(run / "config.yaml")
        versions = read_mapping(run / "versions.json") or {}
    except ConfigError as error:
        raise ConfigError(f"{run / 'config.yaml'}: {error}") from None
    except OSError as error:
        raise RadcapError(f"{run / 'versions.json'}: {error.strerror}") from None
    restored = load_latest(run / "checkpoints", say, is_ours=False)
    if restored is None:
        raise RadcapError(f"{run} has no checkpoint yet")
    inputs = Inputs(config, revision=revision_in(versions))
    train_loader, val_loader = inputs.loaders(None)
    runtime = open_runtime(replace(config.runtime, name="auto", devices=None))
    model = build_model(config.model, vocab_size=len(inputs.tokenizer), weights=restored.model)
    place(model, runtime)

    def right() -> float:
        what, rows = "captioning", inputs.num_val_rows
        with heartbeat(what) as go_over_to:
            result = validate(
                model,
                runtime,
                val_loader,
                tokenizer=inputs.tokenizer,
                num_rows=rows,
                num_captioned=rows,
                num_samples=0,
                max_new_tokens=config.data.max_length,
                scored=lambda done: go_over_to(f"{what}, {done:,} of {rows:,} rows"),
            )
        if "pathology" not in result.accuracies():
            raise RadcapError("no validation row of this run has a pathology")
        return result.accuracies()["pathology"]

    found = {"captions, as trained": right()}
    blind = model.graph_layer.register_forward_hook(_zeroed)
    found["captions, memory set to zero"] = right()
    blind.remove()
    train = _thumbnails(train_loader, min(inputs.num_train_rows, _PROBE_ROWS))
    val = _thumbnails(val_loader, inputs.num_val_rows)
    found["linear probe on thumbnails"] = linear_probe(*train, *val)
    commonest = Counter(train[1]).most_common(1)[0][0]
    found["always the commonest"] = val[1].count(commonest) / len(val[1])
    train_loader.close()
    val_loader.close()
    return found


def _zeroed(_module: Any, _inputs: Any, memory: Tensor) -> Tensor:
    return torch.zeros_like(memory)


def _thumbnails(batches: Iterable[Batch], rows: int) -> tuple[np.ndarray, list[str]]:
    """Thumbnails and pathologies of the first `rows` rows."""
    seen: list[np.ndarray] = []
    pathologies: list[str] = []
    for batch in batches:
        good = batch.valid.numpy()
        seen.append(thumbnails(batch.images[:, 0].numpy()[good]))
        pathologies += [str(batch.labels[row].pathology) for row in np.flatnonzero(good)]
        if len(pathologies) >= rows:
            break
    return np.concatenate(seen)[:rows], pathologies[:rows]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Does a trained captioner look at the image?")
    parser.add_argument("run", metavar="RUN", type=Path, help="the run folder")
    try:
        for name, share in figures(parser.parse_args().run).items():
            print(f"right pathology, {name}: {share:.1%}")
    except RadcapError as fault:
        print(f"needs_image: {fault}", file=sys.stderr)
        sys.exit(fault.exit_status)
