"""The card's architecture: its names, its shapes and its numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from radcap.model.captioner import ImageCaptioningModel

IDS = {"start_id": 1, "end_id": 2, "pad_id": 0}


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def batch_loss(model: ImageCaptioningModel, images: Tensor, tokens: Tensor) -> Tensor:
    hidden = model.decode(model.encode_images(images), tokens[:, :-1])
    targets = tokens[:, 1:]
    return model.fc_out.loss_sum(hidden, targets, 0) / (targets != 0).sum()


def test_names_shapes_and_size_are_the_cards(card_shapes: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = ImageCaptioningModel(30522)
    shapes = {name: list(entry.shape) for name, entry in model.state_dict().items()}
    assert shapes == card_shapes
    assert len(shapes) == 338
    assert sum(parameter.numel() for parameter in model.parameters()) == 49_566_298


@torch.no_grad()
def test_evaluation_in_float64(
    golden_model: ImageCaptioningModel,
    golden_images: Tensor,
    golden_tokens: Tensor,
    golden_answers: dict[str, Tensor],
) -> None:
    inputs = golden_tokens[:, :-1]
    valid = inputs != 0  # what stands at padded positions is nobody's business
    memory = golden_model.encode_images(golden_images)
    logits = golden_model(golden_images, inputs)
    loss = batch_loss(golden_model, golden_images, golden_tokens)
    assert memory.shape == (2, 49, 32)
    assert relative_error(memory, golden_answers["memory"]) < 1e-8
    assert logits.shape == (2, 6, 211)
    assert relative_error(logits[valid], golden_answers["logits"][valid]) < 1e-8
    assert relative_error(loss, golden_answers["loss"]) < 1e-8


@torch.no_grad()
def test_evaluation_in_float32(
    golden_model: ImageCaptioningModel,
    golden_images: Tensor,
    golden_tokens: Tensor,
    golden_answers: dict[str, Tensor],
) -> None:
    golden_model.float()
    images, inputs = golden_images.float(), golden_tokens[:, :-1]
    valid = inputs != 0
    memory = golden_model.encode_images(images)
    assert relative_error(memory, golden_answers["memory"]) < 1e-4
    logits = golden_model(images, inputs)[valid]
    assert relative_error(logits, golden_answers["logits"][valid]) < 1e-4
    ids = golden_model.generate(images, 12, **IDS)
    assert ids[0, :8].tolist() == golden_answers["greedy_0"].tolist()
    assert ids[1].tolist() == golden_answers["greedy_1"].tolist()


def test_greedy_ids_alone_and_in_one_batch(
    golden_model: ImageCaptioningModel, golden_images: Tensor, golden_answers: dict[str, Tensor]
) -> None:
    expected = [golden_answers[f"greedy_{row}"].tolist() for row in (0, 1)]
    for row in (0, 1):
        alone = golden_model.generate(golden_images[row : row + 1], 12, **IDS)
        assert alone.dtype == torch.int64
        assert alone.tolist() == [expected[row]]
    together = golden_model.generate(golden_images, 12, **IDS)
    assert together.tolist() == [expected[0] + [0] * 5, expected[1]]


def test_four_adam_steps_in_training_mode(
    golden_model: ImageCaptioningModel,
    golden_images: Tensor,
    golden_tokens: Tensor,
    golden_answers: dict[str, Tensor],
) -> None:
    golden_model.train()
    optimizer = torch.optim.Adam(golden_model.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = batch_loss(golden_model, golden_images, golden_tokens)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    assert torch.stack(losses).tolist() == pytest.approx(
        golden_answers["train_losses"].tolist(), rel=1e-8
    )
