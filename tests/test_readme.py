"""README.md: every command line is run, every message and option in it is the code's own."""

from __future__ import annotations

import ast
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import ROOT, environment
from programs import server_for
from readme_recipes import RECIPES, Covered, Extra, Run
from waiting import PATIENCE_S

README = (ROOT / "README.md").read_text()


def blocks() -> list[list[str]]:
    """The command lines of each block of bash, continued lines joined, comments left out."""
    found = []
    for block in re.findall(r"^```bash\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL):
        lines = re.sub(r"\s*\\\n\s*", " ", block).splitlines()
        found.append([line for text in lines if (line := re.sub(r"\s+#.*", "", text).strip())])
    return found


def test_every_command_line_has_a_recipe_and_every_recipe_a_line() -> None:
    lines = [line for block in blocks() for line in block]
    assert len(lines) > 20
    assert set(lines) == set(RECIPES)


@pytest.mark.parametrize("recipe", [r for r in RECIPES.values() if isinstance(r, Covered)], ids=str)
def test_what_is_covered_elsewhere_is(recipe: Covered) -> None:
    file, _, name = recipe.test.partition("::")
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), flags=re.MULTILINE)


def test_the_environment_is_named_before_it_is_used() -> None:
    activated = README.index("\nsource .venv/bin/activate\n")
    assert activated < min(README.index("python -m "), README.index("python scripts/"))


# Shown with their output, and quick.
QUICK = ("python -m radcap.train trainer.max_stepz=5", "scripts/tpu_vm.sh create --zone ")


def shown() -> list[tuple[str, str]]:
    """(command line, what the README says it prints) of each `$ ...` in a block of text."""
    blocks_of_text = re.findall(r"^```text\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    found = []
    for block in blocks_of_text:
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, output = part.partition("\n")
            found.append((line, output))
    return found


@pytest.mark.parametrize(("line", "output"), [s for s in shown() if s[0].startswith(QUICK)])
def test_what_is_shown_is_what_is_printed(line: str, output: str, tmp_path: Path) -> None:
    words = f"{sys.executable}{line.removeprefix('python')}"
    if not line.startswith("python "):
        words = f"{ROOT}/{line}"
    done = subprocess.run(
        ["bash", "-c", words],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.stdout + done.stderr == output


def test_commands_in_the_text_exist() -> None:
    commands = re.findall(r"`(?:bash|python(?: -m)?) ([\w./]+)[^`]*`", README)
    shown_first = (
        re.match(r"(?:python(?: -m)? )?((?:scripts/|radcap\.)\S+)", s[0]) for s in shown()
    )
    commands += [found[1] for found in shown_first if found]
    assert len(commands) > 10
    for command in commands:
        module = ROOT / f"{command.replace('.', '/')}.py"
        package = ROOT / command / "__main__.py"
        assert (ROOT / command).is_file() or module.is_file() or package.is_file(), command


def test_the_extras_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {recipe.name for recipe in RECIPES.values() if isinstance(recipe, Extra)}
    assert named <= set(extras["optional-dependencies"])
    assert set(re.findall(r"radcap\[(\w+)\]", README)) <= set(extras["optional-dependencies"])


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks(), ids=lambda block: block[0])
def test_the_lines_of_a_block_run_one_after_the_other(
    block: list[str], tmp_path: Path, cache: Path
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    served = server_for(["-m", "radcap.train"], environment(cache))
    (tools / "python").symlink_to(served.python() if served else sys.executable)
    work = tmp_path / "work"
    work.mkdir()
    (work / "scripts").symlink_to(ROOT / "scripts")
    variables = environment(cache)
    variables["PATH"] = f"{tools}:{variables['PATH']}"
    for line in block:
        recipe = RECIPES.get(line)
        if not isinstance(recipe, Run):
            continue
        if recipe.prepare is not None and not (work / "my_data").exists():
            recipe.prepare(work)
        done = subprocess.run(
            ["bash", "-c", f"{line} {recipe.words}"],
            cwd=work,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr


def test_the_two_scripts(tmp_path: Path) -> None:
    """Both install once and hand over, further words included."""
    (tmp_path / ".venv/bin").mkdir(parents=True)
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    stub = '#!/usr/bin/env bash\necho "$(basename "$0") $*" >> asked\n'
    for name in ("python", "uv"):
        (tmp_path / ".venv/bin" / name).write_text(stub)
        (tmp_path / ".venv/bin" / name).chmod(0o755)
    for script, words in (("quickstart.sh", "seed=1"), ("test.sh", "-k x"), ("test.sh", "--all")):
        subprocess.run(
            f"bash scripts/{script} {words}",
            shell=True,
            cwd=tmp_path,
            check=True,
            timeout=PATIENCE_S,
        )
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [line for line in asked if "install" not in line] == [
        "python -m radcap.train seed=1",
        "python -m pytest -n auto --dist worksteal -m not slow -k x",
        "python -m pytest -n auto --dist worksteal",
    ]
    installed = [line.split()[-1] for line in asked if line.startswith("uv pip install")]
    assert installed == [".", ".[dev]"]


def test_the_table_of_options_is_the_schemas() -> None:
    script = runpy.run_path(str(ROOT / "scripts/option_table.py"))
    assert script["with_table"](README) == README, "run python scripts/option_table.py"


def test_the_messages_of_the_troubleshooting_are_the_codes() -> None:
    source = "\n".join(strings())
    section = README.partition("## Troubleshooting")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert len(rows) > 12
    for row in rows:
        for message in re.findall(r"`([^`]+)`", row):
            wanted = re.sub(r"\(HTTP \d+\)", "(HTTP {status})", message)
            assert wanted in source, message


def strings() -> Iterator[str]:
    """Every string of the package; those with values in them as they are written."""
    for path in sorted((ROOT / "radcap").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(
                    part.value
                    if isinstance(part, ast.Constant)
                    else "{" + ast.unparse(part.value) + "}"
                    for part in node.values
                )


def test_the_links_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.*)$", README, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_every_experiment_is_in_the_table_and_has_its_header() -> None:
    for file in sorted((ROOT / "configs/experiment").glob("*.yaml")):
        assert f"| `{file.stem}` |" in README
        header = file.read_text().split("defaults:")[0]
        assert header.startswith("# @package _global_\n")
        for part in (f"+experiment={file.stem}", "# Expect:", "# Costs:"):
            assert part in header, f"{file.name}: {part}"
