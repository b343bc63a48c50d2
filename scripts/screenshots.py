"""Open TensorBoard in a headless browser and photograph its tabs.

    python scripts/screenshots.py RUNS FOLDER

Needs `pip install playwright` and a Chromium: Debian's (apt install chromium) or playwright's own.
Writes dashboard.png (custom scalars), hparams.png, images.png and text.png into FOLDER. Ends with
status 1 where a tab shows none of the run's data.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PATIENCE_S = 600.0  # for what takes seconds on a machine that is not busy
# Tab -> (its part of the address, a text that shows that it has data, height in pixels)
TABS = {
    "dashboard": ("custom_scalars", "perplexity", 1000),
    "hparams": ("hparams", "optimizer.lr", 620),
    "images": ("images", "samples", 900),
    "text": ("text", "captions", 700),
}


def main() -> int:
    if len(sys.argv) != 3:
        print("usage: python scripts/screenshots.py RUNS FOLDER", file=sys.stderr)
        return 2
    runs, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    board = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", "--logdir", runs, "--port", str(port)],
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_data(board, f"{address}/data/runs")
        with chromium() as browser:
            empty = [name for name in TABS if not photograph(browser, address, name, folder)]
    finally:
        board.terminate()
        board.wait()
    for name in empty:
        print(f"screenshots.py: the tab {name} shows nothing of the run", file=sys.stderr)
    return 1 if empty else 0


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless Chromium of playwright's, or of the system where it has one."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_for_data(board: subprocess.Popen[bytes], address: str) -> None:
    """Wait until TensorBoard has read a run."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        if board.poll() is not None:
            raise SystemExit(f"screenshots.py: TensorBoard ended with status {board.returncode}")
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                if answer.read().strip() != b"[]":
                    return
        except OSError:  # not listening yet
            pass
        time.sleep(0.5)
    raise SystemExit("screenshots.py: TensorBoard has not read a run in ten minutes")


def photograph(browser: Any, address: str, name: str, folder: Path) -> bool:
    """Save a picture of a tab; whether it shows the text that it must."""
    tab, text, height = TABS[name]
    page = browser.new_page(viewport={"width": 1280, "height": height})
    page.goto(f"{address}/#{tab}")
    deadline = time.monotonic() + _PATIENCE_S
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
