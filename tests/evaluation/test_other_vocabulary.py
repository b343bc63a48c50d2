"""A model whose vocabulary has its special tokens in other rows is the same model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from evaluation.known import ROWS, looking_model, write_rows
from torch import Tensor

from radcap.data.collate import VOCABULARY
from radcap.evaluate import main
from radcap.serving import package
from radcap.serving.captioner import Captioner
from radcap.serving.pretrained import load_pretrained

# [PAD], [CLS] and [SEP] change places with words of the data.
SWAPS = {"[PAD]": "displays", "[CLS]": "knee", "[SEP]": "mri"}


def write(folder: Path, state: Mapping[str, Tensor], words: Sequence[str]) -> Path:
    folder.mkdir()
    plain = {name: entry.contiguous() for name, entry in state.items()}
    safetensors.torch.save_file(plain, folder / "model.safetensors")
    (folder / "config.json").write_text('{"num_heads": 8}')
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same captioner twice: with bert-base-uncased's vocabulary, and with rows swapped."""
    home = tmp_path_factory.mktemp("models")
    words = VOCABULARY.read_text(encoding="utf-8").split("\n")[:-1]
    state = looking_model(num_layers=1, num_heads=8).state_dict()
    usual = write(home / "usual", state, words)
    order = list(range(len(words)))
    for special, word in SWAPS.items():
        one, other = words.index(special), words.index(word)
        order[one], order[other] = other, one
    swapped = {
        name: entry[order] if name.startswith(("embedding.", "fc_out.")) else entry
        for name, entry in state.items()
    }
    return usual, write(home / "swapped", swapped, [words[i] for i in order])


def test_an_evaluation_has_the_same_tokens_losses_and_captions(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    data = write_rows(tmp_path / "data", ROWS)
    found = []
    for folder in models:
        out = tmp_path / folder.name
        words = (
            *(f"evaluate.weights={folder}", f"data.path={data}", f"evaluate.out={out}"),
            *("runtime=cpu", "runtime.threads=1", "data.workers=0", "data.batch_size=4"),
            *("data.max_skipped_fraction=0.5", "data.max_length=10"),
        )
        assert main(words) == 0
        lines = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
        found.append((lines, json.loads((out / "results.json").read_text())))
    (usual, usual_results), (swapped, swapped_results) = found
    for name in ("tokens", "caption", "cut", "reference", "skipped"):
        assert [row[name] for row in swapped] == [row[name] for row in usual], name
    # 12 rows of 9 to 11 word pieces and [SEP], two of them cut.
    assert [row["tokens"] for row in usual if row["skipped"] is None] == [9] * 9 + [10] * 3
    assert len({row["caption"] for row in usual}) > 2
    assert [row["loss"] for row in swapped] == pytest.approx([row["loss"] for row in usual])
    scores = usual_results["scores"]
    assert swapped_results["scores"]["loss"]["count"] == scores["loss"]["count"] == 111
    for name, one in swapped_results["scores"].items():
        assert one["value"] == pytest.approx(scores[name]["value"]), name


def test_captions_and_where_the_decoder_looks_are_the_same(models: tuple[Path, Path]) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (2, 3, 224, 224), dtype=np.uint8)
    read = ["mri", "of", "knee", "displays", "fracture"]  # the last one read has [PAD]'s old row
    found: list[tuple[Any, np.ndarray]] = []
    for folder in models:
        captioner = Captioner(load_pretrained(folder), device="cpu")
        captions = captioner.describe(noise, max_len=12, num_beams=2)
        maps = captioner.attention(noise[0], read)
        found.append(([caption.tokens for caption in captions], maps))
    assert found[0][0] == found[1][0]
    assert found[1][1].shape == (5, 7, 7)
    np.testing.assert_allclose(found[1][1], found[0][1], atol=1e-6)


def test_an_export_knows_the_special_tokens(models: tuple[Path, Path]) -> None:
    usual, swapped = (package._config(load_pretrained(folder)) for folder in models)
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    assert [usual[name] for name in names] == [101, 102, 0]
    words = VOCABULARY.read_text(encoding="utf-8").split("\n")
    assert [swapped[name] for name in names] == [
        words.index(SWAPS[special]) for special in ("[CLS]", "[SEP]", "[PAD]")
    ]


@pytest.mark.slow
def test_the_exported_programs_end_their_captions_where_the_model_does(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    """`export` holds the ids of generate.py against the model's; its captions are read here."""
    texts = []
    noise = torch.randint(256, (2, 3, 224, 224), generator=torch.Generator().manual_seed(1)).byte()
    for folder in models:
        pretrained = load_pretrained(folder)
        with torch.no_grad():  # [SEP] soon
            pretrained.model.fc_out.bias[pretrained.tokenizer.sep_token_id] += 2.0
        out = tmp_path / folder.name
        package.export(pretrained, out, name="x", say=lambda _: None)
        scope: dict[str, Any] = {"__file__": str(out / "generate.py"), "__name__": "generate"}
        exec((out / "generate.py").read_text(encoding="utf-8"), scope)
        texts.append(scope["Captioner"]().captions(noise))
        shutil.rmtree(out)
    assert texts[0] == texts[1]
