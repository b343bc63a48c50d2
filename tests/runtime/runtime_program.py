"""Run in a process of its own; prints what it found as one line of JSON, last."""

from __future__ import annotations

import copy
import json
import math
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from radcap.config.schema import OptimizerConfig, RuntimeConfig
from radcap.errors import ConfigError
from radcap.forms.lists import place
from radcap.model import encoder
from radcap.model.captioner import ImageCaptioningModel
from radcap.runtime.base import Runtime
from radcap.runtime.select import open_runtime
from radcap.training.step import TrainStep, validation_sums

ROWS, VOCABULARY = 8, 50
# Of the images: three tokens a side, and a fifth of the work.
SIDE = encoder.IMAGE_SIZE = 96
RATE = 1e-3


@dataclass
class RandomBatch:
    """Rows of noise with captions of unequal length; the last row is masked."""

    images: Tensor
    tokens: Tensor
    pad_id: int = 0

    @classmethod
    def draw(cls, seed: int, rows: int = ROWS) -> RandomBatch:
        generator = torch.Generator().manual_seed(seed)
        images = torch.randint(
            0, 256, (rows, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator
        )
        tokens = torch.randint(3, VOCABULARY, (rows, 9), dtype=torch.int32, generator=generator)
        for row in range(rows):
            tokens[row, 3 + row % 5 :] = 0
        tokens[:, 0], tokens[-1] = 1, 0
        return cls(images, tokens)


def draw(steps: range, process: int = 0, processes: int = 1) -> Iterator[RandomBatch]:
    """One process's rows of some global batches."""
    for batch in map(RandomBatch.draw, steps):
        yield RandomBatch(batch.images[process::processes], batch.tokens[process::processes])


def open_device(name: str, devices: int | None = None, precision: str = "fp32") -> Runtime:
    config = RuntimeConfig(
        name=name, devices=devices, precision=precision, threads=1, prefetch=2, compile=False
    )
    return open_runtime(config, threads=1)


class Trainer:
    """A tiny captioner with all that the training loop has beside it."""

    def __init__(
        self,
        runtime: Runtime,
        saved: dict[str, Any] | None = None,
        *,
        dropout: float = 0.0,
        accumulate: int = 1,
        plain: bool = False,
    ) -> None:
        runtime.seed(0)
        self.runtime = runtime
        self.model = ImageCaptioningModel(
            VOCABULARY, 16, 1, 2, dropout=dropout, batch_norm_momentum=0.5
        )
        if saved:
            self.model.load_state_dict(saved["model"])
        if plain:
            runtime.place(self.model)
        else:
            place(self.model, runtime)
        options = OptimizerConfig(
            lr=RATE,
            encoder_lr_scale=1.0,
            betas=[0.9, 0.999],
            eps=1e-8,
            weight_decay=0.01,
            clip_norm=1.0,
        )
        self.optimizer = runtime.make_adam(self.model, options)
        if saved:
            self.optimizer.load_state_dict(saved["optimizer"])
            runtime.set_random_state(saved["random"])
        self.step = TrainStep(
            self.model, self.optimizer, runtime, pad_id=0, clip_norm=1.0, accumulate=accumulate
        )

    def train(self, steps: range, rate: float | None = None) -> list[float]:
        """The losses of some steps, each with a rate of its own unless one is given."""
        queued = []
        device = self.runtime
        batches = device.batches(draw(steps, device.process_index, device.num_processes))
        for step, (_, images, tokens) in zip(steps, batches, strict=False):
            with self.runtime.purpose("train", step):
                # Rates of exactly 1 and 0 would be constants of the graph if they were scalars.
                falling = RATE * (1 + math.cos(step)) if step != 7 else 0.0
                self.runtime.set_learning_rate(self.optimizer, falling if rate is None else rate)
                queued.append(self.step(images, tokens))
                self.runtime.end_step()
        return [scalars["loss"] for scalars in self.runtime.fetch(queued)]

    def save(self) -> dict[str, Any]:
        with self.runtime.purpose("save"):
            return {
                "model": self.runtime.to_host(self.model.state_dict()),
                "optimizer": self.runtime.to_host(self.optimizer.state_dict()),
                "random": self.runtime.random_state(),
            }


def curve(
    name: str, devices: str, first: str, last: str, path: str, dropout: str, *plain: str
) -> Any:
    """Losses of steps [first, last), saved at the end; goes on from the file if it is there.

    A last word of `plain` leaves the modules as they are.
    """
    runtime = open_device(name, int(devices))
    saved = torch.load(path, weights_only=True) if Path(path).exists() else None
    trainer = Trainer(runtime, saved, dropout=float(dropout), plain=bool(plain))
    reads, executions = runtime.log_reads, executed(name)
    losses = trainer.train(range(int(first), int(last)))
    reads, executions = runtime.log_reads - reads, executed(name) - executions
    state = trainer.save()  # by all processes together
    graphs = runtime.num_graphs()
    runtime.close()
    if runtime.process_index > 0:
        return None
    torch.save(state, path)
    return {
        "losses": losses,
        "reads": reads,
        "executions": executions,
        "graphs": graphs,
        "device": runtime.describe(),
    }


def executed(name: str) -> int:
    """Programs that an XLA device has run so far, as torch_xla counts them."""
    if name != "xla_cpu":
        return 0
    import torch_xla.debug.metrics

    data = torch_xla.debug.metrics.metric_data("ExecuteReplicatedTime")
    return data[0] if data else 0


def bad_step_then_captions() -> Any:
    """A step with a broken weight between good ones, then validation, captions, training again."""
    runtime = open_device("xla_cpu", 2)
    trainer = Trainer(runtime)
    trainer.train(range(2))
    before = trainer.save()
    good = before["model"]["fc_out.bias"][7].item()
    before["model"]["fc_out.bias"][7] = float("inf")
    trainer = Trainer(runtime, before)
    losses = trainer.train(range(2, 3))
    after = trainer.save()
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    moved = [
        key
        for key, value in before["model"].items()
        if not key.endswith(statistics) and not torch.equal(value, after["model"][key])
    ]
    for key, entry in before["optimizer"]["state"].items():
        state = after["optimizer"]["state"][key]
        moved += [f"{key}.{part}" for part in entry if not torch.equal(entry[part], state[part])]
    after["model"]["fc_out.bias"][7] = good
    trainer = Trainer(runtime, after)
    twin = ImageCaptioningModel(VOCABULARY, 16, 1, 2, dropout=0.0)
    twin.load_state_dict(after["model"])
    twin.eval()
    trainer.model.eval()
    native = open_device("cpu")
    sums, wanted = [], []
    with runtime.purpose("validate"):
        for batch, images, tokens in runtime.batches(draw(range(3))):
            sums.append(validation_sums(trainer.model, runtime, images, tokens, pad_id=0))
            wanted.append(validation_sums(twin, native, batch.images, batch.tokens, pad_id=0))
            runtime.end_step()
    images = RandomBatch.draw(5, rows=4).images
    plain = twin.generate(images, 9, start_id=1, end_id=49)
    equal, widths = True, set()
    with runtime.purpose("generate"):
        for end_id in {49, *plain[0, 1:].tolist()}:
            ids = {"start_id": 1, "end_id": end_id}
            found = trainer.model.generate(
                runtime.upload_rows(images),
                9,
                **ids,
                step_boundary=runtime.step_boundary,
                read_every=runtime.read_every,
            )
            equal &= torch.equal(found, twin.generate(images, 9, **ids))
            widths.add(found.shape[1])
    trainer.train(range(3, 5))
    runtime.close()
    return {
        "loss": losses[0],
        "moved": moved,
        "graphs": runtime.num_graphs(),
        "sums": runtime.fetch(sums),
        "wanted": native.fetch(wanted),
        "captions_equal": equal,
        "widths": len(widths),
    }


def bf16() -> Any:
    runtime = open_device("xla_cpu", 1, "bf16")
    trainer = Trainer(runtime, dropout=0.1)
    losses = trainer.train(range(10), rate=RATE)
    state = [v for entry in trainer.optimizer.state.values() for v in entry.values()]
    kept = [*trainer.model.parameters(), *state]
    with runtime.arithmetic():
        hidden = trainer.model.decode(
            torch.zeros(1, 49, 16, device=runtime.device),
            torch.ones(1, 3, dtype=torch.int32, device=runtime.device),
        )
        dtype = trainer.model.fc_out(hidden).dtype
    runtime.close()
    return {
        "losses": losses,
        "logits": str(dtype),
        "kept": sorted({str(tensor.dtype) for tensor in kept}),
        "graphs": runtime.num_graphs()["train"],
    }


def one_step(accumulate: str) -> Any:
    """Compiles a step with dropout for the reader of the HLO text."""
    runtime = open_device("xla_cpu", 8)
    trainer = Trainer(runtime, dropout=0.1, accumulate=int(accumulate))
    batches = [RandomBatch.draw(0, 8 * int(accumulate))]
    for _, images, tokens in runtime.batches(batches):
        scalars = trainer.step(images, tokens)
        runtime.end_step()
    runtime.close()
    return {"tensors": len(list(trainer.model.parameters())), **runtime.fetch([scalars])[0]}


def pieces() -> Any:
    """What can be seen without the captioner, on 8 devices."""
    runtime = open_device("xla_cpu")
    import torch_xla

    found: dict[str, Any] = {"devices": runtime.num_devices, "description": runtime.describe()}

    # How a batch arrives.
    with_batches = runtime.batches(draw(range(1)))
    batch, images, tokens = next(with_batches)
    alone = runtime.upload_rows(batch.images)
    there = (images, tokens, alone)
    found["shards"] = [torch_xla._XLAC._get_xla_sharding_spec(t) for t in there]
    found["wire"] = [str(t.dtype) for t in (images, tokens)]
    sent = (batch.images, batch.tokens, batch.images)
    found["same"] = [torch.equal(t.cpu(), s) for t, s in zip(there, sent, strict=True)]
    found["rows_in_order"] = len(list(with_batches)) == 0

    # A loader that fails, one that never ends, a batch that does not divide.
    def failing() -> Iterator[RandomBatch]:
        yield from draw(range(3))
        raise KeyError("row 17")

    got = 0
    try:
        for _ in runtime.batches(failing()):
            got += 1
    except KeyError as error:
        found["failure"] = [got, str(error)]
    for got, _ in enumerate(runtime.batches(draw(range(10**6)))):
        if got == 1:
            break
    left = runtime.batches(draw(range(10**6)))
    next(left)
    runtime.close()

    # Nobody waits for it: it ends in a moment of its own.
    for thread in threading.enumerate():
        if "transfer" in thread.name:
            thread.join()
    found["threads_end"] = True
    found["indivisible"] = []
    few = RandomBatch.draw(0, rows=6)
    for upload in (lambda: next(runtime.batches([few])), lambda: runtime.upload_rows(few.images)):
        try:
            upload()
        except ConfigError as error:
            found["indivisible"].append(str(error))

    # Random numbers of the device.
    def draws() -> list[float]:
        values = torch.rand(2, device=runtime.device)
        torch_xla.sync()
        return values.tolist()

    runtime.seed(0)
    first, second = draws(), draws()
    runtime.seed(0)
    again = draws()
    state = runtime.random_state()
    with runtime.purpose("validate"):
        torch.rand(3, device=runtime.device)
        torch_xla.sync()
    beside = draws()
    runtime.set_random_state(state)
    found["random"] = [first == again, first != second, beside == second, draws() == second]

    # A small network: one graph whatever the rate, and a batch of another shape is told.
    network = nn.Linear(9, 3)
    twin = copy.deepcopy(network)
    runtime.place(network)
    options = OptimizerConfig(
        lr=1.0, encoder_lr_scale=1.0, betas=[0.9, 0.999], eps=1e-8, weight_decay=0.1, clip_norm=None
    )
    native = open_device("cpu")
    parts = [(runtime, network), (native, twin)]
    optimizers = {device.name: device.make_adam(model, options) for device, model in parts}

    def train(device: Runtime, model: nn.Module, step: int, rate: float, rows: int) -> None:
        optimizer = optimizers[device.name]
        for _, _, tokens in device.batches([RandomBatch.draw(step, rows)]):
            with device.purpose("train", step):
                device.set_learning_rate(optimizer, rate)
                optimizer.zero_grad()
                # Captions may come without the padding that all of them share.
                ids = nn.functional.pad(tokens, (0, 9 - tokens.shape[1])).float()
                model(ids).square().mean().backward()
                device.update(optimizer, torch.ones_like(tokens[0, 0], dtype=torch.bool))
                device.end_step()

    for step, rate in enumerate([0.0, 1.0, 0.5, 0.0, 0.25]):
        for device, model in parts:
            train(device, model, step, rate, rows=8)
    saved = runtime.to_host(network.state_dict())
    found["adam"] = [max_difference(saved[k], v) for k, v in twin.state_dict().items()]
    found["graphs"] = runtime.num_graphs()["train"]
    try:
        train(runtime, network, 41, 1.0, rows=16)
    except AssertionError as error:
        found["new_graph"] = str(error)

    # Scalars come in one read, without a graph.
    before, scalars = runtime.num_graphs(), []
    for value in (1.5, 2.5):
        pair = {
            "a": torch.tensor(value).to(runtime.device),
            "b": torch.tensor(7).to(runtime.device),
        }
        scalars.append(pair)
    runtime.end_step()
    reads = runtime.log_reads
    found["fetched"] = runtime.fetch(scalars)
    found["reads"] = runtime.log_reads - reads
    strays = runtime.device_reads
    with runtime.purpose("train", 42):
        runtime.fetch(scalars)
        found["read_in_passing"] = scalars[0]["a"].item()
    with runtime.purpose("validate"):
        scalars[1]["a"].item()
    found["stray_reads"] = runtime.device_reads - strays
    found["graphs_of_a_read"] = sum(runtime.num_graphs().values()) - sum(before.values())
    return found


def max_difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max())


if __name__ == "__main__":
    answer = globals()[sys.argv[1]](*sys.argv[2:])
    if answer is not None:
        print(json.dumps(answer))
