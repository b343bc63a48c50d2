"""The house rules: which room may import which, and what importing costs."""

from __future__ import annotations

import ast
import hashlib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from command_line import run_interpreter, run_python

PACKAGE = Path(__file__).parent.parent / "radcap"
COMMANDS = {
    file.stem for file in PACKAGE.glob("*.py") if "sys.exit(run_command(" in file.read_text()
}

# What each room may import beside itself and radcap.errors, which imports nothing. The commands may
# import all of them, and no room a command.
ALLOWED = {
    "host": set(),
    "files": {"host"},
    "config": {"files", "host"},
    "optim": {"config"},
    "data": {"config", "files", "host"},
    "model": {"config", "files"},
    "forms": {"model"},
    "runtime": {"config", "host", "optim"},
    "scoring": {"data"},
    "inference": {"data", "model", "runtime"},
}
_GROUND = {"config", "files", "host"}
ALLOWED["training"] = _GROUND | {"data", "forms", "inference", "model", "optim", "runtime"}
ALLOWED["training"] |= {"scoring"}
ALLOWED["sweep"] = _GROUND | {"runtime", "scoring", "training"}
ALLOWED["aot"] = _GROUND | {"data", "forms", "model", "runtime", "training"}
ALLOWED["diagnosis"] = _GROUND | {"data", "runtime", "training"}
ALLOWED["serving"] = ALLOWED["training"] | {"training"}
ALLOWED["evaluation"] = ALLOWED["serving"] | {"serving"}
ALLOWED["demo_app"] = {"data", "files", "host", "serving"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def dotted(file: Path) -> str:
    """The name of a module."""
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imported(file: Path) -> set[str]:
    """Every module that a file imports, at its top or inside its functions."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_arrows_point_one_way(file: Path) -> None:
    room = file.relative_to(PACKAGE).parts[0]
    for name in imported(file):
        parts = name.split(".")
        if parts[0] == "torch_xla":
            assert file == PACKAGE / "runtime" / "xla.py" or room == "aot"
        if parts[0] in ("jax", "jaxlib"):
            assert file == PACKAGE / "aot" / "compile.py"
        if parts[0] != "radcap" or len(parts) < 2:
            continue
        if room in ALLOWED:
            assert parts[1] not in COMMANDS, f"{file} imports the command {name}"
            assert parts[1] not in ALLOWED.keys() - ALLOWED[room] - {room}, f"{file}: {name}"
        elif room == "errors.py":
            raise AssertionError(f"{file}, which everybody imports, imports {name}")


def test_the_rooms_are_those_of_the_package() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders == ALLOWED.keys()


def test_no_two_files_import_each_other() -> None:
    """Not in functions and not for types alone either: what a file uses is understood before it."""
    files = {dotted(file): file for file in MODULES}
    uses = {
        name: {one for one in imported(file) if one in files and one != name}
        for name, file in files.items()
        if file.name != "__init__.py"  # the package's own gives its public classes on demand
    }
    TopologicalSorter(uses).prepare()  # CycleError names the files


def output_of(code: str) -> str:
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_radcap_is_light() -> None:
    heavy = output_of(
        "import sys, radcap, radcap.config.compose, radcap.training.run.folder\n"
        "heavy = ('torch', 'datasets', 'transformers', 'tensorflow')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    assert heavy.strip() == "[]"


def test_the_trainer_loads_neither_tensorflow_nor_torch_xla() -> None:
    loaded = output_of(
        "import sys, radcap.training.loop\n"
        "print([m for m in ('tensorflow', 'torch_xla', 'jax') if m in sys.modules])"
    )
    assert loaded.strip() == "[]"


def test_importing_any_module_opens_no_device_and_starts_no_thread() -> None:
    """A loader's processes are forked before the device opens and before any thread begins."""
    names = sorted(
        dotted(file)
        for file in MODULES
        if file.name != "__main__.py" and "assets" not in file.parts
    )
    told = output_of(
        "import importlib, sys, threading\n"
        f"for name in {[n for n in names if n != 'radcap.runtime.xla' and '.aot.' not in n]}:\n"
        "    importlib.import_module(name)\n"
        "import torch\n"
        "print(torch.cuda.is_initialized(), 'torch_xla' in sys.modules, threading.active_count())"
    )
    assert told.split() == ["False", "False", "1"]


def test_the_public_classes_are_loaded_when_asked_for() -> None:
    out = output_of(
        "from radcap import GraphPropagationLayer, ImageCaptioningModel\n"
        "print(GraphPropagationLayer.__name__, ImageCaptioningModel.__name__)"
    )
    assert out.split() == ["GraphPropagationLayer", "ImageCaptioningModel"]
    with pytest.raises(AttributeError, match="nonsense"):
        import radcap

        radcap.nonsense  # noqa: B018


def test_the_vocabulary_is_bert_base_uncaseds() -> None:
    content = (PACKAGE / "assets" / "vocab.txt").read_bytes()
    assert hashlib.sha256(content).hexdigest() == (
        "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
    )


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_answers_help_at_once(command: str) -> None:
    done = run_interpreter("-X", "importtime", "-m", f"radcap.{command}", "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: python -m radcap.{command}")
    assert not [line for line in done.stderr.splitlines() if line.endswith("| torch")]
