"""The packages that radcap asks for, as pyproject.toml or the installed package says."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

_OF_DEVELOPERS = "dev"


def requirements() -> tuple[list[Requirement], dict[str, list[Requirement]]]:
    """What radcap asks for, and what each extra for users adds.

    Read from pyproject.toml in a checkout, whose installation may be older; else from the installed
    package.
    """
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    if project.is_file():
        table = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        needed = table["dependencies"]
        extras = table.get("optional-dependencies", {})
    else:
        needed, extras = _installed_requirements()
    return (
        [Requirement(text) for text in needed],
        {
            name: [Requirement(text) for text in texts]
            for name, texts in extras.items()
            if name != _OF_DEVELOPERS
        },
    )


def belongs_to(requirement: Requirement, extra: str) -> bool:
    """Whether a requirement is asked for with an extra and not without."""
    marker = requirement.marker
    if marker is None:
        return False
    return marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})


def _installed_requirements() -> tuple[list[str], dict[str, list[str]]]:
    texts = metadata.requires("radcap") or []
    names = metadata.metadata("radcap").get_all("Provides-Extra") or []
    needed = [text for text in texts if Requirement(text).marker is None]
    return needed, {
        name: [text for text in texts if belongs_to(Requirement(text), name)] for name in names
    }
