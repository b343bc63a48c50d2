"""`python -m radcap.preflight` in a process of its own: the real TPU compiler, no TPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import ROOT, run_module
from watched import watch

SMOKE = ("+experiment=smoke", "data.batch_size=64")


def preflight(cwd: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run_module("radcap.preflight", cwd, cwd / "cache", *words, **variables)


def figures(cwd: Path, name: str = "preflight.json") -> dict[str, Any]:
    return json.loads((cwd / name).read_text())


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("preflight.topology=v9-8", "v3-8"),
        ("preflight.topologie=v3-8", "preflight.topology"),
        ("preflight.graph=training", "train, eval, generate"),
        ("preflight.batch_sizes=[0]", "preflight.batch_sizes"),
        ("data.batch_size=12", "8 or 16"),
        ("preflight.batch_sizes=[64,12]", "preflight.batch_sizes=12"),
        ("preflight.batch_sizes=[64,16000000000]", "preflight.batch_sizes"),
        ("preflight.out=/dev/null", "/dev/null"),
        ("preflight.keep=/dev/null", "preflight.keep"),
        ("runtime.devices=4", "runtime.devices"),
        ("preflight.compare=nowhere.json", "nowhere.json"),
        ("preflight.compare=/dev/zero", "neither a file nor a folder"),
        ("preflight.out=nowhere/x.json", "nowhere/x.json"),
    ],
)
def test_wrong_arguments_are_refused_at_once(tmp_path: Path, word: str, said: str) -> None:
    watched = watch(tmp_path, "-m", "radcap.preflight", *SMOKE, word)
    done = watched.done
    assert done.returncode == 2
    assert not watched.heavy
    assert said in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not list(tmp_path.iterdir())


def test_without_its_extra_the_install_command_is_named(tmp_path: Path) -> None:
    # A finder that knows no jax stands in for an environment without it.
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name == 'jax' else real(name, *a)\n"
    )
    done = preflight(tmp_path, *SMOKE, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert done.returncode == 1
    assert done.stderr == (
        "radcap: preflight needs jax, not installed here: pip install 'radcap[preflight]'\n"
    )


@pytest.mark.slow
def test_epoch1_fits_v3_8_without_a_gather(tmp_path: Path) -> None:
    done = preflight(tmp_path, "+experiment=epoch1", "preflight.topology=v3-8")
    assert done.returncode == 0, done.stderr
    found = figures(tmp_path)
    assert found["fits"] is True and found["batch_size"] == 336
    assert found["memory"]["margin"] > 8 * 2**30
    # The model card's own step, compiled for one core at batch 32: `scripts/bench.py tpu-step`.
    assert 7.0e9 < found["flops_per_image"] < 229.594e9 / 32
    assert found["bytes_per_image"] < 0.5 * 9.834e9 / 32
    assert found["collectives"]["all-gather"]["count"] == 0
    assert found["collectives"]["all-reduce"]["count"] <= 70
    assert 10 < found["floor_ms"] < 25 and found["floor_binds"] == "hbm"
    assert found["experiment"]["steps"] == 2250
    hours = 2250 * 336 / found["images_per_s"] / 3600
    assert found["experiment"]["core_hours"] == pytest.approx(8 * hours)
    assert found["host"]["decode_cores"] > 1
    (program,) = found["programs"].values()  # a single compilation
    assert len(program["largest_buffers"]) == len(program["costliest_operations"]) == 10
    # The optimizer's share of cycles, and the backward pass of the modules, bear their names.
    assert {"encoder.features", "decoder.layers", "optimizer", "fc_out"} <= set(
        program["cycles_by_module"]
    )
    assert program["cycles_by_module"]["step"] < 0.1 * program["estimated_cycles"]
    assert "FITS" in done.stdout and "no all-gather" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.slow
@pytest.mark.parametrize("topology", os.environ.get("RADCAP_TOPOLOGIES", "v6e-8").split(","))
def test_other_chips_compile_too(tmp_path: Path, topology: str) -> None:
    done = preflight(tmp_path, *SMOKE, f"preflight.topology={topology}")
    assert done.returncode == 0, done.stderr
    found = figures(tmp_path)
    assert found["fits"] and found["collectives"]["all-gather"]["count"] == 0


@pytest.mark.slow
def test_the_largest_batch_that_fits_is_found_and_a_change_is_shown(tmp_path: Path) -> None:
    sizes = "preflight.batch_sizes=[64,327680]"
    done = preflight(tmp_path, *SMOKE, sizes, "preflight.topology=v2-8", "preflight.graph=eval")
    assert done.returncode == 0, done.stderr
    found = figures(tmp_path)
    assert found["largest_batch_that_fits"] == found["batch_size"] == 64
    assert [row["fits"] for row in found["batches"]] == [True, False]

    words = ["preflight.topology=v2-8", "preflight.graph=eval", "data.batch_size=327680"]
    words += ["preflight.compare=preflight.json", "preflight.out=second.json"]
    done = preflight(tmp_path, *SMOKE, *words)
    assert done.returncode == 3, done.stderr
    assert "DOES NOT FIT" in done.stdout and "GiB too much" in done.stdout
    refused = figures(tmp_path, "second.json")
    assert refused["fits"] is False and refused["memory"]["needed"] > 8 * 2**30
    assert "change since" in done.stdout
    assert refused["largest_batch_that_fits"] is None


@pytest.mark.slow
def test_the_cards_own_step_costs_what_it_is_known_to(tmp_path: Path) -> None:
    """229.6 GFLOP and 9.84 GB for 32 images on one v3 core: the yardstick is the right one."""
    code = (
        "import sys; from pathlib import Path; from radcap.aot.jobs import *; "
        "from radcap.aot.chips import find_topology; folder = Path(sys.argv[2]); "
        "run_job([sys.argv[1], '32', str(folder)], LOWER_ENVIRONMENT, folder, 'recording'); "
        "(card,) = compile_all(find_topology('v3-8'), 32, 1, folder); "
        "print(card.figures['flops'], card.figures['bytes_accessed'])"
    )
    script = ROOT / "scripts" / "card_lower.py"
    done = subprocess.run(
        [sys.executable, "-c", code, str(script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    flops, bytes_ = map(float, done.stdout.split()[-2:])
    assert flops == pytest.approx(229.6e9, rel=1e-3)
    assert bytes_ == pytest.approx(9.84e9, rel=2e-3)
