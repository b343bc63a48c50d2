"""Pictures of the phantom data set: drawn with numpy from labels, synthetic, not RadImageNet.

Each label has its trace in the picture. The location is the outline and layout of the body part,
the modality its texture, and the pathology a test mark such as quality-assurance phantoms carry
(line pairs, discs, crosses), unique in its location, at a random place inside the body part; a
normal image has none.
Pose, noise, brightness and contrast are chance.

Lengths are in units of half the picture's side, x to the right and y down, the centre at 0. Grey
levels run from 0 to 1 until the last step.
"""

from __future__ import annotations

import io
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from radcap.data.labels import MODALITIES, NORMAL, Labels
from radcap.data.phantom.grammar import label_distribution

SIDE = 224
_PIXEL = 2 / SIDE
_AXIS = ((np.arange(SIDE, dtype=np.float32) + 0.5) * _PIXEL - 1).astype(np.float32)

_TISSUE = 0.46
_BACKGROUND = 0.04

Grey = np.ndarray  # float32 [SIDE, SIDE]
Shape = Callable[[np.ndarray, np.ndarray], np.ndarray]


# ---- the mark of the pathology ------------------------------------------------------------------


@dataclass(frozen=True)
class Mark:
    """The code of a pathology: which glyph, how many, how large."""

    glyph: str
    count: int
    radius: float


def _stripes(angle: float, period: float) -> Shape:
    """Line pairs, in a disc, at an angle in degrees."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    wave = 2 * math.pi / period
    return lambda x, y: (x * x + y * y < 1.1) & (np.sin((x * cos + y * sin) * wave) > 0)


def _checker(period: float) -> Shape:
    wave = 2 * math.pi / period
    return lambda x, y: (
        (np.maximum(abs(x), abs(y)) < 0.95) & (np.sin(x * wave) * np.sin(y * wave) > 0)
    )


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (np.minimum(abs(x), abs(y)) < 0.24) & (np.maximum(abs(x), abs(y)) < 1)


_FINE, _COARSE = 0.32, 0.7  # periods

# In units of the glyph's radius, from the most to the least telling: the order in which an encoder
# that starts from random weights learned to tell them. All are bright: dark ones look like organs.
GLYPHS: dict[str, Shape] = {
    "disc": lambda x, y: x * x + y * y < 0.8,
    "fine_0": _stripes(0, _FINE),
    "fine_45": _stripes(45, _FINE),
    "fine_90": _stripes(90, _FINE),
    "fine_135": _stripes(135, _FINE),
    "frame": lambda x, y: abs(np.maximum(abs(x), abs(y)) - 0.75) < 0.17,
    "coarse_135": _stripes(135, _COARSE),
    "cross": _cross,
    "coarse_45": _stripes(45, _COARSE),
    "coarse_0": _stripes(0, _COARSE),
    "saltire": lambda x, y: _cross((x + y) * 0.7071, (x - y) * 0.7071),
    "coarse_90": _stripes(90, _COARSE),
    "ring": lambda x, y: abs(np.sqrt(x * x + y * y) - 0.78) < 0.2,
    "bar": lambda x, y: (abs(x) < 1) & (abs(y) < 0.3),
    "fine_checker": _checker(0.4),
    "pole": lambda x, y: (abs(x) < 0.3) & (abs(y) < 1),
    "checker": _checker(0.95),
    "triangle": lambda x, y: (y < 0.75) & (y > 1.9 * abs(x) - 0.95),
}
_TIERS = ((1, 0.30), (2, 0.21), (3, 0.17))


@lru_cache(maxsize=1)
def mark_codes() -> dict[str, Mark]:
    """Pathology -> mark, the commonest first served with the most telling one that is free.

    No two pathologies of a location are alike. Those that never meet may be: the picture shows the
    location too.
    """
    share: dict[str, float] = defaultdict(float)
    places: dict[str, set[str | None]] = defaultdict(set)
    for labels, probability in label_distribution().items():
        if labels.pathology is not None and labels.pathology != NORMAL:
            share[labels.pathology] += probability
            places[labels.pathology].add(labels.location)
    marks = [Mark(glyph, count, radius) for count, radius in _TIERS for glyph in GLYPHS]
    codes: dict[str, Mark] = {}
    for name in sorted(share, key=lambda name: (-share[name], name)):
        taken = {codes[other] for other in codes if places[other] & places[name]}
        free = [mark for mark in marks if mark not in taken]
        assert free, "more pathologies in a location than marks"
        codes[name] = free[0]
    return codes


def _draw_mark(image: Grey, mark: Mark, x: float, y: float, rng: np.random.Generator) -> None:
    """Paint the glyphs of a mark around (x, y), several of them on a circle about it."""
    radius = mark.radius * rng.uniform(0.92, 1.08)
    turn = math.radians(rng.uniform(-9, 9))
    cos, sin = math.cos(turn), math.sin(turn)
    start = rng.uniform(0, 2 * math.pi)
    distance = 0.0 if mark.count == 1 else radius * (1.1 if mark.count == 2 else 1.35)
    level = rng.uniform(0.86, 0.98)
    for number in range(mark.count):
        angle = start + 2 * math.pi * number / mark.count
        cx, cy = x + distance * math.cos(angle), y + distance * math.sin(angle)
        reach = 1.1 * radius
        rows = slice(*np.searchsorted(_AXIS, (cy - reach, cy + reach)))
        columns = slice(*np.searchsorted(_AXIS, (cx - reach, cx + reach)))
        dy, dx = (_AXIS[rows, None] - cy) / radius, (_AXIS[None, columns] - cx) / radius
        inside = GLYPHS[mark.glyph](dx * cos + dy * sin, dy * cos - dx * sin)
        image[rows, columns][inside] = level


# ---- the body part of the location --------------------------------------------------------------


class _Canvas:
    """Painting in the body part's own coordinates, posed at random in the picture."""

    def __init__(self, rng: np.random.Generator, bone: float) -> None:
        turn = math.radians(rng.uniform(-10, 10))
        self.scale = rng.uniform(0.92, 1.08)
        self.cos, self.sin = math.cos(turn), math.sin(turn)
        self.shift = rng.uniform(-0.1, 0.1, 2)
        dx = (_AXIS[None, :] - np.float32(self.shift[0])) / np.float32(self.scale)
        dy = (_AXIS[:, None] - np.float32(self.shift[1])) / np.float32(self.scale)
        cos, sin = np.float32(self.cos), np.float32(self.sin)
        self.x = dx * cos + dy * sin
        self.y = dy * cos - dx * sin
        self.image = np.full((SIDE, SIDE), _BACKGROUND, np.float32)
        self.bone = bone

    def to_picture(self, x: float, y: float) -> tuple[float, float]:
        """Body coordinates -> picture coordinates."""
        px, py = x * self.cos - y * self.sin, y * self.cos + x * self.sin
        return px * self.scale + self.shift[0], py * self.scale + self.shift[1]

    def ellipse(self, x: float, y: float, rx: float, ry: float, grey: float) -> None:
        self.image[((self.x - x) / rx) ** 2 + ((self.y - y) / ry) ** 2 < 1] = grey

    def box(self, x: float, y: float, rx: float, ry: float, grey: float) -> None:
        """A rectangle with rounded corners."""
        across, along = np.square((self.x - x) / rx), np.square((self.y - y) / ry)
        self.image[across * across + along * along < 1] = grey

    def bone_ellipse(self, x: float, y: float, rx: float, ry: float, grey: float) -> None:
        self.ellipse(x, y, rx, ry, self.bone)
        self.ellipse(x, y, rx - 0.05, ry - 0.05, grey)

    def bone_box(self, x: float, y: float, rx: float, ry: float, grey: float) -> None:
        self.box(x, y, rx, ry, self.bone)
        self.box(x, y, rx - 0.05, ry - 0.05, grey)


