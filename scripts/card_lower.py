"""Records the card's own training step for one TPU core: `card_lower.py BATCH FOLDER`.

Run by `scripts/bench.py tpu-step`, which sets the environment.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from card_loop import CardModel, card_step
from torch import Tensor

from radcap.aot.trace import TracingRuntime

TARGETS = 32


def main() -> None:
    batch_size, folder = int(sys.argv[1]), Path(sys.argv[2])
    runtime = TracingRuntime(num_devices=1, precision="fp32")
    with torch.device("meta"):
        model = CardModel()
    model._apply(runtime._upload)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    for parameter in model.parameters():  # as after a first step
        zeros = torch.zeros(parameter.shape)
        optimizer.state[parameter] = {
            "step": torch.tensor(1.0),
            "exp_avg": runtime._upload(zeros),
            "exp_avg_sq": runtime._upload(zeros),
        }
    state = [*model.parameters(), *model.buffers()]
    for entry in optimizer.state.values():
        state += [entry["exp_avg"], entry["exp_avg_sq"]]
    watched = runtime.watch(state)
    images = runtime._upload(torch.empty(batch_size, 3, 224, 224, device="meta"))
    tokens: Tensor = runtime._upload(
        torch.empty(batch_size, TARGETS + 1, dtype=torch.int64, device="meta")
    )
    loss = card_step(model, optimizer, images, tokens)
    runtime.program([loss], watched).write(folder / f"{batch_size}-train")


if __name__ == "__main__":
    main()
