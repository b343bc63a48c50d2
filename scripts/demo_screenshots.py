"""Serve the page of radcap.demo, use it in a headless browser, and photograph it.

    python scripts/demo_screenshots.py WEIGHTS FOLDER

Needs the extras demo and dicom, `pip install playwright` and a Chromium: Debian's (apt install
chromium) or playwright's own. Writes before.png, caption.png, heat_map.png and bad_file.png into
FOLDER, of a drawn picture. Ends with status 1 where the page does not do what it should.
"""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from screenshots import chromium

from radcap.data.labels import Labels
from radcap.data.phantom.images import draw, png_bytes

_SIZE = {"width": 1240, "height": 900}
_PATIENCE_MS = 600_000


def main() -> int:
    if len(sys.argv) != 3:
        print("usage: python scripts/demo_screenshots.py WEIGHTS FOLDER", file=sys.stderr)
        return 2
    weights, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    with serving(weights) as address, chromium() as browser, tempfile.TemporaryDirectory() as work:
        page = browser.new_page(viewport=_SIZE)
        page.set_default_timeout(_PATIENCE_MS)
        page.goto(address)
        fault = tour(page, Path(work), folder)
    if fault:
        print(f"demo_screenshots.py: {fault}", file=sys.stderr)
    return 1 if fault else 0


@contextmanager
def serving(weights: str) -> Iterator[str]:
    """The command on a free port, until it has ended by Ctrl-C; yields its address."""
    command = [sys.executable, "-m", "radcap.demo", weights, "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("page:"):
                yield line.split()[1]
                break
        else:
            raise SystemExit(f"demo_screenshots.py: the page ended: status {process.wait()}")
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=_PATIENCE_MS / 1000)


def tour(page: Any, work: Path, folder: Path) -> str | None:
    """Before, a caption, a heat map, a bad file; what went wrong, if anything."""
    page.locator(".rc-examples button").first.wait_for()
    photograph(page, folder / "before.png")

    labels = Labels.of("ct", "lung", "nodule")
    (work / "lung.png").write_bytes(png_bytes(draw(labels, np.random.default_rng(4))))
    drop(page, work / "lung.png")
    page.locator(".rc-caption").wait_for()
    photograph(page, folder / "caption.png")

    words = [text.split()[0] for text in page.locator(".rc-words label").all_inner_texts()[1:]]
    if not words:
        return "the caption has no words to choose from"
    chosen = words.index("nodule") if "nodule" in words else 0
    page.locator(".rc-words label").nth(1 + chosen).click()  # after the picture alone
    layer = page.locator(".rc-map").nth(chosen)
    page.wait_for_timeout(500)  # it fades in
    if float(layer.evaluate("map => getComputedStyle(map).opacity")) != 1:
        return "the heat map of the word that was chosen is not shown"
    photograph(page, folder / "heat_map.png")

    (work / "notes.png").write_text("no picture", encoding="utf-8")
    drop(page, work / "notes.png")
    page.locator(".rc-fault").wait_for()
    page.wait_for_timeout(500)  # the drop zone is free again
    photograph(page, folder / "bad_file.png")
    return None


def photograph(page: Any, file: Path) -> None:
    """Save the whole page, in 256 colours: a third of the bytes."""
    with Image.open(io.BytesIO(page.screenshot(full_page=True))) as picture:
        rgb = picture.convert("RGB")
        dither = Image.Dither.FLOYDSTEINBERG
        rgb.quantize(palette=rgb.quantize(256), dither=dither).save(file, optimize=True)


def drop(page: Any, file: Path) -> None:
    """Choose a file in the drop zone."""
    page.locator("#rc-drop input[type=file]").set_input_files(file)


if __name__ == "__main__":
    sys.exit(main())
