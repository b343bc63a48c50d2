"""Greedy captions at the full size against recomputed prefixes: run as `full_size.py DEVICE`.

Run in a process of its own (on `xla` with PJRT_DEVICE=CPU); prints what it found as a line of JSON.
"""

from __future__ import annotations

import json
import sys

import torch
import torch.nn.functional as F
from torch import Tensor

from radcap.forms.lists import XLA, convert
from radcap.model.captioner import ImageCaptioningModel

MAX_LEN = 20
# Images for each size of batch. On an XLA device of one core a step takes ten times as long.
NUM_IMAGES = {"cpu": {16: 64, 1: 64}, "xla": {16: 16, 1: 3}}
START, PAD = 101, 0


def model_and_images(count: int) -> tuple[ImageCaptioningModel, Tensor]:
    torch.manual_seed(0)
    model = ImageCaptioningModel(30_522, batch_norm_momentum=1.0)
    # Random colours in blocks of random size: plain noise all looks alike.
    images = torch.empty(count, 3, 224, 224, dtype=torch.uint8)
    for number in range(count):
        blocks = torch.randint(0, 256, (3, 2 + number % 6, 2 + number % 5), dtype=torch.uint8)
        images[number] = F.interpolate(blocks[None], size=224)[0]
    with torch.no_grad():
        # One pass fits batch norm to these images: else random weights see no difference in them.
        model.train().encode_images(images)
    return model.eval(), images


@torch.no_grad()
def recomputed(model: ImageCaptioningModel, images: Tensor) -> Tensor:
    """Every token from its whole prefix, never ending: int64 [N, 1 + MAX_LEN]."""
    rows = []
    for part in images.split(16):
        memory, ids = model.encode_images(part), torch.full((len(part), 1), START)
        for _ in range(MAX_LEN):
            following = model.fc_out(model.decode(memory, ids)[:, -1]).argmax(dim=-1)
            ids = torch.cat([ids, following[:, None]], dim=1)
        rows.append(ids)
    return torch.cat(rows)


def ended_at(ids: Tensor, end_id: int) -> list[list[int]]:
    """Each caption before its first end token."""
    rows = [row.tolist() for row in ids]
    return [row[: row.index(end_id)] if end_id in row else row for row in rows]


def num_compiled() -> int:
    import torch_xla.debug.metrics as metrics

    data = metrics.metric_data("CompileTime")
    return data[0] if data else 0


def main(device_name: str) -> dict[str, object]:
    sizes = NUM_IMAGES[device_name]
    model, images = model_and_images(max(sizes.values()))
    whole = recomputed(model, images)
    # For an end token, the word that ends the captions at the most places.
    words = sorted(set(whole[:, 1:].flatten().tolist()))
    end_id = max(words, key=lambda word: len({len(row) for row in ended_at(whole, word)}))
    expected = ended_at(whole, end_id)
    found: dict[str, object] = {
        "captions": len({tuple(row) for row in expected}),
        "lengths": len({len(row) for row in expected}),
    }
    step_boundary, device, before = None, torch.device("cpu"), 0
    if device_name == "xla":
        import torch_xla

        step_boundary, device = torch_xla.sync, torch_xla.device()
        convert(model, XLA)
        model = model.to(device)
        torch_xla.sync()  # the move is a graph of its own
        before = num_compiled()
    for batch, count in sizes.items():
        rows = []
        for part in images[:count].split(batch):
            ids = model.generate(
                part.to(device), MAX_LEN, end_id=end_id, step_boundary=step_boundary
            )
            rows += [row.tolist() for row in ids]
        different = 0
        for row, wanted in zip(rows, expected[:count], strict=True):
            different += row != wanted + [PAD] * (len(row) - len(wanted))
        found[f"different_{batch}"] = different
    if device_name == "xla":
        found["graphs"] = num_compiled() - before
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
