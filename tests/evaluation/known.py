"""A data set whose captions are known, and a model that says one sentence whatever it sees."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch
from PIL import Image
from transformers import BertTokenizer

from radcap.model.captioner import ImageCaptioningModel

SAID = "mri scan of the knee leg displays fracture"
WIDTH = 32
_CERTAINTY = 2.0

# (caption, modality, location, pathology); None for a row without a caption.
ROWS: list[tuple[str, str, str, str] | None] = [
    *[(SAID, "mri", "knee", "fracture")] * 6,
    *[("ct scan of the knee leg displays fracture", "ct", "knee", "fracture")] * 3,
    *[("mri scan of the spine spinal displays scoliosis", "mri", "spine", "scoliosis")] * 2,
    ("MRI scan of the knee leg displays normal anatomy", "mri", "knee", "normal"),
    None,
]
GOOD = [row for row in ROWS if row is not None]
# Of what the model says: right answers of 12.
RIGHT = {"modality": 9, "location": 10, "pathology": 9, "abnormal": 11, "all": 6}


def write_rows(
    folder: Path, rows: Sequence[tuple[str, str, str, str] | None], split: str = "val"
) -> Path:
    """A local data set in the real one's form, two row groups a file; returns the folder."""
    (folder / "alignment").mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([_row(number, row) for number, row in enumerate(rows)])
    file = folder / "alignment" / f"{split}-00000-of-00001.parquet"
    pq.write_table(table, file, row_group_size=math.ceil(len(rows) / 2))
    return folder


def _row(number: int, row: tuple[str, str, str, str] | None) -> dict[str, Any]:
    caption, modality, location, pathology = row or ("", "mri", "knee", "fracture")
    noise = np.random.default_rng(number).integers(0, 256, (40, 40), dtype=np.uint8)
    picture = io.BytesIO()
    Image.fromarray(noise).resize((224, 224)).save(picture, "PNG")
    return {
        "image": {"bytes": picture.getvalue(), "path": f"{number}.png"},
        "conversations": [
            {"from": "human", "value": "<image>\nDescribe."},
            {"from": "template", "value": caption},
        ],
        "metadata": {
            "modality": modality,
            "location": location,
            "pathology": pathology,
            "is_abnormal": pathology != "normal",
        },
    }


def speaking_model(tokenizer: BertTokenizer, text: str = SAID) -> ImageCaptioningModel:
    """Says `text`: position t of the decoder makes one token likely, and nothing else matters.

    Embeddings and all branches of the decoder are 0 and position t is the t-th unit vector, so
    that the hidden state is its layer norm, whatever the image and the tokens before are.
    """
    model = ImageCaptioningModel(len(tokenizer), WIDTH, 1, 8, dropout=0.0)
    with torch.no_grad():
        for parameter in (*model.decoder.parameters(), *model.fc_out.parameters()):
            parameter.zero_()
        for layer in model.decoder.layers:
            for norm in (layer.norm1, layer.norm2, layer.norm3):
                norm.weight.fill_(1.0)
        model.embedding.weight.zero_()
        model.pos_encoder.zero_()
        model.pos_encoder[0, :WIDTH] = torch.eye(WIDTH)
        for position, token in enumerate(target_ids(tokenizer, text)):
            model.fc_out.weight[token, position] += _CERTAINTY
    return model.eval()


def looking_model(num_layers: int, num_heads: int) -> ImageCaptioningModel:
    """Random weights whose captions differ from picture to picture.

    Untrained running statistics let next to nothing of a picture through; here they are those of
    some noise, and attention to the picture weighs more.
    """
    torch.manual_seed(3)
    model = ImageCaptioningModel(30522, 16, num_layers, num_heads, batch_norm_momentum=1.0)
    model.encoder.train()
    with torch.no_grad():
        model.encoder(torch.randint(256, (8, 3, 224, 224)).byte())
        for layer in model.decoder.layers:
            layer.multihead_attn.out_proj.weight.mul_(5)
    return model.eval()


def expected_loss(tokenizer: BertTokenizer, reference: str, text: str = SAID) -> float:
    """Nats of a reference under `speaking_model`, by its formula."""
    weight = np.zeros((len(tokenizer), WIDTH))
    for position, token in enumerate(target_ids(tokenizer, text)):
        weight[token, position] += _CERTAINTY
    nats = 0.0
    for position, token in enumerate(target_ids(tokenizer, reference)):
        hidden = np.full(WIDTH, -1 / math.sqrt(WIDTH - 1))  # of a unit vector, the layer norm
        hidden[position] = math.sqrt(WIDTH - 1)
        logits = weight @ hidden
        nats += math.log(np.exp(logits).sum()) - logits[token]
    return nats


def target_ids(tokenizer: BertTokenizer, text: str) -> list[int]:
    """The word pieces of a caption and its [SEP]."""
    return tokenizer(text, add_special_tokens=True)["input_ids"][1:]


def save(model: ImageCaptioningModel, file: Path) -> Path:
    """Write a weights file; eight heads, as a bare one is taken to have."""
    safetensors.torch.save_file(model.state_dict(), file)
    return file
