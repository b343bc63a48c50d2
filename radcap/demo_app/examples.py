"""Drawn pictures to try the page with: synthetic, no patient's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from radcap.data.labels import Labels, display_name
from radcap.data.phantom.dataset import NOTICE
from radcap.data.phantom.images import draw
from radcap.demo_app.result import data_uri
from radcap.files.markup import html

_THUMBNAIL = 112
_LABELS = (
    ("mri", "knee", "meniscal_abnormality"),
    ("mri", "brain", "white_matter_changes"),
    ("mri", "spine", "disc_pathology"),
    ("mri", "hip", "labral_pathology"),
    ("ct", "lung", "nodule"),
    ("ct", "abdomen", "normal"),
)


@dataclass(frozen=True)
class Example:
    """A phantom picture.

    Attributes:
        title: what it stands for.
        picture: uint8 [224, 224], grey.
    """

    title: str
    picture: np.ndarray


def draw_examples() -> list[Example]:
    """The same pictures at every call."""
    return [
        Example(
            f"{modality.upper()} {display_name(location)}: {display_name(pathology)}",
            draw(Labels.of(modality, location, pathology), np.random.default_rng(number)),
        )
        for number, (modality, location, pathology) in enumerate(_LABELS)
    ]


def examples_html(examples: list[Example]) -> str:
    """A button with a small picture for each, which carries its number in `data-number`."""
    buttons = []
    for number, example in enumerate(examples):
        small = Image.fromarray(example.picture).resize((_THUMBNAIL, _THUMBNAIL))
        title = html(example.title)
        buttons.append(
            f'<button type="button" data-number="{number}"><img src="{data_uri(small)}" alt="">'
            f"{title}</button>"
        )
    return (
        f'<p class="rc-label">No picture at hand? Drawn ones ({NOTICE}):</p>'
        f'<div class="rc-examples">{"".join(buttons)}</div>'
    )
