"""The page itself: what stands on it, and what happens to a picture that is dropped there."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from radcap.demo_app.examples import Example, draw_examples, examples_html
from radcap.demo_app.requests import upload_of
from radcap.demo_app.result import fault_html, frames_html, result_html
from radcap.demo_app.words import words_of
from radcap.errors import ConfigError, RadcapError
from radcap.files.markup import html
from radcap.serving.captioner import Captioner
from radcap.serving.note import DRAWINGS_ONLY, NOT_FOR_DIAGNOSIS
from radcap.serving.pictures import PictureError, read_frame, read_picture

MAX_UPLOAD_MB = 100
MAX_BEAMS = 10
_BEAMS = 5
_LAST_FRAME = 1_000_000
_WAITING = 32  # pictures that may wait for the model; more are told to come back
_TITLE = "radcap: radiology captions"
_EMPTY = (
    '<div class="rc-empty">Drop a picture on the left, paste one, or take a drawn one:<br>'
    "the caption appears here.</div>"
)
# Sends the number of the button that was pressed.
_PRESSED = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) trigger("select", { number: Number(button.dataset.number) });
});
"""


def make_page(captioner: Captioner, uploads: Path) -> gr.Blocks:
    """Lay the page out.

    Args:
        captioner: one picture at a time goes through it.
        uploads: the folder that gradio puts uploads into; they are deleted as soon as they are
            read.
    """
    examples = draw_examples()
    with gr.Blocks(title=_TITLE, analytics_enabled=False, fill_width=True) as page:
        gr.HTML(_head(captioner))
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                drop = gr.File(label="Picture or DICOM file", height=170, elem_id="rc-drop")
                gr.HTML(
                    '<p class="rc-label">PNG, JPEG, TIFF, WebP, BMP, GIF, JPEG 2000, PPM, DICOM; '
                    f"up to {MAX_UPLOAD_MB} MB. It is deleted as soon as it is read, and its "
                    "header and name are not shown. Ctrl-V pastes a picture.</p>"
                )
                with gr.Accordion("For the next picture", open=False):
                    beams = gr.Slider(
                        1, MAX_BEAMS, _BEAMS, step=1, label="Captions to find (beams)"
                    )
                # Set by the page's script, from where a result says that there are several.
                frame = gr.Number(0, minimum=0, precision=0, label="Frame", elem_id="rc-frame")
                buttons = gr.HTML(examples_html(examples), js_on_load=_PRESSED)
            with gr.Column(scale=5, min_width=420):
                gr.HTML(_too_large())
                result = gr.HTML(_EMPTY, elem_id="rc-result")

        # gradio looks for addresses in what is sent for any input, a number's too.
        for block in (drop, beams, frame):
            block.async_move_resource_to_block_cache = _leave  # type: ignore[assignment]

        # gradio tells what to pass by the types of the parameters.
        def pressed(beams: Any, event: gr.EventData) -> str:
            return caption_example(captioner, examples, _number_of(event), beams)

        # Both wait for one model. What gradio itself refuses it would not delete, so that an upload
        # is handed over as it comes.
        drop.upload(
            partial(caption_upload, captioner, uploads),
            [drop, beams, frame],
            [result, drop],
            preprocess=False,
            api_name="caption",
            concurrency_id="model",
        )
        buttons.select(
            pressed,
            [beams],
            [result],
            preprocess=False,
            api_visibility="private",
            concurrency_id="model",
        )
    page.queue(max_size=_WAITING, default_concurrency_limit=1)
    return page


