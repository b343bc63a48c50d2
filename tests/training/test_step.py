"""One training step: the same gradient however the batch is cut; a bad batch moves nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from radcap.config.schema import OptimizerConfig
from radcap.model.captioner import ImageCaptioningModel
from radcap.runtime.native import NativeRuntime
from radcap.training.step import TrainStep, row_loss_sums, validation_sums

OPTIMIZER = OptimizerConfig(
    lr=1e-3, encoder_lr_scale=1.0, betas=[0.9, 0.999], eps=1e-8, weight_decay=0.0, clip_norm=None
)


@pytest.fixture
def runtime() -> NativeRuntime:
    return NativeRuntime("cpu", precision="fp32", threads=1)


def small_model(seed: int = 0) -> ImageCaptioningModel:
    torch.manual_seed(seed)
    return ImageCaptioningModel(50, embed_dim=16, num_layers=1, num_heads=2, dropout=0.0).double()


def rows(count: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, 224, 224), dtype=torch.uint8, generator=generator)
    tokens = torch.zeros(count, 9, dtype=torch.int32)
    for row in range(count):
        length = 2 + row % 6
        words = torch.randint(5, 50, (length,), generator=generator)
        tokens[row, : length + 2] = torch.cat([torch.tensor([1]), words, torch.tensor([2])])
    return images, tokens


def make_step(model: ImageCaptioningModel, runtime: NativeRuntime, **options: Any) -> TrainStep:
    adam = runtime.make_adam(model, OPTIMIZER)
    return TrainStep(model, adam, runtime, **{"pad_id": 0, **options})


def test_the_golden_adam_steps(
    runtime: NativeRuntime,
    golden_model: ImageCaptioningModel,
    golden_images: Tensor,
    golden_tokens: Tensor,
    golden_answers: dict[str, Tensor],
) -> None:
    """The card's losses by the very step that the trainer runs."""
    step = make_step(golden_model, runtime)
    losses = [step(golden_images, golden_tokens)["loss"].item() for _ in range(4)]
    assert losses == pytest.approx(golden_answers["train_losses"].tolist(), rel=1e-8)


