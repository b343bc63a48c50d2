"""Every kind of source gives the same model; what is wrong with one is told in a line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml
from bounds import bounded
from hub.stand_in import StandInHub, point_client_at, serving

from radcap.data.collate import load_tokenizer
from radcap.errors import RadcapError
from radcap.model.captioner import ImageCaptioningModel
from radcap.model.weights import WeightsError, WeightsUnavailable
from radcap.serving.pretrained import Pretrained, load_pretrained
from radcap.training.run.checkpoint import Checkpoint, save_checkpoint

HUB_ID = "someone/captioner"


def write_run(
    folder: Path, model: ImageCaptioningModel, steps: dict[int, float], best: int | None
) -> Path:
    """A run with checkpoints, the weights of each scaled so that they can be told apart."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": {"num_heads": 4}}))
    for step, scale in steps.items():
        state = dict(model.state_dict())
        state["fc_out.bias"] = torch.full_like(state["fc_out.bias"], scale)
        progress = {"best": {"step": best, "val_loss": 1.0} if best else None}
        save_checkpoint(folder / "checkpoints", Checkpoint(step, state, {}, {}, progress))
    return folder


def write_exported(folder: Path, model: ImageCaptioningModel, **config: object) -> Path:
    folder.mkdir(parents=True)
    safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors")
    sizes = {"vocab_size": 30_522, "embed_dim": 16, "num_layers": 2, "num_heads": 4}
    facts = {"model_type": "radcap", **sizes, "graph_steps": 3, "made_by": "a test", **config}
    (folder / "config.json").write_text(json.dumps(facts))
    return folder


def scale_of(found: Pretrained) -> float:
    return float(found.model.fc_out.bias[0].detach())


def test_a_run_gives_its_best_checkpoint_and_its_heads(
    small_model: ImageCaptioningModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", small_model, {10: 1.0, 20: 2.0, 30: 3.0}, best=20)
    found = load_pretrained(run)
    assert (found.step, found.run, scale_of(found)) == (20, run, 2.0)
    assert found.architecture.num_heads == 4
    assert found.origin == f"{run}, step 20"
    assert not found.model.training
    assert next(found.model.parameters()).dtype == torch.float32

    shutil.rmtree(run / "checkpoints" / "step-20")
    assert load_pretrained(run).step == 30
    damaged = run / "checkpoints" / "step-30" / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert load_pretrained(run).step == 10
    said = capsys.readouterr().err
    assert "step-30 is damaged: model.safetensors is not what was written; passed over" in said
    with pytest.raises(WeightsError, match=r"step-30 is damaged: model.safetensors"):
        load_pretrained(run / "checkpoints" / "step-30")
    damaged = shutil.copytree(run, tmp_path / "damaged")
    for file in damaged.glob("checkpoints/*/model.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=r"step-30 is damaged: .*; .*step-10 is damaged: "):
        load_pretrained(damaged)

    found = load_pretrained(run / "checkpoints" / "step-10")
    assert (found.step, found.run, found.architecture.num_heads) == (10, run, 4)
    assert found.trained_on is None
    file = run / "checkpoints" / "step-10" / "model.safetensors"
    assert load_pretrained(file).architecture.num_heads == 4


@pytest.mark.parametrize(
    ("data", "trained_on"),
    [
        ({"name": "phantom", "path": None}, "phantom"),
        ({"name": "phantom", "path": "mine"}, "folder"),
        ({"name": "hub", "hub_id": "a/b"}, "hub"),
        ({"name": ["phantom"]}, None),
        (None, None),
    ],
)
def test_what_it_was_trained_on_is_known_of_every_form_of_a_run(
    small_model: ImageCaptioningModel, tmp_path: Path, data: object, trained_on: str | None
) -> None:
    run = write_run(tmp_path / "run", small_model, {10: 1.0}, best=10)
    config = {"model": {"num_heads": 4}, "data": data}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    step = run / "checkpoints" / "step-10"
    for source in (run, step, step / "model.safetensors"):
        found = load_pretrained(source)
        assert found.trained_on == trained_on
        assert found.knows_drawings_only == (trained_on == "phantom")


def test_a_run_without_a_checkpoint_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: {num_heads: 4}\n")
    with pytest.raises(WeightsUnavailable, match="this run has no checkpoint yet"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".safetensors"])
def test_a_bare_file_has_the_cards_eight_heads(
    small_model: ImageCaptioningModel, tmp_path: Path, suffix: str
) -> None:
    file = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(small_model.state_dict(), file)
    else:
        torch.save(small_model.state_dict(), file)
    found = load_pretrained(str(file))
    assert found.architecture.num_heads == 8
    for name, entry in found.model.state_dict().items():
        assert torch.equal(entry, small_model.state_dict()[name])


def test_an_exported_folder_with_heads_steps_and_a_vocabulary(
    small_model: ImageCaptioningModel, tmp_path: Path
) -> None:
    folder = write_exported(tmp_path / "out", small_model, num_heads=2, graph_steps=1)
    found = load_pretrained(folder)
    assert found.architecture.num_heads == 2
    assert found.model.graph_layer.max_steps == 1
    assert found.tokenizer.decode([101, 7279, 0], skip_special_tokens=True) == "pen"

    (folder / "config.json").write_text("{}")
    found = load_pretrained(folder / "model.safetensors")
    assert (found.architecture.num_heads, found.architecture.graph_steps) == (8, 3)

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "lung", "knee"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    with pytest.raises(WeightsError, match="30522 word pieces and the tokenizer 7"):
        load_pretrained(folder)
    tiny = ImageCaptioningModel(7, embed_dim=16, num_layers=1, num_heads=8)
    safetensors.torch.save_file(tiny.state_dict(), folder / "model.safetensors")
    found = load_pretrained(folder)
    assert found.tokenizer.decode([2, 5, 6, 3], skip_special_tokens=True) == "lung knee"


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ('{"embed_dim": 32}', "embed_dim is 16, but beside it stands 32"),
        ('{"num_heads": 3}', r"num_heads \(3\) must divide embed_dim"),
        ('{"num_heads": "four"}', "num_heads 'four'"),
        ('{"num_heads": true}', "num_heads True"),
        ('{"num_heads": 100000000000000000000}', "not a number from 1 to 16"),
        ('{"graph_steps": 50}', "graph_steps 50, not a number from 0 to 49"),
        ('{"graph_steps": -1}', "graph_steps -1, not a number from 0 to 49"),
        ("[1]", "config.json is damaged"),
        ("{", "config.json is damaged"),
    ],
)
def test_a_config_that_contradicts_the_weights_is_refused(
    small_model: ImageCaptioningModel, tmp_path: Path, facts: str, message: str
) -> None:
    folder = write_exported(tmp_path / "out", small_model)
    (folder / "config.json").write_text(facts)
    with pytest.raises(RadcapError, match=message):
        load_pretrained(folder)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "nowhere: no such file or folder$"),
        ("no/file.bin", "no/file.bin: no such file or folder$"),
        ("x" * 5000, "xx: File name too long$"),
        ("", "neither a run"),
    ],
)
def test_nothing_there(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RadcapError, match=message):
        load_pretrained(source)


