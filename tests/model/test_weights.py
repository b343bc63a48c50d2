"""Weights from files and from the net, and every way in which they may be wrong or missing."""

from __future__ import annotations

import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor
from torchvision.models import mobilenet_v3_small

from radcap.model.captioner import ImageCaptioningModel
from radcap.model.weights import (
    WeightsError,
    WeightsUnavailable,
    captioner_sizes,
    init_weights,
    load_captioner_weights,
    load_encoder_weights,
    load_strictly,
)


def tiny_model(seed: int = 0) -> ImageCaptioningModel:
    torch.manual_seed(seed)
    return ImageCaptioningModel(30, embed_dim=16, num_layers=2, num_heads=4)


def assert_equal_states(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_random_start_has_torchs_spread() -> None:
    model = tiny_model()
    with torch.no_grad():
        for entry in model.state_dict().values():
            entry.fill_(7)
    torch.manual_seed(0)
    init_weights(model)
    state = model.state_dict()
    assert state["pos_encoder"].std().item() == pytest.approx(1.0, abs=0.02)
    bound = (6 / (3 * 16 + 16)) ** 0.5  # xavier_uniform of the three projections as one matrix
    projection = state["decoder.layers.1.self_attn.in_proj_weight"]
    assert 0.9 * bound < projection.abs().max().item() <= bound
    for name in ("self_attn.in_proj_bias", "multihead_attn.out_proj.bias"):
        assert not state[f"decoder.layers.0.{name}"].any()
    last_conv = state["encoder.features.12.0.weight"]  # 1 x 1 to 576 channels, fan out 576
    assert last_conv.std().item() == pytest.approx((2 / 576) ** 0.5, rel=0.02)
    assert not state["encoder.features.0.1.running_mean"].any()
    assert all(not (entry == 7).all() for entry in state.values())


def test_random_weights_follow_the_seed() -> None:
    first, second = tiny_model(), tiny_model(seed=1)
    for model in (first, second):
        torch.manual_seed(5)
        init_weights(model)
    assert_equal_states(second.state_dict(), first.state_dict())


def test_none_draws_the_encoder_alone() -> None:
    model = tiny_model()
    before = {name: entry.clone() for name, entry in model.state_dict().items()}
    load_encoder_weights(model, "none")
    changed = {
        name.split(".")[0]
        for name, entry in model.state_dict().items()
        if not torch.equal(entry, before[name])
    }
    assert changed == {"encoder"}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_encoder_from_a_torchvision_file(tmp_path: Path, suffix: str) -> None:
    classifier = mobilenet_v3_small(weights=None).state_dict()
    path = tmp_path / f"mobilenet{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(classifier, path)
    else:
        torch.save(classifier, path)
    model = tiny_model()
    load_encoder_weights(model, str(path))
    expected = {n: t for n, t in classifier.items() if n.startswith("features.")}
    assert_equal_states(model.encoder.state_dict(), expected)


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".safetensors"])
def test_encoder_and_captioner_from_a_captioners_file(tmp_path: Path, suffix: str) -> None:
    source, model = tiny_model(seed=1), tiny_model(seed=2)
    path = tmp_path / f"captioner{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(source.state_dict(), path)
    else:
        torch.save(source.state_dict(), path)
    embedding = model.embedding.weight.clone()
    load_encoder_weights(model, str(path))
    assert_equal_states(model.encoder.state_dict(), source.encoder.state_dict())
    assert torch.equal(model.embedding.weight, embedding)

    state = load_captioner_weights(path)
    assert captioner_sizes(state) == {"vocab_size": 30, "embed_dim": 16, "num_layers": 2}
    model.load_state_dict(state)
    assert_equal_states(model.state_dict(), source.state_dict())


def test_wrong_files_are_named_in_one_line(tmp_path: Path) -> None:
    captioner = tiny_model().state_dict()
    misshapen = dict(captioner)
    misshapen["fc_out.bias"] = torch.zeros(3)
    incomplete = {n: t for n, t in captioner.items() if "features.0." not in n}
    contents = {
        "empty.pt": ({}, "missing: features.0.0.weight"),
        "incomplete.pt": (incomplete, r"missing: features.0.0.weight, .* and 3 more$"),
        "list.pt": ([1, 2], "not a state dict"),
        "nested.pt": ({"model": captioner}, "not a state dict"),
        "object.pt": ({"a": Path("a")}, "neither a safe PyTorch file"),
    }
    for name, (content, message) in contents.items():
        torch.save(content, tmp_path / name)
        with pytest.raises(WeightsError, match=message) as error:
            load_encoder_weights(tiny_model(), str(tmp_path / name))
        assert "\n" not in str(error.value)
        assert name in str(error.value)
    torch.save(captioner, tmp_path / "whole.pt")
    half = (tmp_path / "whole.pt").read_bytes()[:100_000]
    damaged = {"no.pt": b"", "half.pt": half}
    damaged |= {f"text{i}.bin": bytes(range(i, i + 50)) for i in range(0, 200, 5)}
    for name, data in (damaged | {"text.safetensors": b"hello", "hello.bin": b"hello"}).items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(WeightsError, match="neither a safe PyTorch file"):
            load_encoder_weights(tiny_model(), str(tmp_path / name))
    with pytest.raises(WeightsUnavailable, match=r"absent\.pt: cannot read .*No such file"):
        load_encoder_weights(tiny_model(), str(tmp_path / "absent.pt"))
    with pytest.raises(WeightsUnavailable, match="cannot read"):
        load_encoder_weights(tiny_model(), str(tmp_path))

    torch.save(misshapen, tmp_path / "misshapen.pt")
    with pytest.raises(WeightsError, match=r"wrong shape: fc_out\.bias \[3\] instead of \[30\]"):
        load_captioner_weights(tmp_path / "misshapen.pt")
    with pytest.raises(WeightsError, match=r"has no embedding\.weight"):
        load_captioner_weights(tmp_path / "empty.pt")
    other = ImageCaptioningModel(30, embed_dim=16, num_layers=1, num_heads=4)
    with pytest.raises(WeightsError, match=r"^run 7 does not fit .*unknown: decoder\.layers\.1"):
        load_strictly(other, captioner, "run 7")


