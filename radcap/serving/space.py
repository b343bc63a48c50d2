"""An exported folder's weights as a Space of Hugging Face: the page of `radcap.demo` for everybody.

app.py  requirements.txt  README.md     what a Space with the Gradio SDK is made of
weights/                                those of the export
radcap/  LICENSE  NOTICE                radcap itself, as it made them
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from huggingface_hub import SpaceCardData

import radcap
from radcap.host.requirements import requirements
from radcap.serving.card import RunFacts, about
from radcap.serving.pretrained import Pretrained

SPACE = "space"
_WEIGHTS = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
_PACKAGE = Path(radcap.__file__).parent
_EXTRAS = ("demo", "dicom")
# Its torch is built without CUDA, which a Space on CPUs has no use for: gigabytes less.
_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


def write_space(pretrained: Pretrained, facts: RunFacts, exported: Path, name: str) -> None:
    """Write the folder `space` into an export.

    Args:
        pretrained: what was exported.
        facts: of its run.
        exported: the folder that holds the weights already.
        name: what the Space is called.
    """
    folder = exported / SPACE
    _copy_package(folder / "radcap")
    for file in ("LICENSE", "NOTICE"):
        (folder / file).write_text(_legal_text(file), encoding="utf-8")
    (folder / "weights").mkdir()
    for file in _WEIGHTS:
        shutil.copy(exported / file, folder / "weights")
    shutil.copyfile(_PACKAGE / "assets" / "space_app.py", folder / "app.py")
    (folder / "requirements.txt").write_text("\n".join(_requirements()) + "\n", encoding="utf-8")
    text = "\n".join(_readme(pretrained, facts, name)).rstrip() + "\n"
    (folder / "README.md").write_text(text, encoding="utf-8")


def _copy_package(target: Path) -> None:
    """What belongs to radcap, and nothing else that lies there: it is going to be published."""
    for file in _PACKAGE.rglob("*"):
        inside = file.relative_to(_PACKAGE)
        is_hidden = any(part.startswith((".", "__pycache__")) for part in inside.parts)
        is_ours = file.suffix == ".py" or file.name == "py.typed" or inside.parts[0] == "assets"
        if is_ours and not is_hidden and file.is_file():
            (target / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target / inside)


def _legal_text(file: str) -> str:
    """Of a checkout, which need not be installed; else of the installed package."""
    if (_PACKAGE.parent / "pyproject.toml").is_file():
        return (_PACKAGE.parent / file).read_text(encoding="utf-8")
    text = metadata.distribution("radcap").read_text(f"licenses/{file}")
    assert text is not None, file
    return text


def _requirements() -> Iterator[str]:
    """Those of radcap and of the page, without radcap: it lies beside app.py."""
    needed, extras = requirements()
    yield f"--extra-index-url {_TORCH_INDEX}"
    for entry in [*needed, *(one for name in _EXTRAS for one in extras[name])]:
        yield f"{entry.name}{entry.specifier}"


def _readme(pretrained: Pretrained, facts: RunFacts, name: str) -> Iterator[str]:
    _, extras = requirements()
    (gradio,) = extras["demo"]
    (pinned,) = gradio.specifier
    header = SpaceCardData(
        title=name.rpartition("/")[2],
        emoji="🩻",
        colorFrom="gray",
        colorTo="yellow",
        sdk="gradio",
        sdk_version=pinned.version,
        python_version="3.11",
        app_file="app.py",
        pinned=False,
        license="mit",
        short_description="Radiology captions. Not for diagnosis.",
        tags=["radiology", "image-captioning", "not-for-diagnosis"],
    )
    yield f"---\n{header.to_yaml()}\n---\n"
    yield from about(pretrained, facts, name)
    yield "\n## This Space\n"
    yield _SPACE


_SPACE = """\
A page that captions the picture dropped on it. `app.py` starts it with the weights in `weights/`;
radcap itself, the code that trained them, lies in `radcap/` and is not installed. On your machine:

```bash
pip install -r requirements.txt
python app.py
```

Pictures are deleted as soon as they are read. Whoever sends one to a Space sends it to a machine of
somebody else: no picture of a patient should go there. The code is under the MIT licence; what may
be done with the weights depends on the data that they were trained on.
"""
