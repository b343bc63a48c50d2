"""The lists of forms: what they change, keep and refuse; that forms equal their plain modules."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from radcap.errors import ConfigError
from radcap.forms.attention import DrawnDropoutAttention, HeadsApartAttention
from radcap.forms.lists import CPU, PROCESSES, XLA, Forms, convert, place
from radcap.forms.norm import GlobalBatchNorm
from radcap.forms.spread import Spread
from radcap.model.captioner import ImageCaptioningModel
from radcap.model.decoder import KeyValue, MultiHeadAttention
from radcap.runtime.native import NativeRuntime

LISTS = {"xla": XLA, "cpu": CPU, "processes": PROCESSES, "cpu processes": {**CPU, **PROCESSES}}
every_list = pytest.mark.parametrize("forms", LISTS.values(), ids=LISTS.keys())


def small_model(**settings: Any) -> ImageCaptioningModel:
    """In float64, with norms that do something."""
    torch.manual_seed(0)
    model = ImageCaptioningModel(30, 16, 2, 4, batch_norm_momentum=0.3, **settings).double()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, 0.5, 0.5)
    return model


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (4, 3, 224, 224), generator=generator, dtype=torch.uint8)
    tokens = torch.randint(1, 30, (4, 7), generator=generator, dtype=torch.int32)
    tokens[1, 4:] = tokens[2, 2:] = tokens[3] = 0
    return images, tokens


def classes(model: nn.Module) -> list[type[nn.Module]]:
    return [type(module) for module in model.modules()]


@every_list
def test_a_list_changes_classes_and_nothing_else(forms: Forms) -> None:
    model = small_model()
    model.encoder.freeze()
    before = classes(model)
    names = [name for name, _ in model.named_modules()]
    parameters = list(model.named_parameters())
    wanted = {name: entry.clone() for name, entry in model.state_dict().items()}
    kept = [dict(module._parameters) for module in model.modules()]
    trained = [parameter.requires_grad for parameter in model.parameters()]
    modes = [module.training for module in model.modules()]
    convert(model, forms)
    assert [name for name, _ in model.named_modules()] == names
    found = list(model.named_parameters())
    assert [name for name, _ in found] == [name for name, _ in parameters]
    assert all(now is then for (_, now), (_, then) in zip(found, parameters, strict=True))
    for module, then in zip(model.modules(), kept, strict=True):
        assert list(module._parameters) == list(then)
    assert list(model.state_dict()) == list(wanted)
    assert all(torch.equal(entry, wanted[name]) for name, entry in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()] == trained
    assert [module.training for module in model.modules()] == modes
    assert classes(model) == [forms.get(plain, plain) for plain in before]
    for plain, form in forms.items():
        assert issubclass(form, plain) and plain in before


def test_a_list_takes_the_place_of_the_one_before() -> None:
    model = small_model()
    plain = classes(model)
    for forms in (XLA, CPU, CPU, PROCESSES, {}):
        convert(model, forms)
        assert classes(model) == [forms.get(one, one) for one in plain]


@every_list
def test_all_forms_together_equal_the_plain_model(forms: Forms) -> None:
    """Losses, gradients, running statistics of a training step; losses and ids in evaluation."""
    plain = small_model(dropout=0.0)
    ours = copy.deepcopy(plain)
    convert(ours, forms, Spread(num_groups=2))
    images, tokens = inputs()
    for training in (True, False):
        losses = []
        for model in (plain, ours):
            model.train(training).zero_grad()
            hidden = model.decode(model.encode_images(images), tokens[:, :-1])
            loss = model.fc_out.loss_sum(hidden, tokens[:, 1:], 0)
            loss.backward()
            losses.append(
                torch.cat([loss[None], model.fc_out.row_losses(hidden, tokens[:, 1:], 0)])
            )
        assert_equal(losses[1], losses[0], "losses")
        for (name, found), (_, wanted) in zip(
            ours.named_parameters(), plain.named_parameters(), strict=True
        ):
            assert found.grad is not None and wanted.grad is not None
            assert_equal(found.grad, wanted.grad, name)
        for name, wanted in plain.state_dict().items():
            assert_equal(ours.state_dict()[name], wanted, name)
    ids = {"start_id": 1, "end_id": 2}
    for num_beams in (1, 3):
        found, expected = (
            model.search(images, 9, num_beams=num_beams, **ids) for model in (ours, plain)
        )
        assert torch.equal(found.ids, expected.ids)
        torch.testing.assert_close(found.log_probs, expected.log_probs)


def assert_equal(found: Tensor, wanted: Tensor, name: str) -> None:
    """Within 1e-10 of the largest element."""
    assert found.dtype == wanted.dtype, name
    found, wanted = found.detach(), wanted.detach()
    assert (found - wanted).abs().max() <= 1e-10 * max(float(wanted.abs().max()), 1.0), name


@pytest.mark.parametrize("form", [HeadsApartAttention, DrawnDropoutAttention])
def test_attention_equals_the_plain_one(form: type[MultiHeadAttention]) -> None:
    """Causal self-attention, then attention to a part of a memory, in training."""
    torch.manual_seed(0)
    plain = MultiHeadAttention(16, 4, 0.0).double()
    ours = copy.deepcopy(plain)
    convert(ours, {MultiHeadAttention: form})
    if form is DrawnDropoutAttention:
        ours.dropout = 1e-7  # less than one of 65,536 levels: none is dropped, by what drops some
    start, memory = torch.randn(3, 7, 16).double(), torch.randn(3, 11, 16).double()
    visible = torch.arange(11)[None, :] < 5
    found = []
    for attention in (ours, plain):
        x, seen = start.clone().requires_grad_(), memory.clone().requires_grad_()
        query, key, value = attention.project(x)
        attended = x + attention.attend(query, KeyValue(key, value), is_causal=True)
        query, kv = attention.project_query(attended), attention.project_key_value(seen)
        output = attention.attend(query, kv, visible=visible)
        output.square().sum().backward()
        gradients = [leaf.grad for leaf in (x, seen, *attention.parameters())]
        found.append([output, *(gradient for gradient in gradients if gradient is not None)])
    assert len(found[0]) == 7
    for number, (one, wanted) in enumerate(zip(*found, strict=True)):
        assert_equal(one, wanted, str(number))


def test_the_encoder_stays_in_float32_under_autocast_on_a_cpu() -> None:
    plain = small_model().float().encoder.eval()
    ours = copy.deepcopy(plain)
    convert(ours, CPU)
    images, _ = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        found, narrow = ours(images), plain(images)
    assert torch.equal(found, plain(images))
    assert narrow.dtype == torch.bfloat16


class ActivatedBatchNorm(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).relu()


class ChannelLayerNorm(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class OwnEmbedding(nn.Embedding):
    pass


class OwnDropout(nn.Dropout):
    pass


BATCH_NORMS = [
    *(ActivatedBatchNorm(3), nn.BatchNorm1d(3), nn.SyncBatchNorm(3)),
    *(nn.BatchNorm2d(3, affine=False), nn.BatchNorm2d(3, momentum=None)),
    nn.BatchNorm2d(3, track_running_stats=False),
]
LAYER_NORMS = [ChannelLayerNorm(3), nn.LayerNorm((3, 4)), nn.LayerNorm(3, bias=False)]


@pytest.mark.parametrize("norm", [*BATCH_NORMS, *LAYER_NORMS], ids=str)
@every_list
def test_a_norm_without_a_form_is_refused_by_name(forms: Forms, norm: nn.Module) -> None:
    """Where the list spreads norms of its kind; and nothing has changed then."""
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ModuleDict({"norm": norm}))
    before = classes(model)
    kind = nn.LayerNorm if isinstance(norm, nn.LayerNorm) else nn.BatchNorm2d
    if kind not in forms:
        convert(model, forms)
        assert type(norm) is before[-1]
        return
    with pytest.raises(ConfigError) as error:
        convert(model, forms)
    message = str(error.value)
    assert message.startswith("1.norm, a ") and f".{type(norm).__name__}: " in message
    assert "\n" not in message
    assert classes(model) == before


@every_list
def test_other_modules_that_are_not_exactly_plain_stay(forms: Forms) -> None:
    model = nn.ModuleList(
        [nn.GroupNorm(2, 4), nn.Embedding(5, 3, padding_idx=0), OwnEmbedding(5, 3), OwnDropout(0.1)]
    )
    before = classes(model)
    convert(model, forms)
    assert classes(model) == before


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_runtime_is_handed_the_list_of_its_devices(num_processes: int) -> None:
    runtime = NativeRuntime("cpu", precision="fp32", threads=1)
    runtime.num_processes = num_processes
    model = small_model()
    plain = classes(model)
    place(model, runtime)
    forms = CPU if num_processes == 1 else {**CPU, **PROCESSES}
    assert classes(model) == [forms.get(one, one) for one in plain]
    norm = model.encoder.features[0][1]
    assert isinstance(norm, GlobalBatchNorm) is (num_processes > 1)
    if isinstance(norm, GlobalBatchNorm):
        assert norm.spread == Spread(1, 2, runtime.sum_over_devices)