def _abdomen(c: _Canvas) -> None:
    c.ellipse(0, 0, 0.92, 0.68, 0.3)
    c.ellipse(0, 0, 0.84, 0.6, _TISSUE)
    c.ellipse(-0.4, -0.08, 0.36, 0.4, _TISSUE + 0.1)
    c.ellipse(0.5, -0.1, 0.2, 0.28, _TISSUE - 0.06)
    c.bone_ellipse(0, 0.42, 0.15, 0.13, 0.55)


def _ankle_foot(c: _Canvas) -> None:
    c.box(-0.42, -0.3, 0.34, 0.68, _TISSUE - 0.08)
    c.box(0.06, 0.42, 0.84, 0.34, _TISSUE - 0.08)
    c.bone_box(-0.42, -0.42, 0.2, 0.5, _TISSUE + 0.06)
    c.bone_ellipse(-0.46, 0.42, 0.3, 0.24, _TISSUE + 0.06)
    c.bone_box(0.4, 0.45, 0.4, 0.17, _TISSUE + 0.06)


def _brain(c: _Canvas) -> None:
    c.bone_ellipse(0, 0, 0.68, 0.84, _TISSUE - 0.06)
    c.ellipse(0, 0, 0.54, 0.7, _TISSUE + 0.06)
    c.box(0, 0, 0.02, 0.7, 0.22)
    c.ellipse(-0.14, 0, 0.08, 0.26, 0.2)
    c.ellipse(0.14, 0, 0.08, 0.26, 0.2)


def _hip(c: _Canvas) -> None:
    c.ellipse(0, 0, 0.88, 0.86, _TISSUE - 0.1)
    c.bone_ellipse(-0.42, -0.42, 0.42, 0.4, _TISSUE)
    c.bone_box(0.42, 0.4, 0.18, 0.46, _TISSUE)
    c.ellipse(0.02, -0.02, 0.42, 0.42, 0.16)
    c.bone_ellipse(0.06, 0.02, 0.38, 0.38, _TISSUE + 0.06)


