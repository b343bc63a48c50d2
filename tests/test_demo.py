"""The words of `python -m radcap.demo`, and what is refused before anything slow is begun."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

import pytest
from command_line import run_module, run_python

from radcap.demo import main, read_options
from radcap.errors import ConfigError, RadcapError


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "the following arguments are required: weights"),
        (("a", "b"), "unrecognized arguments: b"),
        (("a", "--port", "65536"), "--port 65536: from 0 to 65535"),
        (("a", "--port", "-1"), "--port -1: from 0"),
        (("a", "--port", "http"), "argument --port: invalid int value: 'http'"),
        (("a", "--device", "gpu"), "invalid choice: 'gpu'"),
        (("a", "--precision", "int8"), "int8 is no more, use bf16"),
        (("a", "--share"), "unrecognized arguments: --share"),
    ],
)
def test_wrong_words_are_refused(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_options(words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_by_default_it_listens_to_this_machine_alone() -> None:
    options = read_options(["runs/default"])
    assert (options.host, options.port) == ("127.0.0.1", 7860)


def test_without_gradio_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(RadcapError, match=r"pip install 'radcap\[demo\]'"):
        main(["runs/default"])


def test_a_port_that_is_taken_is_told_before_the_weights_are_looked_for(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run_module("radcap.demo", tmp_path, tmp_path, "nowhere.bin", "--port", port)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"radcap: port {port} of 127.0.0.1: Address already in use; "
        "--port 0 takes one that is free\n"
    )


def test_weights_that_are_not_there_end_it_in_a_line_and_leave_nothing(tmp_path: Path) -> None:
    done = run_module(
        "radcap.demo", tmp_path, tmp_path, "nowhere.bin", "--port", "0", TMPDIR=str(tmp_path)
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "radcap: nowhere.bin: no such file or folder\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_weights_load_ends_it_in_good_order(
    tmp_path: Path, number: signal.Signals
) -> None:
    pytest.importorskip("gradio")
    work = tmp_path / "work"
    work.mkdir()
    program = f"""
import signal, sys
import radcap.serving.captioner as captioner
from radcap.host.console import run_command
from radcap.demo import USAGE, main
captioner.Captioner.from_pretrained = lambda *_, **__: signal.raise_signal({int(number)})
sys.argv[1:] = ["weights", "--port", "0"]
sys.exit(run_command(main, USAGE))
"""
    done = run_python(program, TMPDIR=str(work))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("ended; no upload is kept\n")  # a slow start says what it does
    assert list(work.glob("radcap-demo-*")) == []
