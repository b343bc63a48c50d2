"""A picture with texts below it, in one image: TensorBoard shows images and texts in two tabs."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from radcap.host.console import printable

_LEAST_WIDTH = 224  # of the texts
_SIZE, _LINE, _MARGIN = 13, 16, 6  # pixels: of a letter, from line to line, around the texts
_MOST_LINES = 8  # of a text
_INK, _QUIET, _PAPER = (20, 20, 20), (110, 110, 110), (255, 255, 255)


def captioned_png(image: np.ndarray, texts: Mapping[str, str]) -> tuple[bytes, int, int]:
    """Write texts below an image.

    Args:
        image: uint8 [3, H, W]; its pixels stay as they are.
        texts: name -> text; what is too long is cut.

    Returns:
        The PNG, RGB, its height and its width.
    """
    height, width = image.shape[1:]
    whole = max(width, _LEAST_WIDTH)
    font = ImageFont.load_default(_SIZE)
    lines: list[tuple[str, tuple[int, int, int]]] = []
    for name, text in texts.items():
        lines.append((f"{name}:", _QUIET))
        lines += [(line, _INK) for line in _wrapped(printable(text), font, whole - 2 * _MARGIN)]
    canvas = Image.new("RGB", (whole, height + 2 * _MARGIN + _LINE * len(lines)), _PAPER)
    pixels = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    canvas.paste(pixels, ((whole - width) // 2, 0))
    pen = ImageDraw.Draw(canvas)
    for number, (line, colour) in enumerate(lines):
        pen.text((_MARGIN, height + _MARGIN + number * _LINE), line, colour, font)
    file = io.BytesIO()
    canvas.save(file, "PNG")
    return file.getvalue(), canvas.height, canvas.width


_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _wrapped(text: str, font: _Font, width: int) -> list[str]:
    """Lines of a text that are no wider than so many pixels; at least one."""
    for letters in range(width // 4, 7, -1):
        lines = textwrap.wrap(text, letters, max_lines=_MOST_LINES, placeholder=" ...")
        if all(font.getlength(line) <= width for line in lines):
            break
    return lines or ["(nothing)"]
