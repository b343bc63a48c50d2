"""radcap: train, score and serve a radiology image captioner.

Importing the package opens no device, starts no thread and imports no torch: the public classes
are loaded when first asked for, so that every command answers `--help` at once.
"""

from __future__ import annotations

import os
import sys
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


def _leave_current_folder() -> None:
    """Let no file of the folder that a command is given in take the place of a package.

    `python -m` puts that folder first on the path, so that a `datasets.py` or a folder `datasets`
    there would be imported for the package. Where radcap itself is imported from it, as in a
    checkout, the folder goes last; elsewhere it goes, also for the processes that this one starts.
    Whoever imports radcap into a program of their own keeps their path.
    """
    if sys.argv[:1] != ["-m"] or sys.flags.safe_path:
        return  # sys.argv begins so while `python -m` looks for its module
    try:
        here = os.getcwd()  # noqa: PTH109 pathlib takes time
    except FileNotFoundError:
        return
    if sys.path[:1] != [here]:
        return
    del sys.path[0]
    package = os.path.join(here, "radcap", "__init__.py")  # noqa: PTH118
    if os.path.exists(package):  # noqa: PTH110
        sys.path.append(here)
    else:
        os.environ["PYTHONSAFEPATH"] = "1"


_leave_current_folder()


def __getattr__(name: str) -> object:
    """Import a public class at its first use (PEP 562)."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'radcap' has no attribute {name!r}")