def test_entries_that_cannot_be_a_captioners(tmp_path: Path) -> None:
    captioner = tiny_model().state_dict()
    bias, embedding = captioner["fc_out.bias"], "embedding.weight"
    for name, change, message in [
        ("line", {embedding: torch.zeros(5)}, r"embedding\.weight \[5\] is no matrix"),
        ("number", {embedding: torch.tensor(1.0)}, r"embedding\.weight \[\] is no matrix"),
        ("none", {embedding: torch.zeros(0, 16)}, r"embedding\.weight \[0, 16\] is no matrix"),
        ("key", {3: torch.zeros(1)}, "not a state dict"),
        ("layer", {"decoder.layers.x": torch.zeros(1)}, "missing: decoder.layers.2.self_attn"),
        ("sparse", {"fc_out.bias": bias.to_sparse()}, r"fc_out\.bias float32 sparse_coo"),
        ("whole", {"fc_out.bias": bias.int()}, r"numbers: fc_out\.bias int32 strided"),
        ("complex", {"fc_out.bias": bias.cfloat()}, r"fc_out\.bias complex64"),
        ("meta", {"fc_out.bias": bias.to("meta")}, "neither a safe PyTorch file nor"),
    ]:
        torch.save({**captioner, **change}, tmp_path / f"{name}.bin")
        with pytest.raises(WeightsError, match=message) as error:
            load_captioner_weights(tmp_path / f"{name}.bin")
        assert "\n" not in str(error.value)
    torch.save({name: entry.half() for name, entry in captioner.items()}, tmp_path / "half.bin")
    with pytest.raises(WeightsError, match="num_batches_tracked float16"):
        load_captioner_weights(tmp_path / "half.bin")
    halved = {n: e.half() if e.is_floating_point() else e for n, e in captioner.items()}
    torch.save(halved, tmp_path / "half.bin")
    tiny_model(seed=1).load_state_dict(load_captioner_weights(tmp_path / "half.bin"))


@pytest.fixture
def through_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    """An empty download cache, and a loopback port through which all downloads go."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("no_proxy", "NO_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{listener.getsockname()[1]}")
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers the old proxies
    return listener


def test_download_out_of_reach(through_a_proxy: socket.socket, connections: list[Any]) -> None:
    model = tiny_model()
    before = {name: entry.clone() for name, entry in model.state_dict().items()}
    with pytest.raises(WeightsUnavailable) as error:  # the port is bound, but nobody listens
        load_encoder_weights(model, "imagenet")
    assert connections == [through_a_proxy.getsockname()]  # tried once
    message = str(error.value)
    assert "https://download.pytorch.org/models/mobilenet_v3_small-047dcff4.pth" in message
    assert "model.encoder_weights" in message
    assert "none" in message
    assert "\n" not in message
    assert_equal_states(model.state_dict(), before)


def test_a_silent_server_does_not_hold_the_run(
    through_a_proxy: socket.socket, connections: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold it for ever: torch.hub has no limit of its own."""
    through_a_proxy.listen()  # accepts, never answers
    monkeypatch.setattr("radcap.model.weights._DOWNLOAD_TIMEOUT_S", 0.5)
    with pytest.raises(WeightsUnavailable, match="timed out"):
        load_encoder_weights(tiny_model(), "imagenet")
    assert connections == [through_a_proxy.getsockname()]  # and is not asked again
    assert socket.getdefaulttimeout() is None


def test_a_damaged_download_names_the_file(through_a_proxy: socket.socket, tmp_path: Path) -> None:
    cached = tmp_path / "hub" / "checkpoints" / "mobilenet_v3_small-047dcff4.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"half a file")
    with pytest.raises(WeightsError, match=r"mobilenet_v3_small-047dcff4\.pth if it is there"):
        load_encoder_weights(tiny_model(), "imagenet")