def test_micro_batches_give_the_gradient_of_the_whole(
    runtime: NativeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Captions of unequal length, so that a mean of means would differ. Batch norm is held still:
    its statistics are those of a micro-batch."""
    images, tokens = rows(8)
    found = []
    for accumulate in (1, 4):
        model = small_model()
        step = make_step(model, runtime, accumulate=accumulate)
        model.eval()
        monkeypatch.setattr(model, "train", lambda: None)
        scalars = step(images, tokens)
        gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found.append((scalars["loss"].item(), gradients))
    (loss_whole, whole), (loss_parts, parts) = found
    assert loss_parts == pytest.approx(loss_whole, rel=1e-9)
    assert torch.allclose(parts, whole, rtol=1e-6, atol=1e-12)


def weights_and_state(model: ImageCaptioningModel, step: TrainStep) -> list[Tensor]:
    state = step._optimizer.state_dict()["state"]
    tensors = [p.detach().clone() for p in model.parameters()]
    return tensors + [t.clone() for entry in state.values() for t in entry.values()]


@pytest.mark.parametrize("fault", ["no tokens", "infinite weight"])
def test_a_bad_batch_moves_nothing(runtime: NativeRuntime, fault: str) -> None:
    images, tokens = rows(4)
    model = small_model()
    step = make_step(model, runtime)
    step(images, tokens)
    if fault == "no tokens":
        tokens = torch.zeros_like(tokens)
    else:
        with torch.no_grad():
            model.fc_out.bias[7] = float("nan")
    before = weights_and_state(model, step)
    scalars = step(images, tokens)
    after = weights_and_state(model, step)
    assert all(
        torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(before, after, strict=True)
    )
    assert torch.isfinite(scalars["loss"]).item() is (fault == "no tokens")
    if fault == "no tokens":
        assert scalars["loss"].item() == 0


def test_the_gradient_norm_is_clipped(runtime: NativeRuntime) -> None:
    images, tokens = rows(4)
    model = small_model()
    step = make_step(model, runtime, clip_norm=0.01)
    scalars = step(images, tokens)
    clipped = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert scalars["grad_norm"].item() > 0.01
    assert clipped.item() == pytest.approx(0.01, rel=1e-3)


def test_validation_sums_ignore_padding(runtime: NativeRuntime) -> None:
    """Masked rows beside good ones change nothing: 3 rows in a batch of 5 score as 3 alone."""
    images, tokens = rows(3)
    model = small_model().eval()
    alone = validation_sums(model, runtime, images, tokens, pad_id=0)
    padded = validation_sums(
        model,
        runtime,
        torch.cat([images, images[:2]]),
        torch.cat([tokens, torch.zeros_like(tokens[:2])]),
        pad_id=0,
    )
    assert padded["tokens"].item() == alone["tokens"].item()
    assert padded["loss_sum"].item() == pytest.approx(alone["loss_sum"].item(), rel=1e-9)


@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_a_frozen_encoder_keeps_every_bit_and_the_rest_learns(
    runtime: NativeRuntime, clip_norm: float | None
) -> None:
    model = small_model()
    model.encoder.freeze()
    before = {name: entry.clone() for name, entry in model.state_dict().items()}
    step = make_step(model, runtime, clip_norm=clip_norm)
    losses = [step(*rows(4))["loss"].item() for _ in range(3)]
    assert losses[2] < losses[0]
    assert model.training and not model.encoder.training
    changed = {name for name, entry in model.state_dict().items() if not entry.equal(before[name])}
    assert not [name for name in changed if name.startswith("encoder.")]
    assert {"vis_proj.weight", "graph_layer.msg_linear.weight", "fc_out.bias"} <= changed
    # Three moments a parameter that learns, none for the others.
    optimizer = runtime.make_adam(model, OPTIMIZER, encoder=model.image_parameters())
    held = sum(len(group["params"]) for group in optimizer.param_groups)
    assert held == sum(not name.startswith("encoder.") for name, _ in model.named_parameters())


@dataclass
class HostRows:
    images: Tensor
    tokens: Tensor
    pad_id: int = 0


def test_a_batch_without_its_padding_gives_the_same_step(runtime: NativeRuntime) -> None:
    """As the native runtime hands it out, against all of its positions."""
    images, tokens = rows(4)
    ((_, _, cut),) = runtime.batches([HostRows(images, tokens)])
    assert cut.shape[1] < tokens.shape[1]
    found = []
    for given in (tokens, cut):
        model = small_model()
        scalars = make_step(model, runtime)(images, given)
        weights = torch.cat([p.detach().flatten() for p in model.parameters()])
        found.append((scalars["loss"].item(), scalars["grad_norm"].item(), weights))
    (loss, norm, weights), (cut_loss, cut_norm, cut_weights) = found
    assert (cut_loss, cut_norm) == pytest.approx((loss, norm), rel=1e-12)
    assert torch.allclose(cut_weights, weights, rtol=0, atol=1e-9)


def test_a_step_is_the_same_whatever_the_number_of_padding(runtime: NativeRuntime) -> None:
    """Two rows of the vocabulary change places, [PAD]'s and a word's, in the model and the ids."""
    order = torch.arange(50)
    order[0], order[7] = 7, 0
    found = []
    for pad_id in (0, 7):
        model, (images, tokens) = small_model(), rows(6)
        tokens[0, 2] = 7  # the word is there
        if pad_id:
            state = model.state_dict()
            for name in ("embedding.weight", "fc_out.weight", "fc_out.bias"):
                state[name] = state[name][order]
            model.load_state_dict(state)
            tokens = order[tokens.long()].int()
        ((_, _, cut),) = runtime.batches([HostRows(images, tokens, pad_id)])
        step = make_step(model, runtime, pad_id=pad_id, accumulate=2)
        scalars = step(images, cut)
        model.eval()
        sums = validation_sums(model, runtime, images, cut, pad_id=pad_id)
        each = row_loss_sums(model, runtime, images, cut, pad_id=pad_id)
        figures = {**scalars, **{f"val_{name}": value for name, value in sums.items()}}
        found.append((cut.shape, {n: v.item() for n, v in figures.items()}, each))
    assert found[1][0] == found[0][0]
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-9)
    assert found[0][1]["tokens"] == found[0][1]["val_tokens"] > 0
    torch.testing.assert_close(found[1][2], found[0][2])
