"""What a command says, and when it says nothing."""

from __future__ import annotations

import threading
import time

import pytest
from command_line import run_python

from radcap.console import heartbeat, progress


def test_a_long_block_gives_signs_of_life(capsys: pytest.CaptureFixture[str]) -> None:
    with heartbeat("compiling", every_s=0.05):
        time.sleep(0.4)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 3
    assert all(line.startswith("compiling: 0 s so far") for line in lines)
    time.sleep(0.1)
    assert capsys.readouterr().out == ""


def test_a_short_or_failing_block_leaves_nothing_behind(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(KeyError), heartbeat("compiling"):
        raise KeyError("fault")
    assert capsys.readouterr().out == ""
    assert not [t for t in threading.enumerate() if t.name == "radcap-heartbeat"]


def test_a_muted_process_says_nothing_but_its_error() -> None:
    program = (
        "from radcap.console import mute, run_command, say\n"
        "from radcap.errors import RadcapError\n"
        "def main(words):\n"
        "    say('before')\n"
        "    mute()\n"
        "    say('after')\n"
        "    raise RadcapError('broken')\n"
        "raise SystemExit(run_command(main, 'usage'))\n"
    )
    done = run_python(program)
    assert (done.returncode, done.stdout, done.stderr) == (1, "before\n", "radcap: broken\n")


def test_progress_is_a_line_now_and_then_where_nobody_watches(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress("copying", "MB", every_s=0.0) as show:
        show(1_000, 4_000)
        show(4_000, 4_000)
    assert capsys.readouterr().out.splitlines() == [
        "copying: 1,000 of 4,000 MB",
        "copying: 4,000 of 4,000 MB",
    ]
    with progress("copying", "MB") as show:
        show(1, 2)
    assert capsys.readouterr().out == ""


def test_progress_is_a_bar_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("radcap.console.on_terminal", lambda: True)
    with progress("copying", "MB") as show:
        show(1, 4)
        show(4, 4)
    out, err = capsys.readouterr()
    assert out == "" and "copying: 100%" in err and "4/4" in err


def test_a_missing_package_is_told_in_a_line_and_a_missing_part_of_radcap_is_not() -> None:
    program = (
        "from radcap.console import run_command\n"
        "def main(words):\n"
        "    import {name}\n"
        "raise SystemExit(run_command(main, 'usage'))\n"
    )
    done = run_python(program.format(name="hydra_is_not_here.core"))
    assert done.returncode == 1
    assert done.stderr.startswith("radcap: the package hydra_is_not_here is not installed in ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" in run_python(program.format(name="radcap.nothing")).stderr
