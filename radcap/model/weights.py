"""Where a model's weights come from: random, ImageNet's, or a file. Never random in silence."""

from __future__ import annotations

import hashlib
import http.client
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torchvision.models import MobileNet_V3_Small_Weights

from radcap.errors import RadcapError, one_line
from radcap.files.reading import LFS_POINTER, is_lfs_pointer_file
from radcap.files.tensors import UNREADABLE, read_tensors
from radcap.model.captioner import ImageCaptioningModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_DOWNLOAD_TIMEOUT_S = 10.0  # for a connection, and for each answer on it
_NAMES_IN_A_MESSAGE = 3


class WeightsError(RadcapError):
    """A file that does not hold the weights asked for."""


class WeightsUnavailable(WeightsError):
    """A file or download that is out of reach."""


def init_weights(model: ImageCaptioningModel) -> None:
    """Draw all parameters anew from torch's random generator, as the constructor does.

    Every layer takes torch's own start values, the encoder's convolutions torchvision's, the
    position vectors a standard normal; running statistics go back to 0 and 1.
    """
    model.apply(_reset)


def load_encoder_weights(model: ImageCaptioningModel, source: str) -> None:
    """Give the image encoder its start weights.

    Args:
        model: changed in place.
        source: `imagenet`, downloaded once to torch.hub's cache; `none`, which draws random
            ones; or the path of a torchvision MobileNetV3-Small state dict or of a captioner's
            (.pt, .pth, .bin or .safetensors).

    Raises:
        WeightsUnavailable: the download or file is out of reach.
        WeightsError: the file holds something else.
    """
    if source == "none":
        model.encoder.apply(_reset)
        return
    state = _download_imagenet() if source == "imagenet" else read_weights(source)
    # Of a captioner's entries those of its encoder; of torchvision's those before the classifier.
    prefix = "encoder." if any(name.startswith("encoder.") for name in state) else ""
    features = {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(f"{prefix}features.")
    }
    load_strictly(model.encoder, features, f"encoder weights {source}")


def load_captioner_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a captioner's state dict and check it against the model of the sizes it shows.

    Args:
        path: such as the model card's pytorch_model.bin, or a .safetensors file.

    Returns:
        name -> tensor on the CPU, fit for
        `ImageCaptioningModel(**captioner_sizes(state), num_heads=...).load_state_dict(state)`.

    Raises:
        WeightsUnavailable: no such file.
        WeightsError: not a captioner's state dict; the message names what is missing.
    """
    state = read_weights(path)
    check_captioner(state, str(path))
    return state


def check_captioner(state: Mapping[str, Tensor], origin: str) -> None:
    """Hold a state dict against the captioner of the sizes it shows.

    Raises:
        WeightsError: not a captioner's; the message begins with `origin`.
    """
    try:
        sizes = captioner_sizes(state)
    except KeyError as error:
        raise WeightsError(f"{origin}: not a captioner's weights, has no {error.args[0]}") from None
    except ValueError as error:
        raise WeightsError(f"{origin}: not a captioner's weights, {error}") from None
    with torch.device("meta"):
        model = ImageCaptioningModel(**sizes, num_heads=1)  # no shape depends on the heads
    _check_names_and_shapes(state, model.state_dict(), origin)


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of a state dict on the CPU, names, dtypes, shapes and values, as 64 hex digits.

    The same for every file that holds these weights, of whatever format.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def captioner_sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
    """`vocab_size`, `embed_dim` and `num_layers` of a captioner's state dict.

    The number of heads leaves no trace in the weights.

    Raises:
        KeyError: an entry is missing.
        ValueError: the embedding is no matrix.
    """
    shape = state["embedding.weight"].shape
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"embedding.weight {list(shape)} is no matrix of word pieces and width")
    vocab_size, embed_dim = shape
    first = "decoder.layers.0.norm1.weight"
    if first not in state:
        raise KeyError(first)
    layers = {name.split(".")[2] for name in state if name.startswith("decoder.layers.")}
    return {"vocab_size": vocab_size, "embed_dim": embed_dim, "num_layers": len(layers)}


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """`module.load_state_dict(state)`, or a WeightsError of one line that begins with `origin`."""
    _check_names_and_shapes(state, module.state_dict(), origin)
    module.load_state_dict(state)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict, name -> tensor on the CPU, without running any code from the file.

    Raises:
        WeightsUnavailable: no such file, or not readable.
        WeightsError: not a state dict.
    """
    path = Path(path)
    try:
        state = read_tensors(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise WeightsUnavailable(f"{path}: cannot read the weights ({reason})") from None
    except UNREADABLE:
        what = (
            LFS_POINTER
            if is_lfs_pointer_file(path)
            else "neither a safe PyTorch file nor safetensors"
        )
        raise WeightsError(f"{path}: {what}") from None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(entry, Tensor) for name, entry in state.items()
    ):
        raise WeightsError(f"{path}: not a state dict (name -> tensor)")
    return state


def _reset(module: nn.Module) -> None:
    """For `nn.Module.apply`: children first, so that a parent may replace what a child drew."""
    reset_parameters = getattr(module, "reset_parameters", None)
    if reset_parameters is not None:
        reset_parameters()


def _download_imagenet() -> Mapping[str, Tensor]:
    """torchvision's ImageNet weights, from torch.hub's cache or its server."""
    weights = MobileNet_V3_Small_Weights.IMAGENET1K_V1
    remedy = (
        "set model.encoder_weights to the path of a downloaded copy, or to none for random weights"
    )
    try:
        with _socket_timeout(_DOWNLOAD_TIMEOUT_S):
            return weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, http.client.HTTPException) as error:
        reason = one_line(getattr(error, "reason", error), names_type=False)
        raise WeightsUnavailable(f"cannot fetch {weights.url} ({reason}): {remedy}") from None
    except UNREADABLE:  # a wrong checksum (RuntimeError), or a damaged file in the cache
        cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        raise WeightsError(
            f"{weights.url} arrived damaged: delete {cached} if it is there and try again, "
            f"or {remedy}"
        ) from None


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """torch.hub sets no time limit of its own: a silent server would hold it for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _check_names_and_shapes(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], origin: str
) -> None:
    """Raise a WeightsError that names the first missing, unknown and misshapen entries.

    And those that are sparse, or whole numbers instead of fractions.
    """
    misshapen = [
        f"{name} {list(state[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    of_another_kind = [
        f"{name} {entry.dtype} {entry.layout}".replace("torch.", "")
        for name, entry in state.items()
        if name in expected and not _is_alike(entry, expected[name])
    ]
    faults = {
        "missing": [name for name in expected if name not in state],
        "unknown": [name for name in state if name not in expected],
        "wrong shape": misshapen,
        "wrong kind of numbers": of_another_kind,
    }
    found = [f"{kind}: {_abridge(names)}" for kind, names in faults.items() if names]
    if found:
        raise WeightsError(f"{origin} does not fit the model: {'; '.join(found)}")


def _is_alike(entry: Tensor, expected: Tensor) -> bool:
    """Whether an entry may be copied into a parameter without losing what it means."""
    is_dense = entry.layout == torch.strided
    return is_dense and entry.is_floating_point() == expected.is_floating_point()


def _abridge(names: list[str]) -> str:
    """The first few of many names."""
    shown = ", ".join(names[:_NAMES_IN_A_MESSAGE])
    more = len(names) - _NAMES_IN_A_MESSAGE
    return f"{shown} and {more} more" if more > 0 else shown
