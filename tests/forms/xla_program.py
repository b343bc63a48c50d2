"""Run in a process of its own with PJRT_DEVICE=CPU; prints what it found as one line of JSON."""

from __future__ import annotations

import copy
import json
import re
import sys
from typing import Any

import torch
import torch_xla
import torch_xla.debug.metrics as metrics
from torch import Tensor, nn

from radcap.forms.lists import XLA, convert
from radcap.model.captioner import ImageCaptioningModel
from radcap.model.encoder import ImageEncoder


def max_difference(found: Tensor, expected: Tensor) -> float:
    return float((found.detach().cpu() - expected.detach()).abs().max())


def num_compiled() -> int:
    data = metrics.metric_data("CompileTime")
    return data[0] if data else 0


def mean_loss(model: ImageCaptioningModel, memory: Tensor, tokens: Tensor) -> Tensor:
    hidden, targets = model.decode(memory, tokens[:, :-1]), tokens[:, 1:]
    return model.fc_out.loss_sum(hidden, targets, 0) / (targets != 0).sum()


def with_forms(model: ImageCaptioningModel) -> ImageCaptioningModel:
    """A copy on the device, in the forms that it likes but for the encoder's.

    Two images through batch norm have gradients that are sums of large parts: another order of
    adding shows. tests/runtime compares the encoder's with more.
    """
    twin = copy.deepcopy(model)
    left_out = (ImageEncoder, nn.BatchNorm2d)
    convert(twin, {plain: form for plain, form in XLA.items() if plain not in left_out})
    return twin.to(torch_xla.device())


def attention() -> dict[str, Any]:
    """Decoder and loss, forward and backward; batch 5, 7 heads: an axis of 35 is a folded one."""
    torch.manual_seed(0)
    model = ImageCaptioningModel(30, embed_dim=28, num_layers=2, num_heads=7, dropout=0.0)
    memory = torch.randn(5, 11, 28)
    tokens = torch.randint(1, 30, (5, 7))
    tokens[4] = 0
    device = torch_xla.device()
    twin = with_forms(model)

    expected = mean_loss(model, memory, tokens)
    expected.backward()
    found = mean_loss(twin, memory.to(device), tokens.to(device))
    found.backward()
    gradients = [p.grad for p in twin.parameters() if p.grad is not None]
    hlo = torch_xla._XLAC._get_xla_tensors_hlo([found, *gradients])
    torch_xla.sync()  # one graph; each read below would be one of its own
    wanted = [p.grad for p in model.parameters() if p.grad is not None]
    return {
        "loss": max_difference(found, expected),
        "gradient": max(map(max_difference, gradients, wanted)),
        "folded": len(re.findall(r"\[35[,\]]", hlo)),
        "batched_dots": len(re.findall(r" dot\(.*lhs_batch_dims=\{0,1\}", hlo)),
        "gathers_of_logits": len(re.findall(r"gather\(f32\[[\d,]+,30\]", hlo)),
    }


def whole_model() -> dict[str, Any]:
    """One train step's loss and gradients, then captions of several lengths."""
    torch.manual_seed(0)
    model = ImageCaptioningModel(50, embed_dim=32, num_layers=2, num_heads=4, dropout=0.0)
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    tokens = torch.tensor([[1, 5, 7, 9, 11, 2, 0], [1, 6, 8, 10, 2, 0, 0]])
    device = torch_xla.device()
    twin = with_forms(model)

    def backward(model: ImageCaptioningModel, images: Tensor, tokens: Tensor) -> Tensor:
        loss = mean_loss(model, model.encode_images(images), tokens)
        loss.backward()
        return loss

    expected = backward(model, images, tokens)
    found = backward(twin, images.to(device), tokens.to(device))
    torch_xla.sync()
    # Two images through batch norm: the encoder's first gradients are rounding errors of zero.
    gradient = max(
        max_difference(q.grad, p.grad) / max(float(p.grad.abs().max()), 1e-4)
        for p, q in zip(model.parameters(), twin.parameters(), strict=True)
        if p.grad is not None and q.grad is not None
    )
    twin.load_state_dict(model.state_dict())
    torch_xla.sync()
    before = num_compiled()
    widths, equal = set(), True
    plain = model.generate(images, 20, start_id=1, end_id=49)
    for end_id in {49, *plain[0, 1:].tolist()}:
        ids = {"start_id": 1, "end_id": end_id}
        on_xla = twin.generate(images.to(device), 20, **ids, step_boundary=torch_xla.sync)
        equal &= torch.equal(on_xla, model.generate(images, 20, **ids))
        widths.add(on_xla.shape[1])
    greedy_graphs, before = num_compiled() - before, num_compiled()
    wide = model.search(images, 20, num_beams=3, start_id=1, end_id=49)
    on_xla = twin.search(
        images.to(device), 20, num_beams=3, start_id=1, end_id=49, step_boundary=torch_xla.sync
    )
    return {
        "loss": max_difference(found, expected),
        "gradient": gradient,
        "captions_equal": equal,
        "widths": len(widths),
        "generation_graphs": greedy_graphs,
        "beams_equal": torch.equal(on_xla.ids, wide.ids),
        "log_probs": max_difference(on_xla.log_probs, wide.log_probs),
        "beam_graphs": num_compiled() - before,
    }


if __name__ == "__main__":
    print(json.dumps({"attention": attention, "whole_model": whole_model}[sys.argv[1]]()))
