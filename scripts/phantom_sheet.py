"""A sheet of phantom pictures, a row for each modality and location: normal first, then the
commonest pathologies. Synthetic, not RadImageNet.

    python scripts/phantom_sheet.py sheet.png
"""

from __future__ import annotations

import argparse
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image

from radcap.data.labels import NORMAL, Labels
from radcap.data.phantom.grammar import label_distribution
from radcap.data.phantom.images import draw

COLUMNS = 6
TILE = 96  # pixels a side: the whole sheet stays under 300 kB


def sheet(seed: int = 0) -> Image.Image:
    """The sheet as a grey picture."""
    share = label_distribution()
    tiles = []
    for _, row in groupby(share, key=lambda labels: (labels.modality, labels.location)):
        ranked: list[Labels] = sorted(
            row, key=lambda labels: (labels.pathology != NORMAL, -share[labels])
        )
        tiles.append(
            np.hstack(
                [
                    draw(labels, np.random.default_rng([seed, column]))
                    for column, labels in enumerate(ranked[:COLUMNS])
                ]
            )
        )
    grey = Image.fromarray(np.vstack(tiles))
    return grey.resize((COLUMNS * TILE, len(tiles) * TILE), Image.Resampling.BOX)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw a sheet of phantom pictures.")
    parser.add_argument("file", metavar="FILE.png", type=Path, help="where to write it")
    path = parser.parse_args().file
    if path.suffix != ".png":
        parser.error(f"{path}: the sheet is a .png file")
    sheet().save(path, optimize=True)
