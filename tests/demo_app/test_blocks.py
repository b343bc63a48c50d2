"""An upload's way: only one that came here, deleted whatever is in it, captioned or explained."""

from __future__ import annotations

import asyncio
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation.known import looking_model
from PIL import Image

from radcap.caption import main as caption
from radcap.data.collate import load_tokenizer
from radcap.demo_app.blocks import caption_example, caption_upload, make_page, uploaded
from radcap.demo_app.examples import draw_examples
from radcap.demo_app.requests import INPUTS
from radcap.serving.captioner import Captioner
from radcap.serving.pretrained import Architecture, Pretrained

pydicom = pytest.importorskip("pydicom")
SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    model = looking_model(num_layers=2, num_heads=4)
    sizes = Architecture(30_522, 16, 2, 4)
    return Captioner(Pretrained(model, load_tokenizer(), "mine", sizes), device="cpu")


def arrive(uploads: Path, name: str, content: bytes) -> dict[str, str]:
    """As gradio puts an upload, in a folder of its own, and speaks of it."""
    folder = uploads / "5eed"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content)
    return {"path": str(folder / name), "orig_name": name}


def picture(seed: int = 0) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (50, 40), dtype=np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def test_an_upload_is_captioned_and_gone(captioner: Captioner, tmp_path: Path) -> None:
    html, emptied = caption_upload(
        captioner, tmp_path, arrive(tmp_path, "smith.png", picture()), 3, None
    )
    assert emptied is None
    assert list(tmp_path.iterdir()) == []
    expected = captioner.caption(Image.open(io.BytesIO(picture())), num_beams=3)
    assert f'<p class="rc-caption">{expected[0]}</p>' in html
    assert html.count('class="rc-bar"') == 3
    assert "smith" not in html


@pytest.mark.parametrize(
    ("content", "frame", "said"),
    [
        (b"no picture", None, "Not a picture that radcap can read."),
        (b"", None, "The file is empty."),
        (picture()[:-200], None, "The picture ends too early."),
        (picture(), 3, "No frame 3: there is a single one, 0."),
        (picture(), -1, "Frame: a whole number from 0 to 1000000."),
        (picture(), 0.5, "Frame: a whole number from 0 to 1000000."),
        (picture(), float("nan"), "Frame: a whole number from 0 to 1000000."),
        (picture(), "0", "Frame: a whole number from 0 to 1000000."),
    ],
)
def test_what_cannot_be_read_is_explained_and_gone(
    captioner: Captioner, tmp_path: Path, content: bytes, frame: object, said: str
) -> None:
    html, _ = caption_upload(captioner, tmp_path, arrive(tmp_path, "smith.png", content), 1, frame)
    assert said in html and 'role="alert"' in html
    assert "smith" not in html and str(tmp_path) not in html
    assert list(tmp_path.iterdir()) == []


