"""The model card's own inference script, with nothing changed but where two classes come from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import ROOT
from PIL import Image
from waiting import PATIENCE_S

from radcap.data.collate import VOCABULARY, load_tokenizer
from radcap.data.image.decode import decode_image
from radcap.model.captioner import ImageCaptioningModel

SCRIPT = """
import torch
from PIL import Image
from torchvision import transforms
from transformers import BertTokenizer

from radcap import GraphPropagationLayer, ImageCaptioningModel

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
tokenizer = BertTokenizer.from_pretrained("tokenizer")
model = ImageCaptioningModel(tokenizer.vocab_size).to(device)
model.load_state_dict(torch.load("pytorch_model.bin", map_location=device))
model.eval()

transform = transforms.Compose([
    transforms.Resize((256, 256)),
    transforms.CenterCrop(224),
    transforms.ToTensor(),
    transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
])
image = transform(Image.open("scan.png").convert("RGB")).unsqueeze(0).to(device)
with torch.no_grad():
    ids = model.generate(image, max_len=80, tokenizer=tokenizer)
print(tokenizer.decode(ids[0], skip_special_tokens=True))
"""


@pytest.mark.slow
def test_the_cards_script_runs_unchanged(tmp_path: Path, card_shapes: dict[str, Any]) -> None:
    # Names, shapes and types are those of the published file; the values are drawn here.
    torch.manual_seed(0)
    model = ImageCaptioningModel(30_522)
    with torch.no_grad():
        model.fc_out.bias[102] += 1.6  # so that the caption ends by itself
    state = model.state_dict()
    assert {name: list(entry.shape) for name, entry in state.items()} == card_shapes
    torch.save(state, tmp_path / "pytorch_model.bin")
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "vocab.txt").write_bytes(VOCABULARY.read_bytes())
    picture = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "scan.png")
    (tmp_path / "inference.py").write_text(SCRIPT)

    done = subprocess.run(
        [sys.executable, "-W", "error", "inference.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    words = done.stdout.strip()
    assert words
    # radcap's own reader and uint8 path write the same caption.
    pixels = torch.from_numpy(decode_image((tmp_path / "scan.png").read_bytes()).copy())[None]
    ids = model.generate(pixels, max_len=80)
    assert words == load_tokenizer().decode(ids[0], skip_special_tokens=True)
