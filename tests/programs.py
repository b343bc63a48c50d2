"""Programs as a user starts them: `python -m MODULE` and `python SCRIPT`, with their streams.

Most run in children of a server that has imported torch (command_server.py), which saves each of
them seconds. A true process is started where the start itself is what a test is about, and where
the environment holds what Python or a library reads as it is imported.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from command_server import ask, is_served
from waiting import PATIENCE_S

ROOT = Path(__file__).parent.parent
# LLVM without its costliest passes compiles a program for virtual devices in a third of the time;
# the program itself, its graphs, shards and collectives, is the same.
QUICK_XLA = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}

# Read by Python or by a library when it is imported.
_AT_IMPORT = (
    *("PYTHON", "LD_", "LANG", "LC_", "OMP_", "MKL_", "ONEDNN_", "ATEN_", "TORCH_", "CUDA_"),
)
_OF_THE_HUB = ("HF_", "HUGGING", "TRANSFORMERS_")
# Without a change for what is imported already; torchrun sets the last two for its processes.
_HARMLESS = ("PYTHONPATH", "PYTHONUNBUFFERED", "OMP_NUM_THREADS", "TORCHELASTIC_USE_AGENT_STORE")

_TORCH = ("torch", "torch._dynamo", "torchvision", "numpy", "hydra.compose", "tensorboard.compat")
_ALL = (
    *_TORCH,
    *("radcap.training.loop", "radcap.training.inputs", "radcap.evaluation.run"),
    *("radcap.serving.captioner", "radcap.evaluation.worst_page", "datasets", "pydicom"),
)


class CommandServer:
    """A process that forks commands.

    Attributes:
        path: the socket where it listens.
        settings: those variables of its environment that something reads at its import.
    """

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        self._folder = tempfile.mkdtemp(prefix="radcap-tests-")
        atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
        self.path = f"{self._folder}/server"
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("command_server.py"), self.path, *modules],
            # A thread of OpenBLAS would be lost in a fork. The spins are those that a command sets
            # itself, before it imports torch.
            env={
                **environment,
                "OPENBLAS_NUM_THREADS": "1",
                "GOMP_SPINCOUNT": "3000",
                "PYTHONPATH": str(ROOT),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def python(self) -> Path:
        """An executable that is used as python, and whose programs are children of this server."""
        file = Path(self._folder, "python")
        if not file.exists():
            client = Path(__file__).with_name("command_client.py")
            words = f'{sys.executable} -S -E {client} {self.path} "$@"'
            file.write_text(f"#!/bin/sh\nexec {words}\n")
            file.chmod(0o755)
        return file


class Served:
    """A command in a child of the server, as subprocess.Popen has it.

    Attributes:
        pid: its process id.
        returncode: its exit status, negative for a signal; None while it runs.
        stdout: what it prints; None if that went elsewhere.
        stderr: the same of standard error.
    """

    def __init__(
        self,
        server: CommandServer,
        words: Sequence[str],
        cwd: str | Path | None,
        env: Mapping[str, str],
        streams: Mapping[str, int | IO[Any] | None],
        text: bool,
    ) -> None:
        self.args = [sys.executable, *words]
        self.returncode: int | None = None
        ours: dict[str, IO[Any] | None] = {}
        given: list[int] = []
        closing: list[int] = []
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            stream = streams[name]
            ours[name] = None
            if stream is None:
                given.append(number)
            elif stream == subprocess.PIPE:
                ends = os.pipe()
                theirs, own = ends if name == "stdin" else reversed(ends)
                mode = ("w" if name == "stdin" else "r") + ("" if text else "b")
                ours[name] = os.fdopen(own, mode, encoding="utf-8" if text else None)
                given.append(theirs)
                closing.append(theirs)
            elif stream == subprocess.STDOUT:
                given.append(given[1])
            elif stream == subprocess.DEVNULL:
                given.append(os.open(os.devnull, os.O_RDWR))
                closing.append(given[-1])
            else:
                given.append(stream if isinstance(stream, int) else stream.fileno())
        self.stdin, self.stdout, self.stderr = ours.values()
        self._connection = ask(server.path, words, str(cwd or Path.cwd()), env, given)
        for fd in closing:
            os.close(fd)
        self._answers = b""
        self.pid = self._answer(None)

    def _answer(self, timeout: float | None) -> int:
        """The server's next line."""
        while b"\n" not in self._answers:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            more = self._connection.recv(64)
            assert more, "the server of commands has ended"
            self._answers += more
        line, _, self._answers = self._answers.partition(b"\n")
        return int(line)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not.
        """
        if self.returncode is None:
            self.returncode = self._answer(timeout)
            self._connection.close()
        return self.returncode

    def poll(self) -> int | None:
        """Its exit status, None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        """What it prints up to its end, and to standard error.

        Raises:
            subprocess.TimeoutExpired: its streams were not closed by then.
        """
        with ThreadPoolExecutor(3) as pool:
            if self.stdin is not None:
                pool.submit(self._feed, input)
            reads = [s and pool.submit(s.read) for s in (self.stdout, self.stderr)]
            try:
                out, err = (read and read.result(timeout) for read in reads)
                self.wait(timeout)
            except TimeoutError:
                self.kill()  # else the pool would wait for the ends of the streams
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0) from None
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        return out, err

    def _feed(self, input: Any) -> None:
        assert self.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it may end without a look at all of it
            if input:
                self.stdin.write(input)
            self.stdin.close()

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *error: object) -> None:
        self.communicate()


