"""The page in a real browser: a picture, a word's map, a drawn one, a pasted one, a bad file."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import chromium
from demo_app.conftest import Demo
from PIL import Image
from waiting import PATIENCE_S

from radcap import Captioner

pytestmark = pytest.mark.slow

PASTE = """
(encoded) => {
  const bytes = Uint8Array.from(atob(encoded), (char) => char.charCodeAt(0));
  const clipboardData = new DataTransfer();
  clipboardData.items.add(new File([bytes], "pasted.png", { type: "image/png" }));
  document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Any, demo: Demo, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page, opened; it must end without a fault and without a look elsewhere."""
    width, height = getattr(request, "param", (1240, 900))
    page = browser.new_page(viewport={"width": width, "height": height}, has_touch=width < 500)
    page.set_default_timeout(1000 * PATIENCE_S)
    asked, faults = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(demo.address)
    page.locator(".rc-examples button").first.wait_for()
    yield page
    elsewhere = [url for url in asked if not url.startswith((demo.address, "data:", "blob:"))]
    assert elsewhere == [] and len(asked) > 10
    assert faults == []
    assert demo.uploads() == []
    page.close()


def picture(folder: Path, seed: int) -> Path:
    noise = np.random.default_rng(seed).integers(0, 256, (300, 280), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "smith.png")
    return folder / "smith.png"


def drop(page: Any, file: Path) -> None:
    page.locator("#rc-drop input[type=file]").set_input_files(file)


def opacities(page: Any) -> list[float]:
    # A layer fades in.
    page.wait_for_function("document.getAnimations().every(a => a.playState != 'running')")
    shown = "maps => maps.map(map => Number(getComputedStyle(map).opacity))"
    return page.locator(".rc-map").evaluate_all(shown)


def test_a_picture_is_captioned_and_every_word_has_its_map(
    page: Any, looking_weights: Path, tmp_path: Path
) -> None:
    assert page.get_by_text("Not for diagnosis.").is_visible()
    file = picture(tmp_path, 1)
    drop(page, file)
    page.locator(".rc-caption").wait_for()
    expected = Captioner.from_pretrained(looking_weights, device="cpu").caption(file, num_beams=5)
    assert page.locator(".rc-caption").inner_text() == expected[0]
    assert page.locator(".rc-ranking li").count() == 5
    assert not page.get_by_text("smith").count()

    words = page.locator(".rc-words label")
    count = words.count() - 1  # the first is the picture alone
    assert count >= 2 and opacities(page) == [0] * count
    words.nth(2).click()
    assert opacities(page) == [0, 1, *[0] * (count - 2)]
    # The layer lies over the picture, edge on edge.
    stage, layer = page.locator(".rc-stage").bounding_box(), page.locator(".rc-map").nth(1)
    assert layer.bounding_box() == stage and stage["width"] == stage["height"] == 336
    page.keyboard.press("ArrowLeft")  # the keys do it too
    assert opacities(page) == [1, *[0] * (count - 1)]
    words.nth(0).click()
    assert opacities(page) == [0] * count


def test_a_drawn_picture_then_a_pasted_one_then_a_bad_file(page: Any, tmp_path: Path) -> None:
    page.locator(".rc-examples button").nth(4).click()
    page.locator(".rc-caption").wait_for()
    seen = page.locator(".rc-look").get_attribute("style")
    page.evaluate(PASTE, base64.b64encode(picture(tmp_path, 2).read_bytes()).decode())
    page.wait_for_function(
        "before => document.querySelector('.rc-look')?.getAttribute('style') != before", arg=seen
    )
    assert page.locator(".rc-caption").count() == 1

    (tmp_path / "smith.png").write_text("no picture")
    drop(page, tmp_path / "smith.png")
    page.locator(".rc-fault").wait_for()
    assert page.locator(".rc-fault").inner_text() == (
        "No caption. Not a picture that radcap can read."
    )
    assert not page.locator(".rc-caption").count()
    drop(page, picture(tmp_path, 3))  # and the page is as good as before
    page.locator(".rc-caption").wait_for()


def test_nothing_of_the_picture_before_stays_with_the_next_one(page: Any, tmp_path: Path) -> None:
    """Not the word that was chosen, and after an upload that fails not the caption either."""
    drop(page, picture(tmp_path, 1))
    page.locator(".rc-words label").nth(2).click()
    assert max(opacities(page)) == 1
    seen = page.locator(".rc-look").get_attribute("style")
    drop(page, picture(tmp_path, 2))
    page.wait_for_function(
        "before => document.querySelector('.rc-look')?.getAttribute('style') != before", arg=seen
    )
    assert max(opacities(page)) == 0
    assert page.locator(".rc-words input").nth(0).is_checked()
    assert page.locator(".rc-caption").is_visible()

    with (tmp_path / "smith.png").open("wb") as file:
        file.truncate(150 << 20)
    drop(page, tmp_path / "smith.png")
    page.locator(".rc-caption").wait_for(state="hidden")
    fault = page.locator(".rc-too-large")
    fault.wait_for()
    assert "The file has more than 100 MB" in fault.inner_text()
    page.wait_for_timeout(1000)
    assert not page.locator(".rc-result").is_visible()
    assert not page.get_by_text("smith").count()
    drop(page, picture(tmp_path, 3))  # and the page is as good as before
    page.locator(".rc-caption").wait_for()
    assert not fault.is_visible()


def is_seen(page: Any, selector: str) -> bool:
    """Whether a part is in the window: whole, or from its upper half on, as the captions here are
    long."""
    box, height = page.locator(selector).bounding_box(), page.viewport_size["height"]
    if box is None or box["y"] < 0:
        return False
    return box["y"] <= height / 2 or box["y"] + box["height"] <= height


@pytest.mark.parametrize("page", [(390, 844)], indirect=True)
def test_on_a_telephone_a_tap_brings_what_it_asks_for_into_view(page: Any, tmp_path: Path) -> None:
    for number in (4, 0):
        page.locator(".rc-examples button").nth(number).tap()
        page.locator(".rc-caption").wait_for()
        page.wait_for_timeout(300)
        assert is_seen(page, ".rc-caption")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    (tmp_path / "smith.png").write_text("no picture")
    page.evaluate("window.scrollTo(0, 0)")
    drop(page, tmp_path / "smith.png")
    page.locator(".rc-fault").wait_for()
    page.wait_for_timeout(300)
    assert is_seen(page, ".rc-fault")


def test_another_frame_is_captioned_where_it_is_said_that_there_are_several(
    page: Any, looking_weights: Path, tmp_path: Path
) -> None:
    frames = [
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 64), dtype=np.uint8))
        for seed in range(3)
    ]
    frames[0].save(tmp_path / "smith.tif", save_all=True, append_images=frames[1:])
    captioner = Captioner.from_pretrained(looking_weights, device="cpu")
    expected = [captioner.caption(frame, num_beams=5) for frame in frames]
    drop(page, tmp_path / "smith.tif")
    for frame in (0, 2, 1):
        page.get_by_text(f"this is frame {frame}, counted from 0").wait_for()
        assert page.locator(".rc-caption").inner_text() == expected[frame][0]
        page.locator(".rc-frames input").fill(str({0: 2, 2: 1, 1: 0}[frame]))
        page.locator(".rc-frames button").click()
    page.get_by_text("this is frame 0, counted from 0").wait_for()
    # One that is not there, and back.
    page.locator(".rc-frames input").fill("7")
    page.locator(".rc-frames button").click()
    page.get_by_text("No frame 7").wait_for()
    page.locator(".rc-frames button").click()
    page.get_by_text("this is frame 0, counted from 0").wait_for()
    # The next file begins at its first frame, whichever was chosen of this one.
    page.locator(".rc-frames input").fill("2")
    page.keyboard.press("Enter")
    page.get_by_text("this is frame 2, counted from 0").wait_for()
    drop(page, tmp_path / "smith.tif")
    page.get_by_text("this is frame 0, counted from 0").wait_for()
