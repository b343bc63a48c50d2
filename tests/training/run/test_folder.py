"""The run folder: one process, one set of bound options, nothing deleted."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from waiting import PATIENCE_S

from radcap.config.compose import compose
from radcap.config.options import options_where
from radcap.config.schema import Config
from radcap.errors import ConfigError, RadcapError
from radcap.training.run.folder import RunFolder


def config_for(folder: Path, *words: str) -> Config:
    return compose([f"run.dir={folder}", *words])


def opened(folder: Path, *words: str) -> RunFolder:
    """A run folder whose run has begun."""
    run = RunFolder(config_for(folder, *words))
    run.accept()
    return run


def test_bound_options_are_those_that_change_the_curve() -> None:
    bound = set(options_where(Config, "is_free", False))
    assert {
        "seed",
        "model.embed_dim",
        "optimizer.lr",
        "schedule.warmup",
        "data.path",
        "data.hub_id",
        "data.revision",
        "data.batch_size",
        "data.lanes",
        "data.window_gb",
        "data.phantom.seed",
    } <= bound
    assert not bound & {
        "data.workers",
        "trainer.max_steps",
        "trainer.save_every",
        "trainer.eval_every",
        "runtime.devices",
        "logger.progress",
        "run.name",
    }


def test_a_new_folder_holds_config_and_versions(tmp_path: Path) -> None:
    folder = opened(tmp_path / "run")
    assert not folder.resumed
    assert "batch_size" in folder.config_file.read_text()
    assert json.loads((folder.path / "versions.json").read_text())["torch"] == "2.9.0"
    folder.close()


def test_a_changed_bound_option_is_refused_by_name(tmp_path: Path) -> None:
    opened(tmp_path / "run").close()
    with pytest.raises(ConfigError, match=r"optimizer\.lr \(0\.004 -> 0\.5\)"):
        RunFolder(config_for(tmp_path / "run", "optimizer.lr=0.5"))
    again = RunFolder(config_for(tmp_path / "run", "data.workers=0", "trainer.max_steps=9000"))
    assert again.resumed
    again.close()


def test_two_processes_are_kept_apart_and_a_kill_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import sys, time; from radcap.config.compose import compose; "
        "from radcap.training.run.folder import RunFolder; "
        f"f = RunFolder(compose(['run.dir={tmp_path / 'run'}'])); "
        f"print('open', flush=True); time.sleep({PATIENCE_S})"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "open\n"
    with pytest.raises(RadcapError, match=f"in use by process {other.pid}"):
        RunFolder(config_for(tmp_path / "run"))
    with pytest.raises(RadcapError, match=f"in use by process {other.pid}"):
        RunFolder(config_for(tmp_path / "run", "run.fresh=true"))
    other.kill()
    other.wait()
    RunFolder(config_for(tmp_path / "run")).close()


def test_a_loader_process_that_outlives_a_kill_holds_no_lock(tmp_path: Path) -> None:
    folder = opened(tmp_path / "run")
    fork = multiprocessing.get_context("fork")
    alive = fork.Event()
    child = fork.Process(target=lambda: (alive.set(), time.sleep(PATIENCE_S)))
    child.start()
    try:
        assert alive.wait(PATIENCE_S)
        folder.close()
        RunFolder(config_for(tmp_path / "run")).close()
    finally:
        child.kill()
        child.join()


def test_fresh_moves_aside_and_deletes_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        folder = opened(tmp_path / "run", "run.fresh=true")
        (folder.path / "metrics.jsonl").write_text("mine")
        folder.close()
    folder = RunFolder(config_for(tmp_path / "run", "run.fresh=true", "optimizer.lr=0.5"))
    assert not folder.resumed
    assert (tmp_path / "run" / "metrics.jsonl").exists()  # not before the run is sure to begin
    folder.accept()
    with pytest.raises(RadcapError, match="in use"):
        RunFolder(config_for(tmp_path / "run"))
    folder.close()
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["run", "run.old-1", "run.old-2"]
    assert (tmp_path / "run.old-2" / "metrics.jsonl").read_text() == "mine"


def test_a_refused_command_leaves_no_trace(tmp_path: Path) -> None:
    RunFolder(config_for(tmp_path / "a")).close()
    assert list(tmp_path.iterdir()) == []
    opened(tmp_path / "a").close()
    RunFolder(config_for(tmp_path / "a", "run.fresh=true")).close()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    resumed = RunFolder(config_for(tmp_path / "a"))
    assert resumed.resumed
    resumed.close()


def test_a_start_that_fails_takes_the_folders_above_away_too(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    folder = RunFolder(config_for(tmp_path / "here" / "new" / "run"))
    (tmp_path / "here" / "new" / "somebody's").touch()
    folder.close()
    assert [path.name for path in (tmp_path / "here").rglob("*")] == ["new", "somebody's"]
    RunFolder(config_for(tmp_path / "other" / "new" / "run")).close()
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced", "a file"])
def test_a_folder_that_has_gone_is_named_and_not_made_anew(tmp_path: Path, how: str) -> None:
    path = tmp_path / "run"
    folder = opened(path)
    folder.check()
    if how == "deleted":
        shutil.rmtree(path)
    else:
        path.rename(tmp_path / "elsewhere")
    if how == "replaced":
        shutil.copytree(tmp_path / "elsewhere", path)
    elif how == "a file":
        path.touch()
    before = sorted(tmp_path.rglob("*"))
    for use in (folder.check, lambda: folder.write_summary({"finished": True})):
        with pytest.raises(RadcapError, match="was deleted, moved or replaced") as caught:
            use()
        assert str(path) in str(caught.value) and len(str(caught.value).splitlines()) == 1
    folder.close()
    assert sorted(tmp_path.rglob("*")) == before


def test_fresh_moves_a_link_and_leaves_what_it_leads_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "scratch")
    opened(tmp_path / "run").close()
    opened(tmp_path / "run", "run.fresh=true").close()
    assert (tmp_path / "run.old-1").is_symlink()
    assert (tmp_path / "scratch" / "config.yaml").exists()
    assert (tmp_path / "run" / "config.yaml").exists()
    monkeypatch.chdir(tmp_path / "run")
    with pytest.raises(ConfigError, match="cannot be moved aside"):
        RunFolder(config_for(Path(), "run.fresh=true"))


def test_of_several_processes_the_others_read_and_write_nothing(tmp_path: Path) -> None:
    first = opened(tmp_path / "run")
    other = RunFolder(config_for(tmp_path / "run"), is_ours=False)
    assert other.resumed and not other.finished
    other.accept()
    other.write_summary({"finished": True})
    other.close()
    assert first.summary() == {}
    assert not RunFolder(config_for(tmp_path / "run", "run.fresh=true"), is_ours=False).resumed
    with pytest.raises(ConfigError, match="other settings"):
        RunFolder(config_for(tmp_path / "run", "optimizer.lr=0.5"), is_ours=False)
    first.close()


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="holds no run"):
        RunFolder(config_for(tmp_path))
    with pytest.raises(ConfigError, match="holds no run"):
        RunFolder(config_for(tmp_path, "run.fresh=true"))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_path_that_cannot_be_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RadcapError, match="file"):
        RunFolder(config_for(tmp_path / "file" / "run"))


def test_finished_depends_on_the_length_asked_for(tmp_path: Path) -> None:
    folder = opened(tmp_path / "run", "trainer.max_steps=5")
    folder.write_summary({"finished": True})
    folder.close()
    same = RunFolder(config_for(tmp_path / "run", "trainer.max_steps=5"))
    assert same.finished
    same.close()
    longer = RunFolder(config_for(tmp_path / "run", "trainer.max_steps=6"))
    assert not longer.finished
    longer.close()  # refused later, for its data say: nothing has changed
    same = RunFolder(config_for(tmp_path / "run", "trainer.max_steps=5"))
    assert same.finished
    same.close()
    opened(tmp_path / "run", "trainer.max_steps=6").close()  # begun, then killed
    killed = RunFolder(config_for(tmp_path / "run", "trainer.max_steps=6"))
    assert not killed.finished
    killed.close()


def test_the_data_revision_is_pinned(tmp_path: Path) -> None:
    folder = RunFolder(config_for(tmp_path / "run"))
    folder.pin_data_revision("abc")
    folder.accept()
    folder.close()
    folder = RunFolder(config_for(tmp_path / "run"))
    folder.pin_data_revision("abc")
    with pytest.raises(ConfigError, match=r"abc.*def"):
        folder.pin_data_revision("def")
    folder.close()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", "a: [1"),
        ("config.yaml", "unknown: 1"),
        ("config.yaml", "\udcff\udcfe"),
        ("summary.json", "{"),
        ("summary.json", "[]"),
        ("versions.json", ""),
        ("versions.json", "[]"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: str) -> None:
    opened(tmp_path / "run").close()
    (tmp_path / "run" / name).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(RadcapError, match=name):
        RunFolder(config_for(tmp_path / "run"))