def test_a_dicom_file_is_captioned_and_names_nobody(
    captioner: Captioner, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = (SHIPPED / "SC_rgb_rle_2frame.dcm").read_bytes()
    header = pydicom.dcmread(SHIPPED / "CT_small.dcm")
    frames = set()
    for frame in (0, 1):
        html, _ = caption_upload(captioner, tmp_path, arrive(tmp_path, "x", content), 1, frame)
        frames.add(re.search(r"--rc-seen:url\((.*?)\)", html)[1])
        assert f"The file holds 2 frames; this is frame {frame}, counted from 0." in html
    assert len(frames) == 2
    ct = (SHIPPED / "CT_small.dcm").read_bytes()
    html, _ = caption_upload(captioner, tmp_path, arrive(tmp_path, "CT_small.dcm", ct), 1, 0)
    cut, _ = caption_upload(captioner, tmp_path, arrive(tmp_path, "CT_small.dcm", ct[:3000]), 1, 0)
    assert "rc-caption" in html and "No caption" in cut
    assert " frames; this is" not in html + cut
    written = html + cut + "".join(capfd.readouterr())
    for value in (header.PatientName, header.PatientID, header.PatientBirthDate):
        assert not str(value) or str(value) not in written


@pytest.mark.parametrize("beams", [0, 11, 2.5, "3", None])
def test_a_number_of_captions_out_of_range_is_refused_and_the_upload_gone(
    captioner: Captioner, tmp_path: Path, beams: object
) -> None:
    html, _ = caption_upload(captioner, tmp_path, arrive(tmp_path, "x", picture()), beams, 0)
    assert "Captions to find: a whole number from 1 to 10." in html
    assert list(tmp_path.iterdir()) == []


def test_nothing_that_was_not_uploaded_is_read_or_deleted(
    captioner: Captioner, tmp_path: Path
) -> None:
    uploads = tmp_path / "uploads"
    mine = arrive(uploads, "mine.png", b"x")
    assert uploaded(mine, uploads) == Path(mine["path"])
    (tmp_path / "secret.txt").write_text("secret")
    (uploads / "loose.png").write_text("half")
    (uploads / "link").mkdir()
    (uploads / "link" / "x.png").symlink_to(tmp_path / "secret.txt")
    before = sorted(tmp_path.rglob("*"))
    for path in (
        *(tmp_path / "secret.txt", uploads, uploads / "loose.png", uploads / "link" / "x.png"),
        *(f"{uploads}/../secret.txt", "http://127.0.0.1:9/x.png", "/etc/passwd", uploads / "5eed"),
        *("\0", "\ud800", "x" * 5000),
    ):
        html, _ = caption_upload(captioner, uploads, {"path": str(path)}, 1, 0)
        assert "drop it once more" in html
    for payload in (None, "x", {}, {"path": None}, [mine]):
        assert uploaded(payload, uploads) is None
    assert sorted(tmp_path.rglob("*")) == before


def test_an_upload_that_is_gone_is_asked_for_once_more(
    captioner: Captioner, tmp_path: Path
) -> None:
    gone = {"path": str(tmp_path / "5eed" / "smith.png")}
    html, _ = caption_upload(captioner, tmp_path, gone, 1, 0)
    assert "drop it once more" in html and "smith" not in html


def test_the_page_writes_what_the_command_writes(
    captioner: Captioner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For as many beams: the same transform, search and length."""
    torch.save(captioner.pretrained.model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text('{"num_heads": 4}')
    content = (SHIPPED / "CT_small.dcm").read_bytes()
    (tmp_path / "x").write_bytes(content)
    words = [str(tmp_path), str(tmp_path / "x"), "--json", "--device", "cpu", "--beams", "2"]
    assert caption(words) == 0
    record = json.loads(capsys.readouterr().out)
    upload = arrive(tmp_path / "uploads", "x", content)
    html, _ = caption_upload(captioner, tmp_path / "uploads", upload, 2, None)
    assert f'<p class="rc-caption">{record["caption"]}</p>' in html
    others = [other["caption"] for other in record["alternatives"]]
    assert re.findall('rc-text">([^<]*)<', html) == [record["caption"], *others]
    assert f" {len(record['tokens'])} word pieces" in html


def test_the_page_of_a_model_that_knows_drawings_only_says_so(
    captioner: Captioner, tmp_path: Path
) -> None:
    said = "It was trained on drawings, not on medical images"
    for trained_on, is_said in (("phantom", True), ("folder", False), (None, False)):
        pretrained = replace(captioner.pretrained, trained_on=trained_on)
        page = make_page(Captioner(pretrained, device="cpu"), tmp_path)
        text = " ".join(str(getattr(block, "value", "")) for block in page.blocks.values())
        assert (said in text) == is_said and "Not for diagnosis" in text
    assert 'data-most="104857600" hidden' in text and "more than 100 MB" in text


def test_a_drawn_picture_is_captioned_and_a_number_of_others_is_not(captioner: Captioner) -> None:
    examples = draw_examples()
    assert "rc-caption" in caption_example(captioner, examples, 2, 1)
    for number in (-1, len(examples), 1.5, "0", None):
        assert "no such drawn picture" in caption_example(captioner, examples, number, 1)
    assert "Captions to find: a whole number" in caption_example(captioner, examples, 2, {})


def test_no_input_of_the_page_fetches_what_an_address_leads_to(
    captioner: Captioner, tmp_path: Path
) -> None:
    page = make_page(captioner, tmp_path)
    inputs = {id(block): block for event in page.fns.values() for block in event.inputs}
    assert len(inputs) == 3
    address = "http://stranger.invalid/x.png"
    for block in inputs.values():
        assert asyncio.run(block.async_move_resource_to_block_cache(address)) == address
    # What a request may ask for is what the page has.
    assert {number: len(event.inputs) for number, event in page.fns.items()} == INPUTS
    assert page.fns[0].api_name == "caption"