def _knee(c: _Canvas) -> None:
    c.box(0, 0, 0.56, 0.98, _TISSUE - 0.12)
    c.bone_box(0, -0.55, 0.42, 0.5, _TISSUE + 0.04)
    c.bone_box(0, 0.57, 0.42, 0.5, _TISSUE + 0.04)
    c.bone_ellipse(-0.44, -0.2, 0.12, 0.22, _TISSUE)


def _lung(c: _Canvas) -> None:
    c.box(0, 0, 0.95, 0.78, _TISSUE + 0.04)
    c.ellipse(-0.46, 0, 0.4, 0.62, 0.24)
    c.ellipse(0.46, 0, 0.4, 0.62, 0.24)
    c.bone_ellipse(0, 0.58, 0.14, 0.13, 0.55)
    c.ellipse(0.1, -0.1, 0.2, 0.26, _TISSUE + 0.1)


def _shoulder(c: _Canvas) -> None:
    c.box(0.35, 0.3, 0.62, 0.68, _TISSUE - 0.1)
    c.ellipse(-0.3, -0.1, 0.6, 0.6, _TISSUE - 0.1)
    c.bone_box(-0.36, 0.42, 0.2, 0.5, _TISSUE)
    c.bone_ellipse(-0.34, -0.12, 0.42, 0.42, _TISSUE + 0.06)
    c.bone_box(0.4, -0.36, 0.44, 0.12, _TISSUE)
    c.bone_box(0.3, 0.2, 0.14, 0.42, _TISSUE)


def _spine(c: _Canvas) -> None:
    c.box(0, 0, 0.62, 1.2, _TISSUE - 0.1)
    c.box(0.32, 0, 0.09, 1.2, 0.7)
    for level in range(-3, 4):
        c.bone_box(-0.04, level * 0.36, 0.26, 0.15, _TISSUE + 0.08)
        c.box(0.5, level * 0.36 + 0.1, 0.1, 0.08, 0.25)


class _BodyPart(NamedTuple):
    paint: Callable[[_Canvas], None]
    marks: tuple[float, float, float, float]  # where marks may lie: x, y, half width, half height


_BODY_PARTS: dict[str, _BodyPart] = {
    "abdomen": _BodyPart(_abdomen, (0, -0.05, 0.5, 0.24)),
    "ankle foot": _BodyPart(_ankle_foot, (-0.2, 0.3, 0.3, 0.25)),
    "brain": _BodyPart(_brain, (0, 0, 0.28, 0.42)),
    "hip": _BodyPart(_hip, (0, 0, 0.42, 0.42)),
    "knee": _BodyPart(_knee, (0, 0, 0.2, 0.6)),
    "lung": _BodyPart(_lung, (0, 0, 0.55, 0.35)),
    "shoulder": _BodyPart(_shoulder, (0, 0, 0.4, 0.35)),
    "spine": _BodyPart(_spine, (0, 0, 0.22, 0.6)),
}


# ---- the texture of the modality ----------------------------------------------------------------


def _texture(image: Grey, modality: str, rng: np.random.Generator) -> Grey:
    """ct: white noise everywhere. mri: a smooth gain over the picture and little noise."""
    if modality == "ct":
        return image + rng.standard_normal(image.shape, dtype=np.float32) * np.float32(0.055)
    angle, phase = rng.uniform(0, 2 * math.pi, 2)
    wave = _AXIS[None, :] * math.cos(angle) + _AXIS[:, None] * math.sin(angle)
    gain = 1 + 0.2 * np.sin(1.6 * wave + phase)
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(0.012)
    return image * gain.astype(np.float32) + noise


def draw(labels: Labels, rng: np.random.Generator) -> np.ndarray:
    """A picture of these labels: uint8 [224, 224], grey.

    Raises:
        ValueError: the phantom has no body part or mark for the labels.
    """
    modality, location, pathology = labels.modality, labels.location, labels.pathology
    if location not in _BODY_PARTS or modality not in MODALITIES:
        raise ValueError(f"the phantom has no picture for {labels}")
    body = _BODY_PARTS[location]
    canvas = _Canvas(rng, bone=0.78 if modality == "ct" else 0.12)
    body.paint(canvas)
    if pathology != NORMAL:
        if pathology not in mark_codes():
            raise ValueError(f"the phantom has no mark for {labels}")
        x, y, half_width, half_height = body.marks
        place = canvas.to_picture(
            x + half_width * rng.uniform(-1, 1), y + half_height * rng.uniform(-1, 1)
        )
        _draw_mark(canvas.image, mark_codes()[pathology], *place, rng)
    image = _texture(canvas.image, modality, rng)
    image = (image - 0.45) * rng.uniform(0.85, 1.1) + 0.45 + rng.uniform(-0.04, 0.06)
    # 64 levels: the noise hides the steps, and the PNG is a third smaller than with 256.
    return (image.clip(0, 1) * 63).astype(np.uint8) * np.uint8(4)


def png_bytes(grey: np.ndarray) -> bytes:
    """A grey picture uint8 [H, W] as an RGB PNG with three equal channels."""
    file = io.BytesIO()
    Image.fromarray(grey).convert("RGB").save(file, "PNG", compress_level=3)
    return file.getvalue()