def caption_upload(
    captioner: Captioner, uploads: Path, payload: Any, beams: Any, frame: Any
) -> tuple[str, None]:
    """Read an upload, delete it, caption it; it is deleted whatever else is asked for.

    Args:
        uploads: the folder that gradio puts uploads into, each in a folder of its own.
        payload: what the browser says of the file: a mapping with its `path`.
        beams: captions to find.
        frame: of a file with several, counted from 0; None for the first.

    Returns:
        The result as HTML, and None, which empties the drop zone for the next one.
    """
    path = uploaded(payload, uploads)
    if path is None:  # or the same one, dropped twice: both lie in one place
        return fault_html("The file is not here any more: drop it once more."), None
    try:
        num_beams = _num_beams(beams)
        number = _whole(0 if frame is None else frame, 0, _LAST_FRAME, "Frame")
        read = read_frame(path, frame=number)
    except PictureError as error:
        return fault_html(f"{error.reason[0].upper()}{error.reason[1:]}.", frame=number), None
    except ConfigError as error:
        return fault_html(f"{error}."), None
    finally:
        shutil.rmtree(path.parent, ignore_errors=True)
    frames = frames_html(read.others, number, read.num_frames) if read.others else ""
    return caption_pixels(captioner, read.pixels, num_beams, frames), None


def uploaded(payload: Any, uploads: Path) -> Path | None:
    """The path of a file that was uploaded to this page and is there; None for anything else."""
    path = upload_of(payload, uploads)
    try:
        return path if path is not None and path.is_file() else None
    except OSError:  # no name that a file can have
        return None


def _num_beams(value: Any) -> int:
    return _whole(value, 1, MAX_BEAMS, "Captions to find")


def _number_of(event: gr.EventData) -> object:
    try:
        return event.number
    except (AttributeError, TypeError):  # sent without one, or without anything
        return None


def _whole(value: Any, least: int, most: int, name: str) -> int:
    if isinstance(value, int | float) and least <= value <= most and value == int(value):
        return int(value)
    raise ConfigError(f"{name}: a whole number from {least} to {most}")


async def _leave(place: str | Path | None) -> str:
    """In place of gradio's own, which would fetch what an address in a file's place leads to.

    Of the instance, not of a class: for one, gradio writes a stub beside its source.
    """
    return str(place)


def caption_example(
    captioner: Captioner, examples: list[Example], number: object, beams: Any
) -> str:
    """Caption a drawn picture: the result as HTML."""
    if not isinstance(number, int) or not 0 <= number < len(examples):
        return fault_html("There is no such drawn picture.")
    try:
        num_beams = _num_beams(beams)
    except ConfigError as error:
        return fault_html(f"{error}.")
    return caption_pixels(captioner, read_picture(examples[number].picture), num_beams)


def caption_pixels(captioner: Captioner, pixels: np.ndarray, beams: int, frames: str = "") -> str:
    """Caption uint8 [3, 224, 224]: the result as HTML, with what is to be said of its frames."""
    try:
        (caption,) = captioner.describe(pixels[None], num_beams=beams)
    except RadcapError as error:
        return fault_html(str(error))
    words = words_of(caption.tokens, captioner.attention(pixels, caption.tokens))
    return result_html(pixels, caption, words, beams=beams, frames=frames)


def _too_large() -> str:
    """What the page's script shows for a file that it does not even send."""
    return (
        f'<p class="rc-too-large" role="alert" data-most="{MAX_UPLOAD_MB << 20}" hidden>'
        f"<b>No caption.</b> The file has more than {MAX_UPLOAD_MB} MB, the most that this page "
        "takes. <code>python -m radcap.caption</code> reads larger ones.</p>"
    )


def _head(captioner: Captioner) -> str:
    pretrained = captioner.pretrained
    drawings = f" <b>It was {DRAWINGS_ONLY}.</b>" if pretrained.knows_drawings_only else ""
    return (
        f'<header class="rc-head"><h1>{_TITLE}</h1><p>weights: {html(pretrained.origin)}</p>'
        f'<p class="rc-banner"><b>{NOT_FOR_DIAGNOSIS.capitalize()}.</b> A research model writes '
        "these captions. They are no medical findings, and it states something of every picture, "
        f"right or wrong.{drawings}</p></header>"
    )