def test_a_mistyped_run_is_not_looked_for_on_the_hub(hub: StandInHub, tmp_path: Path) -> None:
    (tmp_path / "someone").mkdir()
    with pytest.raises(WeightsUnavailable, match=f"{HUB_ID}: no such file or folder; for a model"):
        load_pretrained(HUB_ID)
    assert hub.bytes_served == 0


def test_numbers_that_are_none_are_refused(
    small_model: ImageCaptioningModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for bad in (float("nan"), float("inf")):
        state = dict(small_model.state_dict())
        state["fc_out.bias"] = torch.full_like(state["fc_out.bias"], bad)
        torch.save(state, tmp_path / "bad.bin")
        with pytest.raises(WeightsError, match=r"bad\.bin: fc_out\.bias holds numbers"):
            load_pretrained(tmp_path / "bad.bin")
    run = write_run(tmp_path / "run", small_model, {10: 1.0, 20: float("nan")}, best=20)
    assert load_pretrained(run).step == 10
    assert "passed over" in capsys.readouterr().err


def test_a_config_of_another_program_is_no_config(
    small_model: ImageCaptioningModel, tmp_path: Path
) -> None:
    torch.save(small_model.state_dict(), tmp_path / "weights.bin")
    (tmp_path / "config.yaml").write_text("name: another project\n")
    found = load_pretrained(tmp_path / "weights.bin")
    assert found.architecture.num_heads == 8
    assert found.origin.endswith("(8 heads assumed)")
    run = write_run(tmp_path / "run", small_model, {10: 1.0}, best=10)
    (run / "config.yaml").write_text("name: another project\n")
    with pytest.raises(WeightsError, match=r"run/config.yaml is damaged: no model.num_heads"):
        load_pretrained(run)


def test_a_tokenizer_without_its_special_tokens_is_refused(
    small_model: ImageCaptioningModel, tmp_path: Path
) -> None:
    folder = write_exported(tmp_path / "out", small_model)
    load_tokenizer().save_pretrained(str(folder))
    load_pretrained(folder)
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"pad_token": None, "cls_token": None}))
    with pytest.raises(WeightsError, match=r"has no \[CLS\], \[SEP\] and \[PAD\] of their own"):
        load_pretrained(folder)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"embedding.weight": Trap()}, tmp_path / "trap.bin")
    with pytest.raises(WeightsError, match="neither a safe PyTorch file nor safetensors"):
        load_pretrained(tmp_path / "trap.bin")
    assert not (tmp_path / "sprung").exists()


