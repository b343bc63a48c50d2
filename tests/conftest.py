"""The golden model of tests/golden/README.md (weights by formula, inputs, answers), the cache,
and what holds for all tests."""

from __future__ import annotations

import json
import math
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import Tensor

from radcap.model.captioner import ImageCaptioningModel

GOLDEN = Path(__file__).parent / "golden"

# On a busy machine an example takes long, and so does drawing one.
settings.register_profile("radcap", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("radcap")

# A shell lets what it starts in the background ignore Ctrl-C, and so would what a test starts.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


def golden_fill(model: ImageCaptioningModel) -> None:
    """Fill a model with the golden weights."""
    state = model.state_dict()
    filled = {}
    for k, name in enumerate(sorted(state)):
        entry = state[name]
        if not entry.is_floating_point():
            filled[name] = torch.zeros_like(entry)
            continue
        index = torch.arange(entry.numel(), dtype=torch.float64)
        s = 43758.5453 * torch.sin(12.9898 * index + 78.233 * k)
        x = 2 * (s - s.floor()) - 1
        if name == "pos_encoder":
            value = 0.5 * x
        elif entry.ndim == 2 and name.startswith(("vis_proj.", "graph_layer.")):
            value = 1.2 * x / math.sqrt(entry.shape[1])
        elif entry.ndim >= 2:
            value = 2.4 * x / math.sqrt(entry[0].numel())
        elif name.endswith("running_var"):
            value = 1 + 0.5 * x
        elif name.endswith(".weight"):
            value = 1 + 0.1 * x
        else:
            value = 0.1 * x
        filled[name] = value.view(entry.shape)
    filled["fc_out.bias"][2] += 4.6
    model.load_state_dict(filled)


@pytest.fixture
def golden_model() -> ImageCaptioningModel:
    """The golden model in float64, evaluation mode, no dropout."""
    model = ImageCaptioningModel(211, embed_dim=32, num_layers=2, num_heads=4, dropout=0.0)
    model.double()
    golden_fill(model)
    return model.eval()


@pytest.fixture(scope="session")
def golden_images() -> Tensor:
    i = torch.arange(3 * 224 * 224, dtype=torch.float64)
    images = [torch.cos(0.013 * i), 1.5 * torch.sin(0.0021 * i) + torch.cos(0.4 * i)]
    return torch.stack(images).view(2, 3, 224, 224)


@pytest.fixture(scope="session")
def golden_tokens() -> Tensor:
    return torch.tensor([[1, 5, 7, 9, 11, 2, 0], [1, 6, 8, 10, 2, 0, 0]])


@pytest.fixture(scope="session")
def golden_answers() -> dict[str, Tensor]:
    with np.load(GOLDEN / "card_tiny.npz") as answers:
        return {name: torch.from_numpy(np.asarray(answers[name])) for name in answers}


@pytest.fixture(scope="session")
def card_shapes() -> dict[str, Any]:
    return json.loads((GOLDEN / "card_state_dict_shapes.json").read_text())


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Addresses that this process tries to connect to from now on."""
    tried: list[Any] = []

    class Noting(socket.socket):
        def connect(self, address: Any) -> None:
            tried.append(address)
            super().connect(address)

    monkeypatch.setattr(socket, "socket", Noting)
    return tried


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One phantom data set for all runs of the command."""
    return tmp_path_factory.mktemp("cache")
