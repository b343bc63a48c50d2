"""Small data sets in the real one's form, drawn here."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

Writer = Callable[..., Path]


def png(seed: int, size: tuple[int, int] = (40, 40)) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


def row(number: int, **changes: Any) -> dict[str, Any]:
    """Row `number`: its caption names it."""
    return {
        "image": {"bytes": png(number), "path": f"{number}.png"},
        "conversations": [
            {"from": "human", "value": "<image>\nDescribe."},
            {"from": "template", "value": f"row number {number}"},
        ],
        "metadata": {
            "content_type": "description",
            "correct_text": None,
            "is_abnormal": True,
            "location": "knee",
            "modality": "mri",
            "pathology": "fracture",
            "question_id": "description",
        },
    } | changes


@pytest.fixture(name="row")
def row_fixture() -> Callable[..., dict[str, Any]]:
    return row


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """write(files, split="train"): files is a list of files, each a list of row groups, each a
    list of rows. Returns the data set's folder."""

    def write(files: Sequence[Sequence[Sequence[dict[str, Any]]]], split: str = "train") -> Path:
        folder = tmp_path / "set"
        (folder / "alignment").mkdir(parents=True, exist_ok=True)
        for number, groups in enumerate(files):
            rows = [row for group in groups for row in group]
            schema = pa.Table.from_pylist(rows).schema
            name = f"{split}-{number:05d}-of-{len(files):05d}.parquet"
            with pq.ParquetWriter(folder / "alignment" / name, schema) as writer:
                for group in groups:
                    writer.write_table(pa.Table.from_pylist(list(group), schema))
        return folder

    return write


@pytest.fixture
def numbered(write: Writer) -> Callable[..., Path]:
    """numbered(3, 5, 4): one file for every two row groups, of these many rows, numbered on."""

    def numbered(*sizes: int, split: str = "train") -> Path:
        groups, start = [], 0
        for size in sizes:
            groups.append([row(number) for number in range(start, start + size)])
            start += size
        return write([groups[i : i + 2] for i in range(0, len(groups), 2)], split)

    return numbered


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    from radcap.data.collate import load_tokenizer

    return load_tokenizer()
