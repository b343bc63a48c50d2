"""A headless Chromium for tests, or a plain word that there is none."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from command_line import ROOT


def need_chromium() -> None:
    """Skip the test where no browser can be driven."""
    pytest.importorskip("playwright", reason="playwright (extra dev) is not installed")
    if not any(map(shutil.which, ("chromium", "chromium-browser"))):
        pytest.skip("no Chromium on the path: apt install chromium")


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser that the scripts use."""
    need_chromium()
    with runpy.run_path(str(ROOT / "scripts/screenshots.py"))["chromium"]() as browser:
        yield browser
