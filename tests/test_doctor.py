"""`python -m radcap.doctor` in a process of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import ROOT, run_module
from hub.stand_in import HUB_ID, StandInHub, point_client_at, serving

from radcap.config.compose import compose, to_yaml
from radcap.data.hub.download import Hub
from radcap.data.hub.local_copy import copy_to_folder
from radcap.data.phantom.dataset import write_phantom
from radcap.diagnosis.check import Check
from radcap.doctor import lines

SECRET = "hf_thisIsASecret0123456789"


def doctor(cwd: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run_module("radcap.doctor", cwd, cwd / "cache", *words, **variables)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandInHub]:
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom(folder, train_rows=320, val_rows=16, row_group_size=20, processes=1)
    with serving(folder) as stand_in:
        yield stand_in


def by_name(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in json.loads(done.stdout)}


def test_a_healthy_machine_passes_and_nothing_is_left_behind(tmp_path: Path) -> None:
    done = doctor(tmp_path, "runtime=cpu", HOME=str(tmp_path), RADCAP_CACHE="", XDG_CACHE_HOME="")
    assert done.returncode == 0, done.stdout
    assert list(tmp_path.iterdir()) == []
    assert ": 0 failed" in done.stdout.splitlines()[-1]
    assert not [line for line in done.stdout.splitlines() if len(line) > 100]
    assert "8,600 pictures are drawn at the first run" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["torch", "pyarrow", "fsspec", "tqdm"])
def test_a_missing_package_is_a_finding_like_others(tmp_path: Path, package: str) -> None:
    # Found before the real one, and as good as none.
    (tmp_path / f"blocked/{package}").mkdir(parents=True)
    (tmp_path / f"blocked/{package}/__init__.py").write_text(
        f"raise ModuleNotFoundError(\"No module named '{package}'\", name='{package}')"
    )
    path = f"{tmp_path / 'blocked'}:{ROOT}"
    words = ("runtime=cpu", "run.mirror=mirror", "--json")
    done = doctor(tmp_path, *words, PYTHONPATH=path)
    found = by_name(done)
    assert {"python", "packages", "cores", "clock"} <= set(found), done.stderr
    failed = [check["found"] for check in found.values() if check["status"] == "fail"]
    if package == "tqdm":  # nothing that the doctor looks at needs it
        return
    assert done.returncode == 1
    assert [text for text in failed if f"No module named '{package}'" in text]


@pytest.mark.slow
def test_a_gated_data_set_without_and_with_a_token(hub: StandInHub, tmp_path: Path) -> None:
    words = ("+experiment=epoch1", "data.workers=1", "--json")
    variables = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "http_proxy": ""}
    variables["HF_HOME"] = str(tmp_path / "home")
    hub.fault = lambda number, method, path: 401
    try:
        refused = doctor(tmp_path, *words, **variables)
    finally:
        hub.fault = lambda number, method, path: None
    assert refused.returncode == 1
    found = by_name(refused)
    assert found["token"]["status"] == "warn"
    assert found["data"]["status"] == "fail" and "accept its terms" in found["data"]["found"]

    allowed = doctor(tmp_path, *words, HF_TOKEN=SECRET, **variables)
    assert allowed.returncode == 0, allowed.stdout
    found = by_name(allowed)
    assert hub.token == f"Bearer {SECRET}"  # it was used
    assert found["token"] == {
        "name": "token", "status": "ok", "found": "given by HF_TOKEN", "fix": ""
    }  # fmt: skip
    assert "320 training, 16 val" in found["data"]["found"]
    # 16 row groups cannot serve 64 lanes.
    assert found["row groups"]["status"] == "warn"
    assert found["row groups"]["fix"].startswith("data.lanes=16")
    for text in (allowed.stdout, allowed.stderr):
        assert SECRET not in text


def test_a_whole_copy_needs_neither_network_nor_token(
    hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_client_at(hub.endpoint, monkeypatch)
    asked = {"config": "alignment", "splits": ("train", "val"), "revision": None}
    commit = copy_to_folder(Hub(HUB_ID), tmp_path / "copy", **asked)  # type: ignore[arg-type]
    words = ("+experiment=epoch1", "data.local_copy=copy", "model.encoder_weights=none", "--json")
    done = doctor(tmp_path, *words, HF_TOKEN="", HF_HOME=str(tmp_path))
    found = by_name(done)
    assert done.returncode == 0, done.stdout
    assert found["data"]["found"].startswith("raidium/RadImageNet-VQA: 320 training, 16 val")
    assert "token" not in found

    # A run that began with another commit needs that one, which is not here.
    run = tmp_path / "runs/epoch1"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(to_yaml(compose(words[:-1])))
    for revision, status in ((commit, "ok"), ("0" * 40, "fail")):
        (run / "versions.json").write_text(json.dumps({"data_revision": revision}))
        assert by_name(doctor(tmp_path, *words, HF_TOKEN=""))["data"]["status"] == status


def test_a_wrong_option_is_refused(tmp_path: Path) -> None:
    done = doctor(tmp_path, "--jason")
    assert (
        done.returncode == 2
        and done.stderr == "radcap: --jason: no such option; --help lists them\n"
    )


def test_a_long_check_is_wrapped() -> None:
    told = lines(Check("data", "fail", "word " * 40, "do " * 60))
    assert max(map(len, told)) <= 100
    assert told[0].startswith("fail  data            word")
    assert " ".join(told).count("word") == 40 and " ".join(told).count("do") == 60
