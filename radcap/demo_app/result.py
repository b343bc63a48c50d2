"""What the page shows of a picture, as HTML that holds its images itself: no file is written."""

from __future__ import annotations

import base64
import io
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from radcap.demo_app.words import Word
from radcap.files.markup import html
from radcap.serving.captioner import Caption
from radcap.serving.note import NOT_FOR_DIAGNOSIS

_numbers = itertools.count()
_HEAT = (255, 92, 0)  # RGB; how opaque it is tells the weight
_OPAQUE = 235  # of 255, at the largest weight: the picture stays to be seen below


def result_html(
    pixels: np.ndarray,
    caption: Caption,
    words: Sequence[Word],
    *,
    beams: int = 1,
    frames: str = "",
) -> str:
    """A picture with its caption, where the decoder looked, and the other captions found.

    Args:
        pixels: uint8 [3, 224, 224], as the model sees the picture.
        caption: with its alternatives.
        words: of the caption.
        beams: of the search.
        frames: of a file with several, from `frames_html`.
    """
    return "\n".join(
        (
            f'<section class="rc-result" id="rc-result-{_new_number()}" aria-live="polite">',
            *_caption(caption, beams),
            frames,
            *_look(pixels, words, f"rc-word-{_new_number()}"),
            *_ranking([caption, *caption.alternatives]),
            "</section>",
        )
    )


def fault_html(reason: str, *, frame: int = 0) -> str:
    """Why a file has no caption, and what to do.

    Args:
        frame: the one that was asked for, counted from 0; from any but the first there is a way
            back.
    """
    return (
        f'<section class="rc-result" id="rc-result-{_new_number()}">'
        f'<p class="rc-fault" role="alert"><b>No caption.</b> {html(reason)}</p>'
        f"{_frames('', 0, None) if frame else ''}</section>"
    )


def frames_html(others: str, frame: int, num_frames: int | None) -> str:
    """That a file holds other frames than the one that is shown, and the way to another.

    Args:
        others: how many, see `radcap.serving.pictures.Frame`.
        frame: the one that is shown, counted from 0.
        num_frames: None: not known.
    """
    said = f"{html(others[0].upper() + others[1:])}; this is frame {frame}, counted from 0."
    return _frames(said, frame, num_frames)


def _frames(said: str, frame: int, num_frames: int | None) -> str:
    """The control that the page's script reads when another frame is asked for."""
    most = "" if num_frames is None else f' max="{num_frames - 1}"'
    return (
        f'<p class="rc-frames" role="status">{said} <label>Frame <input type="number" min="0"{most}'
        f' step="1" value="{frame}"></label> <button type="button">Caption it</button></p>'
    )


def _new_number() -> int:
    """One that no result had before: else the browser would take parts of it for the old one's."""
    return next(_numbers)


def data_uri(image: Image.Image) -> str:
    """A picture as an address that holds it: PNG."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def heat(attention: np.ndarray, full: float) -> Image.Image:
    """A map [7, 7] as a layer over the picture: RGBA, one pixel a square.

    Args:
        attention: not negative.
        full: the weight that is shown at full strength.
    """
    opacity = np.rint(_OPAQUE * np.clip(attention / full, 0, 1)).astype(np.uint8)
    colour = np.broadcast_to(np.array(_HEAT, np.uint8), (*attention.shape, 3))
    return Image.fromarray(np.concatenate([colour, opacity[..., None]], axis=-1))


def _caption(caption: Caption, beams: int) -> Iterator[str]:
    text = html(caption.text) or "<i>the model ends at once: an empty caption</i>"
    yield f'<p class="rc-caption">{text}</p>'
    yield (
        f'<p class="rc-facts">probability {_percent(caption.log_probability)} for exactly these '
        f"words · {len(caption.tokens)} word pieces · {caption.seconds:.1f} s"
        f' · <b class="rc-warning">{NOT_FOR_DIAGNOSIS}</b></p>'
    )
    yield (
        '<p class="rc-note">The probability is that of this very wording, its end included. One '
        "finding has many wordings, each with its share: it does not say how likely the caption is "
        f"right. {_how(beams)}</p>"
    )


def _how(beams: int) -> str:
    """What finds the same caption elsewhere."""
    command = "python -m radcap.caption"
    if beams == 1:
        return f"<code>{command}</code> writes the same."
    return (
        f"<code>{command} --beams {beams}</code> writes the same; without <code>--beams</code> it "
        "takes the likeliest word piece at every step, and may word it differently."
    )


def _look(pixels: np.ndarray, words: Sequence[Word], group: str) -> Iterator[str]:
    """The picture large, a button for every word, and the map of the word that is chosen.

    Without scripts: of the layers over the picture, CSS shows the one behind the chosen button.

    Args:
        pixels: of the picture.
        words: of its caption.
        group: the name of the buttons, no other result's.
    """
    seen = data_uri(Image.fromarray(pixels.transpose(1, 2, 0)))
    full = max((word.peak for word in words), default=1.0)
    yield "<h3>What the model sees, and where it looks</h3>"
    yield f'<div class="rc-look" style="--rc-seen:url({seen})">'
    yield (
        '<div class="rc-stage" role="img" aria-label="the picture as the model sees it, '
        '224 x 224 pixels"></div>'
    )
    yield '<fieldset class="rc-words"><legend>Choose a word</legend>'
    yield f'<input type="radio" name="{group}" id="{group}-none" checked><i></i>'
    yield f'<label for="{group}-none"><span class="rc-thumb"></span>picture alone</label>'
    for number, word in enumerate(words):
        name, layer, text = f"{group}-{number}", data_uri(heat(word.attention, full)), word.text
        share = f"{word.peak:.0%}"
        about = html(f"where the decoder looked for {text}: at most {share} in one square")
        yield f'<input type="radio" name="{group}" id="{name}">'
        yield f'<img class="rc-map" src="{layer}" alt="{about}">'
        yield (
            f'<label for="{name}"><span class="rc-thumb"><img src="{layer}" alt=""></span>'
            f"{html(text)}<small>{share}</small></label>"
        )
    yield "</fieldset></div>"
    yield (
        '<p class="rc-note">The picture is what is left of yours: the middle, 224 x 224 pixels of '
        "8 bits. The colour is cross-attention to its 7 x 7 squares, the mean of all heads and "
        "layers; the percentage is the largest share of one square, where an even look at all of "
        "them gives 2%. It shows what the decoder took from where, not why the caption says what "
        "it says.</p>"
    )


def _ranking(captions: Sequence[Caption]) -> Iterator[str]:
    if len(captions) < 2:
        return
    best = captions[0].log_probability
    together = math.fsum(math.exp(one.log_probability) for one in captions)
    yield f"<h3>The {len(captions)} likeliest captions that the search found</h3>"
    yield '<ol class="rc-ranking">'
    for one in captions:
        width = 100 * math.exp(one.log_probability - best)
        yield (
            f'<li><span class="rc-bar" style="width:{width:.1f}%"></span>'
            f'<span class="rc-text">{html(one.text)}</span>'
            f'<span class="rc-share">{_percent(one.log_probability)}</span></li>'
        )
    yield (
        f'</ol><p class="rc-note">Together {together:.1%} of all probability; the rest is spread '
        "over other wordings.</p>"
    )


def _percent(log_probability: float) -> str:
    share = math.exp(log_probability)
    return f"{share:.1%}" if share >= 0.001 else f"{share:.0e}"
