"""What a commit's model answers on the golden weights and inputs: `compare_golden.py OUT.npz
WEIGHTS THREADS`.

WEIGHTS is written: golden weights of a model with the whole vocabulary, for `radcap.caption`. Run
by scripts/compare_measure.py, with the commit's checkout first on the path.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from radcap import ImageCaptioningModel

sys.path.append(str(Path(__file__).parent.parent / "tests"))
import golden_formulas as golden

_BERT_WORD_PIECES, _BERT_SEP = 30522, 102
_IDS = SimpleNamespace(
    cls_token_id=golden.START_ID, sep_token_id=golden.END_ID, pad_token_id=golden.PAD_ID
)


def golden_answers() -> dict[str, np.ndarray]:
    """Answers by `PART|WHAT`, float64 unless WHAT says otherwise."""
    model = ImageCaptioningModel(211, embed_dim=32, num_layers=2, num_heads=4, dropout=0.0)
    model.double()
    golden.fill(model)
    model.eval()
    images, tokens = golden.images(), golden.tokens()
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    valid = inputs != golden.PAD_ID  # values at padded positions do not count
    shapes = [f"{name} {list(entry.shape)}" for name, entry in sorted(model.state_dict().items())]
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        found["model outputs|memory, float64"] = model.encode_images(images)
        found["model outputs|logits, float64"] = model(images, inputs)[valid]
        found["model outputs|ids, greedy"] = model.generate(images, 12, _IDS)
        found["model outputs|ids, 3 beams"] = model.generate(images, 12, _IDS, num_beams=3)
    model.train()
    logits = model(images, inputs)
    found["model outputs|logits in training, float64"] = logits[valid].detach()
    loss = nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=golden.PAD_ID
    )
    loss.backward()
    parameters = [parameter for _, parameter in sorted(model.named_parameters())]
    gradients = [p.grad.flatten() for p in parameters if p.grad is not None]
    found["model outputs|loss in training, float64"] = loss.detach()
    found["gradients|of all parameters, float64"] = torch.cat(gradients)
    golden.fill(model)
    model.float().eval()
    with torch.no_grad():
        found["model outputs|logits, float32"] = model(images.float(), inputs)[valid]
    answers = {name: tensor.numpy() for name, tensor in found.items()}
    return {"model outputs|names and shapes of the weights": np.array(shapes), **answers}


def write_caption_weights(path: Path) -> None:
    """Golden weights with which captions of different pictures are different."""
    model = ImageCaptioningModel(_BERT_WORD_PIECES, embed_dim=64, num_layers=1, num_heads=8)
    golden.fill(model, _BERT_SEP, 1.5)
    torch.save(model.state_dict(), path)


def main() -> None:
    torch.set_num_threads(int(sys.argv[3]))
    np.savez(sys.argv[1], **golden_answers())
    write_caption_weights(Path(sys.argv[2]))


if __name__ == "__main__":
    main()
