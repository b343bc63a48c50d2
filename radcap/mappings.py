"""Files that hold a mapping of names to values, JSON or YAML, perhaps damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml


def read_mapping(file: Path) -> dict[str, Any] | None:
    """What a file holds; None where that is no mapping. YAML by its suffix, else JSON.

    Raises:
        OSError: it cannot be read.
    """
    try:
        text = file.read_text(encoding="utf-8")
        content = yaml.safe_load(text) if file.suffix == ".yaml" else json.loads(text)
    except (ValueError, RecursionError, yaml.YAMLError):
        return None
    return content if isinstance(content, dict) else None