@pytest.fixture
def hub(
    small_model: ImageCaptioningModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StandInHub]:
    folder = write_exported(tmp_path / "repository", small_model)
    torch.save(small_model.state_dict(), folder / "pytorch_model.bin")
    (folder / "training_curve.png").write_bytes(b"not needed")
    with serving(folder, HUB_ID, is_model=True) as hub:
        point_client_at(hub.endpoint, monkeypatch)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        monkeypatch.chdir(tmp_path)
        yield hub


def test_from_the_hub_only_what_is_needed_and_once(hub: StandInHub) -> None:
    found = load_pretrained(HUB_ID)
    assert found.origin == f"Hub {HUB_ID} at {hub.commit}"
    assert found.architecture.num_heads == 4
    assert hub.token == "Bearer hf_secret"
    size = sum((hub.folder / name).stat().st_size for name in ("config.json", "model.safetensors"))
    assert hub.bytes_served == size
    load_pretrained(f"{HUB_ID}@{hub.commit}")
    assert hub.bytes_served == size


def test_from_the_hub_at_a_revision(hub: StandInHub, tmp_path: Path) -> None:
    first = hub.commit
    other = ImageCaptioningModel(30_522, embed_dim=16, num_layers=1, num_heads=2)
    hub.publish(write_exported(tmp_path / "second", other, num_layers=1, num_heads=2))
    assert load_pretrained(HUB_ID).architecture.num_layers == 1
    assert load_pretrained(f"{HUB_ID}@{first}").architecture.num_layers == 2


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_of_the_hub_ends_at_once(hub: StandInHub, status: int) -> None:
    hub.fault = lambda number, method, path: status
    with pytest.raises(WeightsUnavailable, match=f"HTTP {status}.*HF_TOKEN") as caught:
        load_pretrained(HUB_ID)
    assert "\n" not in str(caught.value)
    assert sum(hub.failed.values()) == 1


def test_no_network_takes_what_was_downloaded_before_or_ends_at_once(
    hub: StandInHub, connections: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    load_pretrained(HUB_ID)
    point_client_at("http://127.0.0.1:9", monkeypatch)
    assert load_pretrained(HUB_ID).architecture.num_heads == 4
    connections.clear()
    with pytest.raises(WeightsUnavailable, match=r"no/such: no such file or folder, and .* cannot"):
        load_pretrained("no/such")
    assert len(connections) <= 3  # without patience


def test_a_repository_without_weights_is_refused(hub: StandInHub, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.md").write_text("nothing")
    hub.publish(tmp_path / "empty")
    with pytest.raises(WeightsError, match=r"holds no model.safetensors or pytorch_model.bin"):
        load_pretrained(HUB_ID)


@pytest.mark.parametrize(
    "name", ["config.json", "vocab.txt", "tokenizer.json", "tokenizer_config.json", "added.json"]
)
def test_a_pipe_beside_the_weights_is_not_waited_for(
    small_model: ImageCaptioningModel, tmp_path: Path, name: str
) -> None:
    folder = write_exported(tmp_path / "out", small_model)
    (folder / "vocab.txt").write_text("[PAD]\n")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with bounded(500), pytest.raises(RadcapError, match=f"{name}: neither a file nor a folder"):
        load_pretrained(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "manifest.json", "config.yaml"])
def test_a_pipe_for_what_tells_a_folder_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with bounded(500), pytest.raises(RadcapError, match=r"neither a file|no checkpoint yet"):
        load_pretrained(tmp_path)
    os.mkfifo(tmp_path / "weights.bin")
    with bounded(500), pytest.raises(WeightsUnavailable, match="neither a file nor a folder"):
        load_pretrained(tmp_path / "weights.bin")


def test_what_stands_beside_is_told_in_a_line(
    small_model: ImageCaptioningModel, tmp_path: Path
) -> None:
    folder = write_exported(tmp_path / "out", small_model)
    for facts in ({"embed_dim": ["x"] * 9_000}, {"num_heads": "x" * 9_000}):
        (folder / "config.json").write_text(json.dumps(facts))
        with pytest.raises(WeightsError) as caught:
            load_pretrained(folder)
        assert len(str(caught.value)) < 400
