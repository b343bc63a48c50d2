"""The golden model of tests/golden/README.md (weights by formula, inputs, answers), the cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import golden_formulas
import numpy as np
import pytest
import torch
from torch import Tensor

from radcap.model.captioner import ImageCaptioningModel

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def golden_model() -> ImageCaptioningModel:
    """The golden model in float64, evaluation mode, no dropout."""
    model = ImageCaptioningModel(211, embed_dim=32, num_layers=2, num_heads=4, dropout=0.0)
    model.double()
    golden_formulas.fill(model)
    return model.eval()


@pytest.fixture(scope="session")
def golden_images() -> Tensor:
    return golden_formulas.images()


@pytest.fixture(scope="session")
def golden_tokens() -> Tensor:
    return golden_formulas.tokens()


@pytest.fixture(scope="session")
def golden_answers() -> dict[str, Tensor]:
    with np.load(GOLDEN / "card_tiny.npz") as answers:
        return {name: torch.from_numpy(np.asarray(answers[name])) for name in answers}


@pytest.fixture(scope="session")
def card_shapes() -> dict[str, Any]:
    return json.loads((GOLDEN / "card_state_dict_shapes.json").read_text())


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One phantom data set for all runs of the command."""
    return tmp_path_factory.mktemp("cache")