_servers: dict[bool, CommandServer] = {}


def server_for(words: Sequence[str], env: Mapping[str, str]) -> CommandServer | None:
    """The server whose children are as a true process would be; None if there is none."""
    if not is_served(words):
        return None
    if env.get("PYTHONPATH", str(ROOT)) != str(ROOT) or "RADCAP_TRUE_PROCESSES" in os.environ:
        return None
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    if _matter(env, _AT_IMPORT) != _matter(os.environ, _AT_IMPORT):
        return None
    offers_all = _matter(env, _OF_THE_HUB) == _matter(offline, _OF_THE_HUB)
    if offers_all not in _servers:
        if offers_all:
            _servers[True] = CommandServer(_ALL, offline)
        else:
            _servers[False] = CommandServer(_TORCH, os.environ)
    return _servers[offers_all]


def _matter(env: Mapping[str, str], beginnings: tuple[str, ...]) -> dict[str, str]:
    return {k: v for k, v in env.items() if k.startswith(beginnings) and k not in _HARMLESS}


def launched(words: Sequence[str], processes: int, env: MutableMapping[str, str]) -> list[str]:
    """What follows `python` for a program in so many processes: torchrun's words before its own.

    Args:
        env: receives the python with which torchrun starts them.
    """
    if processes == 1:
        return list(words)
    line = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *words]
    if (server := server_for(line, env)) is not None:
        env["PYTHON_EXEC"] = str(server.python())
    return line


def popen(
    words: Sequence[str | bytes | Path],
    *,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[Any] | None = None,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    text: bool = True,
    true_process: bool = False,
    **options: Any,
) -> Any:
    """Start `python WORDS`.

    Args:
        words: -m MODULE or SCRIPT, and its arguments.
        true_process: start an interpreter; so does any further option of subprocess.Popen.

    Returns:
        A subprocess.Popen, or a Served, which is used alike.
    """
    line = [os.fsdecode(word) for word in words]
    env = os.environ if env is None else env
    streams = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
    if not true_process and not options:
        server = server_for(line, env)
        if server is not None:
            return Served(server, line, cwd, env, streams, text)
    return subprocess.Popen(
        [sys.executable, *line], cwd=cwd, env=env, text=text, **streams, **options
    )


def run(
    words: Sequence[str | bytes | Path],
    *,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    input: Any = None,
    text: bool = True,
    true_process: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Run `python WORDS` to its end, as `popen`, and catch what it prints."""
    stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
    pipe = subprocess.PIPE
    process = popen(
        words,
        **{"cwd": cwd, "env": env, "stdin": stdin, "stdout": pipe, "stderr": pipe},
        **{"text": text, "true_process": true_process, **options},
    )
    return finish(process, input)


def finish(process: Any, input: Any = None) -> subprocess.CompletedProcess[Any]:
    """Wait for the end of what `popen` started with pipes, and give what it printed."""
    try:
        out, err = process.communicate(input, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
