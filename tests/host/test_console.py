"""What a command says, and when it says nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from functools import partial

import pytest
from command_line import run_python
from waiting import PATIENCE_S, wait_until

from radcap.host import console
from radcap.host.console import (
    heartbeat,
    last_words,
    moved,
    printable,
    progress,
    put,
    report,
    say,
    seconds_of_silence,
)


def test_a_long_block_gives_signs_of_life(capsys: pytest.CaptureFixture[str]) -> None:
    said = ""

    def three_lines() -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return said.count("\n") >= 3

    with heartbeat("compiling", every_s=0.05):
        wait_until(three_lines, "three lines")
    said += capsys.readouterr().out
    assert re.fullmatch(r"(compiling(: \d+ s so far)?\n)+", said)
    assert not [t for t in threading.enumerate() if t.name == "radcap-heartbeat"]


def test_a_short_or_failing_block_leaves_nothing_behind(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(KeyError), heartbeat("compiling"):
        raise KeyError("fault")
    assert capsys.readouterr().out == ""
    assert not [t for t in threading.enumerate() if t.name == "radcap-heartbeat"]


def _lines_until(capsys: pytest.CaptureFixture[str], line: str, told: list[str]) -> None:
    """Wait for a line, and add those before it and itself to `told`."""

    def is_there() -> bool:
        told.extend(capsys.readouterr().out.splitlines())
        return line in told

    wait_until(is_there, line)


def test_of_blocks_in_each_other_the_innermost_speaks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told: list[str] = []
    with heartbeat("training", every_s=0.02) as go_over_to:
        _lines_until(capsys, "training", told)
        with heartbeat(lambda: "validating", every_s=0.02) as inner:
            _lines_until(capsys, "validating", told)
            inner("validating, 8 of 40 rows")
            _lines_until(capsys, "validating, 8 of 40 rows", told)
        go_over_to("saving")
        _lines_until(capsys, "saving", told)
    steps = [line for number, line in enumerate(told) if line not in told[:number]]
    assert steps == ["training", "validating", "validating, 8 of 40 rows", "saving"]


def test_a_beat_says_how_long_what_it_names_has_taken() -> None:
    begun = time.monotonic()
    assert console._line_of(console._Beat("saving", begun - 12)) == "saving: 12 s so far"
    assert console._line_of(console._Beat("saving, 8 of 40 rows", begun)) == "saving, 8 of 40 rows"


def test_nothing_is_said_while_lines_and_bars_come(capsys: pytest.CaptureFixture[str]) -> None:
    with heartbeat("silent", every_s=1000.0):
        say("a line")
    with heartbeat("silent", every_s=5.0):
        for sign in (partial(say, "a line"), moved, partial(put, "a line")):
            console._last_line -= 100.0
            assert seconds_of_silence() > 99.0
            sign()
            assert seconds_of_silence() < 99.0
    assert "silent" not in capsys.readouterr().out


def test_a_process_forked_in_the_middle_of_a_beat_can_speak() -> None:
    program = (
        "import os, threading\n"
        "from radcap.host.console import heartbeat, say\n"
        "begun, go_on = threading.Event(), threading.Event()\n"
        "def tell(line):\n"
        "    begun.set()\n"
        "    go_on.wait(0.2)\n"  # in the middle of its line when the process is forked
        "with heartbeat('training', every_s=0.01, tell=tell):\n"
        "    begun.wait()\n"
        "    child = os.fork()\n"
        "if child == 0:\n"
        "    with heartbeat('reading', every_s=1000.0):\n"
        "        say('in the child')\n"
        "    os._exit(0)\n"
        "raise SystemExit(os.waitpid(child, 0)[1])\n"
    )
    done = run_python(program)
    assert (done.returncode, done.stdout) == (0, "in the child\n"), done.stderr


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_threads_spin_as_long_as_the_user_says_or_shortly(
    given: dict[str, str], spins: str
) -> None:
    program = (
        f"import os; os.environ.pop('GOMP_SPINCOUNT', None); os.environ.update({given})\n"
        "from radcap.host.console import run_command, say\n"
        "run_command(lambda words: say(str(os.environ.get('GOMP_SPINCOUNT'))) or 0, '')\n"
    )
    assert run_python(program).stdout == f"{spins}\n"


def test_a_muted_process_says_nothing_but_its_error() -> None:
    program = (
        "from radcap.host.console import mute, run_command, say\n"
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
    with progress("copying", "MB", every_s=1000.0) as show:
        for done in (1_000, 2_000, 4_000):
            console._last_line -= 0 if done == 2_000 else 1000.0
            show(done, 4_000)
    assert capsys.readouterr().out.splitlines() == [
        "copying, 1,000 of 4,000 MB",
        "copying, 4,000 of 4,000 MB",
    ]
    with progress("copying", "MB") as show:
        show(1, 2)
    assert capsys.readouterr().out == ""


def test_progress_is_a_bar_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("radcap.host.console.on_terminal", lambda: True)
    with progress("copying", "MB") as show:
        show(1, 4)
        show(4, 4)
    out, err = capsys.readouterr()
    assert out == "" and "copying: 100%" in err and "4/4" in err


def test_a_bar_of_nothing_is_one_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("radcap.host.console.on_terminal", lambda: True)
    with progress("copying", "MB") as show:
        show(0, 0)
        show(0, 0)
    assert capsys.readouterr().err.count("\n") == 1


def test_a_missing_package_is_told_in_a_line_and_a_missing_part_of_radcap_is_not() -> None:
    program = (
        "from radcap.host.console import run_command\n"
        "def main(words):\n"
        "    import {name}\n"
        "raise SystemExit(run_command(main, 'usage'))\n"
    )
    done = run_python(program.format(name="hydra_is_not_here.core"))
    assert done.returncode == 1
    assert done.stderr.startswith("radcap: the package hydra_is_not_here is not installed in ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" in run_python(program.format(name="radcap.nothing")).stderr


PROGRAM = (
    "import sys\n"
    "from radcap.host.console import put, report, run_command\n"
    "def main(words):\n"
    "    lines = list(sys.stdin)\n"
    "    report('told \\u00e9')\n"
    "    for line in lines or ['none\\n']:\n"
    "        put(line.rstrip())\n"
    "    return 3\n"
    "raise SystemExit(run_command(main, 'usage'{}))\n"
)


def shell(line: str, program: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """A program in a shell, as "$PYTHON"."""
    return subprocess.run(
        ["bash", "-c", line, "bash", sys.executable, program],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=PATIENCE_S,
    )


def test_closed_streams_lead_nowhere() -> None:
    program = PROGRAM.format("")
    done = shell('"$1" -c "$2" <&- >&- 2>&-', program)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"", b"")
    done = shell('"$1" -c "$2" <&-', program)
    assert (done.returncode, done.stdout) == (3, b"none\n")


def test_text_of_any_kind_goes_through_narrow_streams() -> None:
    line = 'LC_ALL=C PYTHONIOENCODING=ascii PYTHONUTF8=0 "$1" -c "$2"'
    done = shell(line, PROGRAM.format(""), b"\xc3\xa9\xff\n")
    assert (done.returncode, done.stdout) == (3, b"\xc3\xa9\xff\n")
    assert done.stderr == b"radcap: told \xc3\xa9\n"


def test_a_full_disk_is_told_with_what_the_command_can_do() -> None:
    for option, told in [("", b"give the same command again"), (", on_full_disk='wait'", b"wait")]:
        done = shell('"$1" -c "$2" >/dev/full', PROGRAM.format(option))
        assert done.returncode == 1
        assert done.stderr.endswith(told + b"\n")
        assert done.stderr.count(b"\n") == 2
        assert b"No space left on device" in done.stderr


def test_too_few_open_files_are_told_in_a_line() -> None:
    done = shell('ulimit -n 24; "$1" -c "$2"', PROGRAM.format(""))
    assert done.returncode == 1 and done.stdout == b""
    assert done.stderr.startswith(
        b"radcap: too many open files: a process may have 24 here; ulimit"
    )
    assert done.stderr.count(b"\n") == 1
    # What is low alone, and may be raised, is raised.
    done = shell('ulimit -Sn 24; "$1" -c "$2"', PROGRAM.format(""))
    assert (done.returncode, done.stdout) == (3, b"none\n")


def test_files_that_run_out_later_are_told_in_a_line() -> None:
    program = (
        "import os\n"
        "from radcap.host.console import run_command\n"
        "def main(words):\n"
        "    while True: os.dup(0)\n"
        "raise SystemExit(run_command(main, 'usage'))\n"
    )
    done = shell('ulimit -n 200; "$1" -c "$2"', program)
    assert done.returncode == 1 and done.stderr.count(b"\n") == 1
    assert b"may have 200 here" in done.stderr


def test_reports_that_nobody_reads_end_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as unread:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM.format("")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=unread,
            check=False,
            timeout=PATIENCE_S,
        )
    assert (done.returncode, done.stdout) == (3, b"none\n")


def test_control_characters_become_escapes() -> None:
    assert printable("é a\tb\r\n\x1b[31m\u202e\u2028\x9b") == (
        "é a\\tb\\r\\n\\x1b[31m\\u202e\\u2028\\x9b"
    )
    assert printable("\udcff") == "\udcff"


def test_what_is_said_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("two\nlines \x1b]0;x\x07")
    report("one \u202e\x9b31m\r")
    put("as it\tstands \x1b[0m")
    told = capsys.readouterr()
    assert told.out == "two\nlines \\x1b]0;x\\x07\nas it\tstands \x1b[0m\n"
    assert told.err == "radcap: one \\u202e\\x9b31m\\r\n"


def test_what_is_logged_does_not_steer_the_terminal_either() -> None:
    program = (
        "import logging\n"
        "from radcap.host.console import run_command\n"
        "def main(words):\n"
        "    row = 'x\x1b[31m\u202e\\nradcap: y'\n"
        "    logging.getLogger('radcap.data.loader').warning('row %s', row)\n"
        "    logging.getLogger('radcap.data.loader').info('not this')\n"
        "    return 0\n"
        "raise SystemExit(run_command(main, 'usage'))\n"
    )
    assert run_python(program).stderr == "row x\\x1b[31m\\u202e\\nradcap: y\n"


def test_the_last_words_of_a_failed_command_are_its_error() -> None:
    crash = "Traceback (most recent call last):\n  File x\nKeyError: 'fault'\n"
    assert last_words("radcap: no room\nsome library's goodbye\n\n") == "no room"
    assert last_words(f"radcap: a notice\n{crash}") == "KeyError: 'fault'"
    assert last_words("Killed\n") == "Killed"
    assert last_words(" \n") == "without a word"
