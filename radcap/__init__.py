"""radcap: train, score and serve a radiology image captioner.

Importing the package opens no device, starts no thread and imports no torch: the public classes
are loaded when first asked for, so that every command answers `--help` at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from radcap.model.captioner import ImageCaptioningModel
    from radcap.model.graph import GraphPropagationLayer
    from radcap.serving.captioner import Captioner

__version__ = "0.1.0"
__all__ = ["Captioner", "GraphPropagationLayer", "ImageCaptioningModel", "__version__"]

_HOMES = {
    "Captioner": "radcap.serving.captioner",
    "ImageCaptioningModel": "radcap.model.captioner",
    "GraphPropagationLayer": "radcap.model.graph",
}


def __getattr__(name: str) -> object:
    """Import a public class at its first use (PEP 562)."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'radcap' has no attribute {name!r}")
