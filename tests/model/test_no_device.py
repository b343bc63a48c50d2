"""The model names no device and asks for none: by its source, and by running it."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from radcap.model.captioner import ImageCaptioningModel
from radcap.model.generate import begin_search, greedy_step

FILES = sorted((Path(__file__).parents[2] / "radcap" / "model").glob("*.py"))
KINDS = r"\b(cpu|cuda|gpu|mps|xla|tpu|xpu|hpu)(:\d+)?\b"
# What tells kinds of devices apart, or names one; `meta`, shapes alone, is none.
ASKING = {
    *("type", "is_cpu", "is_cuda", "is_mps", "is_xla", "is_xpu", "is_meta", "get_device"),
    *("cpu", "cuda", "mps", "xpu", "accelerator", "backends", "amp", "autocast"),
    *("is_autocast_enabled", "is_autocast_available", "get_autocast_dtype"),
    *("is_autocast_cpu_enabled", "get_autocast_gpu_dtype", "get_autocast_cpu_dtype"),
    *("torch_xla", "device_type"),
}
# A kind of device that torch knows and nobody has.
MADE_UP = torch.device("privateuseone")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_source_names_no_device_and_asks_for_none(file: Path) -> None:
    tree = ast.parse(file.read_text())
    docs = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and ast.get_docstring(node) is not None
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            assert node.attr not in ASKING, f"{file.name}:{node.lineno}: .{node.attr}"
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            assert not names & ASKING, f"{file.name}:{node.lineno}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docs:
            assert not re.search(KINDS, node.value.lower()), f"{file.name}:{node.lineno}"


class MadeUpDevice(TorchFunctionMode):
    """Tensors of the CPU that say they are on `MADE_UP`, and refuse other questions.

    Attributes:
        asked: how often a tensor's device was passed on to a new one.
    """

    asked = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__self__", func)
        if func == Tensor.device.__get__:
            return MADE_UP
        assert getattr(name, "__name__", None) not in ASKING, name
        given = dict(kwargs or {})
        if given.get("device") == MADE_UP:
            self.asked += 1
            given["device"] = torch.device("cpu")
        return func(*args, **given)


def small_model() -> ImageCaptioningModel:
    torch.manual_seed(0)
    return ImageCaptioningModel(30, 16, 2, 4, dropout=0.0)


def train(model: ImageCaptioningModel, images: Tensor, tokens: Tensor) -> list[Tensor]:
    """Loss and gradients of a step."""
    hidden = model.decode(model.encode_images(images), tokens[:, :-1])
    loss = model.fc_out.loss_sum(hidden, tokens[:, 1:], 0)
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.fixture
def no_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may ask for autocast, whose state belongs to a kind of device."""

    def asked(*args: Any, **options: Any) -> Any:
        raise AssertionError(f"the model asked for autocast: {args}")

    for name in ("is_autocast_enabled", "get_autocast_dtype", "autocast"):
        monkeypatch.setattr(torch, name, asked)


def test_a_device_of_any_kind_gives_the_same(no_questions: None) -> None:
    """A step of training, and both searches."""
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    tokens = torch.tensor([[1, 5, 7, 9, 2, 0], [1, 6, 2, 0, 0, 0]])

    def work() -> list[Tensor]:
        model = small_model()
        found = train(model, images, tokens)
        for num_beams in (1, 3):
            found += model.search(images, 6, num_beams=num_beams, start_id=1, end_id=2)
        found += [model.eval().fc_out.row_losses(torch.ones(2, 5, 16), tokens[:, 1:], 0)]
        return found

    expected = work()
    with MadeUpDevice() as mode:
        found = work()
    assert mode.asked > 10
    assert all(torch.equal(one, wanted) for one, wanted in zip(found, expected, strict=True))


def test_the_made_up_device_notices_a_question() -> None:
    x = torch.ones(2)
    questions: list[Callable[[], object]] = [lambda: x.is_cpu, lambda: x.cpu(), x.get_device]
    with MadeUpDevice():
        assert x.device.type == "privateuseone"
        for question in questions:
            with pytest.raises(AssertionError):
                question()


def test_shapes_alone_go_through_training_and_a_search(no_questions: None) -> None:
    with torch.device("meta"):
        model = small_model()
        images = torch.empty(2, 3, 224, 224, dtype=torch.uint8)
        tokens = torch.empty(2, 6, dtype=torch.int32)
        _, *gradients = train(model, images, tokens)
        shapes = [gradient.shape for gradient in gradients]
        assert shapes == [parameter.shape for parameter in model.parameters()]
        with torch.no_grad():
            state = begin_search(model.eval(), images, 7, start_id=1, pad_id=0)
            state = greedy_step(model, state, end_id=2, pad_id=0)
    assert state.written.shape == (2, 7) and state.written.is_meta
