"""`python -m radcap.export`: what it writes is what others need, and nothing is lost on the way."""

from __future__ import annotations

import json
import math
import os
import re
import resource
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio
import numpy as np
import programs
import pytest
import safetensors.torch
import torch
import yaml
from command_line import ROOT
from evaluation.known import SAID, looking_model, save, speaking_model
from hub.stand_in import serving
from huggingface_hub.errors import HTTPError
from packaging.requirements import Requirement
from PIL import Image
from transformers import AutoImageProcessor, BertTokenizer
from waiting import PATIENCE_S

from radcap.config.compose import compose, to_yaml
from radcap.data.collate import load_tokenizer
from radcap.data.image.decode import decode_image
from radcap.diagnosis.software import unmet
from radcap.errors import ConfigError, RadcapError
from radcap.export import main
from radcap.host.console import printable
from radcap.model.captioner import ImageCaptioningModel
from radcap.model.weights import fingerprint
from radcap.serving import package
from radcap.serving.card import RunFacts, model_card, read_facts
from radcap.serving.note import DRAWINGS_ONLY
from radcap.serving.pretrained import load_pretrained
from radcap.serving.upload import upload
from radcap.training.run.checkpoint import Checkpoint, save_checkpoint

FILES = {
    "README.md",
    "config.json",
    "decode_step.pt2",
    "encode.pt2",
    "generate.py",
    "model.safetensors",
    "preprocessor_config.json",
    "pytorch_model.bin",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of random weights: four heads, two layers, odd captions."""
    run = tmp_path_factory.mktemp("runs") / "mine"
    run.mkdir()
    model = looking_model(num_layers=2, num_heads=4)
    best = {"best": {"step": 9, "val_loss": 1.0}}
    save_checkpoint(run / "checkpoints", Checkpoint(9, model.state_dict(), {}, {}, best))
    words = ["model=tiny", "model.embed_dim=16", "model.num_layers=2", "optimizer.lr=0.0123"]
    (run / "config.yaml").write_text(to_yaml(compose(words)))
    (run / "versions.json").write_text(json.dumps({"radcap": "0.1.0", "data_revision": "c0ffee"}))
    summary = {"steps": 9, "images": 288, "epochs": 1.5, "val_loss": 0.5, "val_rows": 40}
    slots = {"modality": {"accuracy": 0.25, "correct": 10, "count": 40}}
    summary |= {"val_perplexity": 1.6487, "slots": slots}
    (run / "summary.json").write_text(json.dumps(summary))
    return run


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "out"
    assert main([str(run), str(folder)]) == 0
    return folder


def test_every_file_holds_the_same_weights(run: Path, exported: Path) -> None:
    assert {file.name for file in exported.iterdir()} == FILES
    assert not list(exported.parent.glob(".*"))
    original = load_pretrained(run)
    state = original.model.state_dict()
    for found in (
        safetensors.torch.load_file(exported / "model.safetensors"),
        torch.load(exported / "pytorch_model.bin", weights_only=True),
        load_pretrained(exported).model.state_dict(),
    ):
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    assert load_pretrained(exported).architecture == original.architecture
    assert load_pretrained(exported).knows_drawings_only
    assert (exported / "model.safetensors").stat().st_mode & 0o444 == 0o444
    assert exported.stat().st_mode & 0o055 == 0o055


def test_no_file_tells_of_the_machine_that_wrote_it(run: Path, exported: Path) -> None:
    """Traces and configurations hold paths, and paths hold names; archives are looked into."""
    private = [str(path).encode() for path in (ROOT, sys.prefix, Path.home(), run, exported)]
    for file in exported.iterdir():
        contents = {file.name: file.read_bytes()}
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                contents |= {name: archive.read(name) for name in archive.namelist()}
        for name, content in contents.items():
            assert not [path for path in private if path in content], (file.name, name)


def test_the_published_script_reads_it(run: Path, exported: Path) -> None:
    """Tokenizer from the folder, model by its vocabulary, strict loading, generate, decode."""
    tokenizer = BertTokenizer.from_pretrained(exported)
    ours = load_tokenizer()
    text = "MRI of the shoulder displays ca++_tendinosis"
    assert tokenizer(text)["input_ids"] == ours(text)["input_ids"]
    assert (exported / "vocab.txt").read_bytes() == Path(
        ROOT / "radcap/assets/vocab.txt"
    ).read_bytes()
    sizes = json.loads((exported / "config.json").read_text())
    assert sizes["model_type"] == "radcap"
    model = ImageCaptioningModel(
        tokenizer.vocab_size, sizes["embed_dim"], sizes["num_layers"], sizes["num_heads"]
    )
    model.load_state_dict(torch.load(exported / "pytorch_model.bin", weights_only=True))
    images = torch.randint(256, (2, 3, 224, 224), generator=torch.Generator().manual_seed(1)).byte()
    original = load_pretrained(run)
    expected = original.model.generate(images, 20, original.tokenizer)
    assert torch.equal(model.eval().generate(images, 20, tokenizer), expected)


def test_transformers_makes_the_same_input_of_a_picture(exported: Path, tmp_path: Path) -> None:
    from PIL import Image

    processor = AutoImageProcessor.from_pretrained(exported)
    encoder = load_pretrained(exported).model.encoder
    for size, tolerance in (((224, 224), 1e-5), ((301, 512), 0.02)):  # 0.02: one grey level
        pixels = torch.randint(256, (*size, 3), generator=torch.Generator().manual_seed(2)).byte()
        image = Image.fromarray(pixels.numpy())
        image.save(tmp_path / "x.png")
        ours = torch.from_numpy(decode_image((tmp_path / "x.png").read_bytes()).copy())
        scaled = ours * encoder.pixel_scale[0] + encoder.pixel_shift[0]
        theirs = processor(image, return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(theirs, scaled, rtol=0, atol=tolerance)


PROGRAM = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("radcap", "transformers", "torchvision"):
            raise ImportError(f"{name} must not be needed")

sys.meta_path.insert(0, Refuse())
sys.path.insert(0, sys.argv[1])
import torch
import generate

captioner = generate.Captioner()
images = torch.stack([generate.load_image(file) for file in sys.argv[2:]])
for count in (1, len(images)):
    print(captioner.generate(images[:count], max_len=24).tolist())
print(captioner.captions(images))
assert not [name for name in sys.modules if name.partition(".")[0] == "radcap"]
"""


def test_plain_pytorch_writes_the_same_ids(run: Path, exported: Path, tmp_path: Path) -> None:
    """A process in which radcap, transformers and torchvision cannot be imported."""
    from PIL import Image

    files = []
    for number, size in enumerate(((224, 224), (300, 200), (64, 90))):
        generator = torch.Generator().manual_seed(number)
        pixels = torch.randint(20 + 110 * number, (*size, 3), generator=generator).byte()
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels.numpy()).save(files[-1])
    done = subprocess.run(
        [sys.executable, "-I", "-c", PROGRAM, str(exported), *map(str, files)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    one, all_of_them, captions = map(eval, done.stdout.splitlines())
    original = load_pretrained(run)
    images = torch.stack([torch.from_numpy(decode_image(f.read_bytes()).copy()) for f in files])
    generate = original.model.generate
    assert one == generate(images[:1], 24, original.tokenizer).tolist()
    assert all_of_them == generate(images, 24, original.tokenizer).tolist()
    assert len({tuple(ids) for ids in all_of_them}) > 1
    texts = original.tokenizer.batch_decode(
        generate(images, 80, original.tokenizer), skip_special_tokens=True
    )
    assert captions == texts


def test_a_picture_that_is_not_there_is_told_in_a_line(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    files = [str(tmp_path / "nowhere.png"), str(tmp_path / "notes.txt")]
    done = subprocess.run(
        [sys.executable, "-B", str(exported / "generate.py"), *files],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 1 and done.stdout == ""
    assert [line.split(": ")[0] for line in done.stderr.splitlines()] == files


def test_what_the_example_does_not_read_is_told_in_a_line(exported: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exported, tmp_path / "exported")
    deep = np.arange(4000, dtype=np.uint16).reshape(50, 80)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(deep.astype(np.float32)).save(tmp_path / "deep.tif")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (tmp_path / "pointer.png").write_text(pointer)
    (tmp_path / "scan.dcm").write_bytes(bytes(128) + b"DICM" + bytes(200))
    (tmp_path / "scan").write_bytes(b"\x08\x00\x05\x00" + bytes(200))
    elsewhere = "bring it to 8 bits, or python -m radcap.caption reads it"
    module = package._example(folder)
    for name, said in (
        ("deep.png", f"a picture of more than 8 bits: {elsewhere}"),
        ("deep.tif", f"a picture of more than 8 bits: {elsewhere}"),
        ("scan.dcm", f"a DICOM file: {elsewhere}"),
        ("scan", f"a DICOM file: {elsewhere}"),
        ("pointer.png", "a git-lfs pointer in the place of the picture: git lfs pull fetches it"),
    ):
        with pytest.raises(module.ImageError) as caught:
            module.load_image(tmp_path / name)
        assert str(caught.value) == said
    # As radcap reads them: upright or, with an EXIF of garbage, as stored; on black.
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 4), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "clear.png", exif=b"Exif\0\0garbage")
    found = module.load_image(tmp_path / "clear.png").numpy()
    expected = decode_image((tmp_path / "clear.png").read_bytes())
    assert np.abs(found.astype(int) - expected).max() <= 1
    for name in ("encode.pt2", "tokenizer.json"):
        shutil.copytree(exported, folder, dirs_exist_ok=True)
        (folder / name).write_text(pointer)
        done = subprocess.run(
            [sys.executable, "-B", str(folder / "generate.py"), str(tmp_path / "scan.dcm")],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        assert (done.returncode, done.stdout) == (1, "")
        remedy = "a git-lfs pointer; git lfs pull fetches the file itself"
        assert done.stderr == f"{folder / name}: {remedy}\n"


def test_the_example_says_what_the_model_knows_and_steers_no_terminal(
    exported: Path, tmp_path: Path
) -> None:
    name = str(tmp_path / "\x1b]0;owned\x07.png")
    Image.new("L", (60, 50)).save(name)
    done = subprocess.run(
        [sys.executable, "-B", str(exported / "generate.py"), name, name],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    assert done.stderr == f"# not for diagnosis; {DRAWINGS_ONLY}\n"
    shown = printable(name)
    assert [line.split(": ")[0] for line in done.stdout.splitlines()] == [shown, shown]


def test_the_card_says_what_the_run_says_and_no_more(exported: Path, run: Path) -> None:
    card = (exported / "README.md").read_text()
    for part in (
        *("Not for diagnosis", "synthetic, not RadImageNet", "c0ffee", "0.0123", "288", "1.50"),
        *("perplexity 1.649", "modality 25.0%", "not on medical images", "4 heads", "generate.py"),
    ):
        assert part in card, part
    assert "None" not in card and "nan" not in card
    assert "bleu" not in card


def test_an_infinite_perplexity_is_said_in_the_card(run: Path) -> None:
    pretrained = load_pretrained(run)
    figure = {"value": "Infinity", "interval": [math.exp(700.0), "Infinity"], "count": 40}
    for summary, results, said in (
        ({"val_perplexity": "Infinity"}, [], "loss 800.0000 nats a target token (padding left"),
        ({"val_perplexity": "Infinity"}, [], "perplexity infinity."),
        ({"val_perplexity": math.exp(700.0)}, [], "perplexity 1.014e+304."),
        (
            {}, [{"scores": {"perplexity": figure}}],
            "| perplexity | infinity | 1.014e+304 to infinity |",
        ),
    ):  # fmt: skip
        summary |= {"val_rows": 40, "val_loss": 800.0}
        facts = RunFacts(summary=summary, evaluations=results)
        assert said in model_card(pretrained, facts, "x")


def test_weights_without_a_run_have_a_card_that_admits_it(tmp_path: Path) -> None:
    file = save(speaking_model(load_tokenizer()), tmp_path / "says.safetensors")
    assert main([str(file), str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "not known here" in card
    assert "None were computed" in card
    assert "phantom" not in card
    assert load_pretrained(tmp_path / "out").architecture.num_heads == 8


def test_scores_of_an_evaluation_stand_in_the_card(run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(run, tmp_path / "run")
    sha256 = fingerprint(load_pretrained(run).model.state_dict())
    settings = {"beams": 4, "max_length": 32, "precision": "bf16"}
    common = {"rows": 40, "captions": 39, "settings": settings, "comparable": {"loss": "<b>lies"}}
    for name, weights, value in (
        *(("val", sha256, 12.5), ("other", "beef", 99.25)),
        ("val.old-1", sha256, 99.5),
    ):
        folder = run / "evaluation" / name
        folder.mkdir(parents=True)
        figure = {"value": value, "interval": [value - 1, value + 1], "count": 40}
        data = {"split": "val", "name": "/home/me/secret/set", "revision": "c0ffee"}
        data["split_rows"] = 600
        content = {"weights": {"sha256": weights}, "data": data, "scores": {"bleu_4": figure}}
        (folder / "results.json").write_text(json.dumps(content | common))
    assert main([str(run), str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| bleu_4 | 12.5000 | 11.5000 to 13.5000 |" in card
    assert "99.25" not in card and "99.5" not in card
    assert "0.7637" not in card and "lies" not in card and "token-true" in card
    assert "of `set`, revision `c0ffee`" in card and "secret" not in card
    assert "40 rows scored, of 600, 39 captioned, 4 beams, at most 32 word pieces, `bf16`" in card


def hostile(kind: str, file: str, **changes: Any) -> Any:
    return pytest.param(file, changes, id=kind)


EVIL = "[click](http://evil) |\n\n## Certified <script>alert(1)</script>\r\r# for `diagnosis`"


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        hostile("no data", "config.yaml", data=None),
        hostile("data is a list", "config.yaml", data=[1]),
        hostile("rate is text", "config.yaml", optimizer={"lr": "abc"}, schedule={"name": EVIL}),
        hostile("batch is text", "config.yaml", data={"batch_size": "a", "path": 5, "name": []}),
        hostile("Markdown", "config.yaml", data={"name": "hub", "hub_id": EVIL, "config": EVIL}),
        hostile("a path", "config.yaml", data={"name": "phantom", "path": "../patients/smith"}),
        hostile("an encoder", "config.yaml", model={"encoder_weights": "/patients/x.pt"}),
        hostile("a revision", "versions.json", data_revision=EVIL, torch=EVIL, radcap=3),
        hostile("no rows", "summary.json", val_rows=None, slots=[1]),
        hostile("slots", "summary.json", val_loss="x", slots={"modality": 5, EVIL: {}}),
        hostile("infinite", "summary.json", val_loss=float("inf"), epochs=float("nan")),
        hostile("weights", "evaluation/x/results.json", weights=None),
        hostile("nothing", "evaluation/x/results.json"),
        hostile("scores", "evaluation/x/results.json", scores=[1], settings=[], data=5),
        hostile(
            "figures",
            "evaluation/x/results.json",
            scores={EVIL: {"value": 1.0}, "loss": {"value": 0.5, "interval": [None]}, "x": 5},
            data={"name": EVIL, "split": EVIL, "revision": EVIL},
        ),
    ],
)
def test_facts_that_are_none_do_not_break_the_card_and_get_no_say_in_it(
    run: Path, tmp_path: Path, file: str, changes: dict[str, Any]
) -> None:
    pretrained = load_pretrained(run)
    sha256 = fingerprint(pretrained.model.state_dict())
    other = tmp_path / "run"
    (other / "evaluation" / "x").mkdir(parents=True)
    for name in ("config.yaml", "versions.json", "summary.json"):
        shutil.copy(run / name, other)
    before = yaml.safe_load((other / file).read_text()) if (other / file).exists() else {}
    before = before or {"weights": {"sha256": sha256}}
    (other / file).write_text(json.dumps(before | changes))
    facts = read_facts(replace(pretrained, run=other), sha256)
    card = model_card(pretrained, facts, f"x {EVIL}")
    outside = re.sub(r"`[^`\n]*`", "", card).replace("None were", "")
    for word in ("click", "script", "evil", "Certified", "nan", "None ", "inf ", "patients"):
        assert word not in outside, word
    assert "patients" not in card and "\r" not in card
    assert ("drawings" in card) == ("data" not in changes or not file.startswith("config"))


def test_an_earlier_export_is_moved_aside_and_anything_else_refused(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert main([str(exported), str(out)]) == 0
    (out / "notes.txt").write_text("mine")
    assert main([str(exported), str(out)]) == 0
    assert (tmp_path / "out.old-1" / "notes.txt").read_text() == "mine"
    assert {file.name for file in out.iterdir()} == FILES
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years")
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for wrong in ("link", "dangling"):
        with pytest.raises(ConfigError, match="a link; name the folder"):
            main([str(exported), str(tmp_path / wrong)])
    for wrong in ("thesis", "file"):
        with pytest.raises(ConfigError, match="choose another"):
            main([str(exported), str(tmp_path / wrong)])
    monkeypatch.chdir(out)
    with pytest.raises(ConfigError, match="in use"):
        main([str(exported), "."])


def test_what_does_not_load_back_is_not_exported(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that writes other ids: the folder that was there stays, nothing half is left."""
    out = tmp_path / "out"
    assert main([str(exported), str(out)]) == 0
    before = {file.name: file.stat().st_mtime_ns for file in out.iterdir()}
    wrong = package.export_programs(speaking_model(load_tokenizer()))
    monkeypatch.setattr(package, "export_programs", lambda model: wrong)
    with pytest.raises(RadcapError, match="programs do not"):
        main([str(exported), str(out)])
    assert {file.name: file.stat().st_mtime_ns for file in out.iterdir()} == before
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("room", [-1, 0])
def test_a_disk_that_is_full_is_told_in_a_line(exported: Path, tmp_path: Path, room: int) -> None:
    """No file may be larger than the safetensors, which torch's own is, or not even as large."""
    limit = (exported / "model.safetensors").stat().st_size + room
    assert limit < (exported / "pytorch_model.bin").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(RadcapError, match="cannot be written") as caught:
            main([str(exported), str(tmp_path / "out")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "WEIGHTS, FOLDER"),
        (["a"], "FOLDER"),
        (["a", "b", "c"], "unrecognized arguments: c"),
        (["nowhere.bin", "b"], "nowhere.bin: no such file"),
        (["a", "b", "--push", "no-owner"], "OWNER/NAME"),
        (["a", "b", "--private"], "--push"),
    ],
)
def test_wrong_words_are_refused_in_a_line(words: list[str], said: str) -> None:
    with pytest.raises(RadcapError, match=said) as caught:
        main(words)
    assert len(str(caught.value).splitlines()) == 1


def push(folder: Path, endpoint: str, home: Path, *words: str) -> Any:
    # As on a user's machine: with the variable Python leaves no bytecode, nor could an export.
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    hub = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_TOKEN": "hf_secret"}
    return programs.run(
        ["-m", "radcap.export", folder, home / "out", *words],
        env={**inherited, "PYTHONPATH": str(ROOT), **hub, "HF_HUB_OFFLINE": "0"},
    )


def test_a_push_sends_every_file_and_keeps_the_token_to_itself(
    exported: Path, tmp_path: Path
) -> None:
    with serving(tmp_path) as hub:
        done = push(exported, hub.endpoint, tmp_path, "--push", "me/captioner", "--private")
        assert done.returncode == 0, done.stderr
        assert hub.created["me/captioner"]["visibility"] == "private"
        assert hub.uploaded.keys() == FILES
        for name, content in hub.uploaded.items():
            assert content == (tmp_path / "out" / name).read_bytes(), name
        assert hub.token == "Bearer hf_secret"
        assert f"{hub.endpoint}/me/captioner" in done.stdout
        assert "# me/captioner" in hub.uploaded["README.md"].decode()
        assert "hf_secret" not in done.stdout + done.stderr
        for content in hub.uploaded.values():
            assert b"hf_secret" not in content

        # Made by others, it stays as it is; and without the word the account's setting decides.
        hub.uploaded.clear()
        hub.created["me/public"] = {"visibility": "public"}
        done = push(exported, hub.endpoint, tmp_path, "--push", "me/public", "--private")
        assert done.returncode == 2 and "me/public is there and public" in done.stderr
        assert not hub.uploaded
        done = push(exported, hub.endpoint, tmp_path, "--push", "me/new")
        assert done.returncode == 0, done.stderr
        assert not {"private", "visibility"} & hub.created["me/new"].keys()

        hub.fault = lambda number, method, path: 403
        done = push(exported, hub.endpoint, tmp_path, "--push", "me/captioner")
    assert done.returncode == 1
    assert "HF_TOKEN" in done.stderr and "403" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "hf_secret" not in done.stdout + done.stderr
    assert (tmp_path / "out" / "README.md").is_file()
    assert SAID not in done.stdout


@pytest.mark.slow
def test_a_space_is_written_into_the_export_and_pushed_as_one(
    exported: Path, tmp_path: Path
) -> None:
    with serving(tmp_path) as hub:
        done = push(exported, hub.endpoint, tmp_path, "--space", "--push", "me/page", "--private")
        assert done.returncode == 0, done.stderr
        asked = hub.created["me/page"]
        assert (asked["type"], asked["sdk"], asked["visibility"]) == ("space", "gradio", "private")
        assert f"{hub.endpoint}/spaces/me/page/commit/" in done.stdout
        space = tmp_path / "out" / "space"
        files = {file.relative_to(space).as_posix(): file for file in space.rglob("*")}
        sent = {name: file.read_bytes() for name, file in files.items() if file.is_file()}
        assert hub.uploaded == sent
        hub.created["me/open"] = {"visibility": "public", "type": "space"}
        done = push(exported, hub.endpoint, tmp_path, "--space", "--push", "me/open", "--private")
        assert done.returncode == 2 and "me/open is there and public" in done.stderr
        hub.fault = lambda number, method, path: 403
        done = push(exported, hub.endpoint, tmp_path, "--space", "--push", "me/page")
        assert done.returncode == 1 and f"{hub.endpoint}/spaces/me/page" in done.stderr
    assert {name for name in sent if "/" not in name} == {
        *("app.py", "requirements.txt", "README.md", "LICENSE", "NOTICE")
    }
    for name, content in sent.items():
        if name.startswith("radcap/"):
            assert content == (ROOT / name).read_bytes(), name
    ours = {file.relative_to(ROOT).as_posix() for file in (ROOT / "radcap").rglob("*.*")}
    assert {name for name in ours if "__pycache__" not in name} <= sent.keys()
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert sent[f"weights/{name}"] == (tmp_path / "out" / name).read_bytes()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "\n# out\n" in card and "me/page" not in card
    private = [str(path).encode() for path in (ROOT, sys.prefix, Path.home(), exported, tmp_path)]
    assert not [name for name, content in sent.items() if any(p in content for p in private)]

    _, header, body = sent["README.md"].decode().split("---\n", 2)
    facts = yaml.safe_load(header)
    assert (facts["sdk"], facts["app_file"], facts["license"]) == ("gradio", "app.py", "mit")
    assert facts["sdk_version"] == gradio.__version__ and facts["title"] == "page"
    assert len(facts["short_description"]) <= 60  # what the Hub takes
    for part in ("Not for diagnosis", "## Training", "## Scores", "## Limits", "python app.py"):
        assert part in body


def test_the_requirements_of_a_space_are_met_here_and_all_of_them(
    run: Path, tmp_path: Path
) -> None:
    assert main([str(run), str(tmp_path / "out"), "--space"]) == 0
    lines = (tmp_path / "out/space/requirements.txt").read_text().splitlines()
    assert lines[0].startswith("--extra-index-url https://")
    found = {one.name: one for one in map(Requirement, lines[1:])}
    for one in found.values():
        assert unmet(one) is None and one.marker is None
    assert {"torch", "transformers", "gradio", "pydicom"} <= found.keys()
    assert "radcap" not in found


class Refused(HTTPError):
    def __init__(self, status: int) -> None:
        super().__init__("no")
        self.response = SimpleNamespace(status_code=status)


def large_file_fails(cause: Exception) -> RuntimeError:
    error = RuntimeError("Error while uploading 'pytorch_model.bin' to the Hub.")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("Error while uploading 'x'"), "refuses: RuntimeError: Error while uploading"),
        (large_file_fails(Refused(403)), r"not allowed .*HTTP 403.*HF_TOKEN"),
        (large_file_fails(OSError("reset")), "cannot be reached .*reset.*tries again"),
        (OSError("tokenizer.json: connection lost"), "cannot be reached .*tokenizer.json"),
        (Refused(503), r"does not answer now \(HTTP 503\).*tries again"),
        (Refused(422), "refuses"),
        (ValueError("Illegal value b'Bearer hf_secret\\n'"), r"value b'Bearer \*\*\*"),
    ],
)
def test_a_failed_upload_is_told_in_a_line(
    error: Exception, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", fail)
    with pytest.raises(RadcapError, match=said) as caught:
        upload(tmp_path, "me/x", private=False)
    assert len(str(caught.value).splitlines()) == 1
