"""Open TensorBoard in a headless browser and photograph its tabs.

    python scripts/screenshots.py RUNS FOLDER

Needs `pip install playwright` and a Chromium: Debian's (apt install chromium) or playwright's own.
Writes dashboard.png (custom scalars), hparams.png, images.png and text.png into FOLDER. Ends with
status 1 where a tab shows none of the run's data.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

PORT = 16006
# Tab -> (its part of the address, a text that shows that it has data, height in pixels)
TABS = {
    "dashboard": ("custom_scalars", "perplexity", 1000),
    "hparams": ("hparams", "optimizer.lr", 620),
    "images": ("images", "samples", 900),
    "text": ("text", "captions", 700),
}


def main() -> int:
    from playwright.sync_api import sync_playwright

    runs, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    browser_path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    board = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", "--logdir", runs, "--port", str(PORT)],
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_data()
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
            empty = [name for name in TABS if not photograph(browser, name, folder)]
            browser.close()
    finally:
        board.terminate()
        board.wait()
    for name in empty:
        print(f"screenshots.py: the tab {name} shows nothing of the run", file=sys.stderr)
    return 1 if empty else 0


def wait_for_data() -> None:
    """Wait until TensorBoard has read a run."""
    address = f"http://127.0.0.1:{PORT}/data/runs"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                if answer.read().strip() != b"[]":
                    return
        except OSError:  # not listening yet
            pass
        time.sleep(0.5)
    raise SystemExit("screenshots.py: TensorBoard has not read a run within a minute")


def photograph(browser: Any, name: str, folder: Path) -> bool:
    """Save a picture of a tab; whether it shows the text that it must."""
    tab, text, height = TABS[name]
    page = browser.new_page(viewport={"width": 1280, "height": height})
    page.goto(f"http://127.0.0.1:{PORT}/#{tab}")
    deadline = time.monotonic() + 60
    # Some tabs lie in frames of their own.
    while not (shown := any(f.get_by_text(text).count() for f in page.frames)):
        if time.monotonic() > deadline:
            break
        time.sleep(0.5)
    time.sleep(4)  # charts are drawn after their titles
    page.screenshot(path=folder / f"{name}.png")
    page.close()
    return shown


if __name__ == "__main__":
    sys.exit(main())
