"""Forks commands off a process that has imported torch: `command_server.py SOCKET MODULE...`.

A command spends seconds on imports, and the tests start hundreds. This server imports the modules
once, opens no device and runs no operation, and then forks a child for each request; the child
takes the request's folder, environment, arguments and streams, runs the module or script as
`python -m MODULE` or `python SCRIPT` would, and ends as an interpreter ends. Tests of start-up
itself, of limits and of terminals start a true process instead, and programs.py decides which.

A request is a connection to the socket: its length in 8 bytes, JSON with `words`, `cwd`, `env` and
`tied`, and the three streams as file descriptors. The answer is a line with the process id, and
another one with the exit status (negative: the signal) at its end. The process of a tied request
is killed when the other side has gone. The server ends when its standard input does.

All children share one seed of `hash()`. What must not depend on it (the order of a set) is held by
the tests that start true processes, those of kills among them.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import runpy
import selectors
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_WORDS = ("-u",)  # switches of python that change nothing here


def is_served(words: Sequence[str]) -> bool:
    """Whether these arguments of python name a program that the server runs: radcap's, torchrun."""
    words = [word for word in words if word not in _WORDS]
    if words[:1] == ["-m"]:
        return words[1].partition(".")[0] in ("radcap", "torch")
    return words[:1] != [] and words[0].endswith(".py")


def ask(
    path: str,
    words: Sequence[str],
    cwd: str,
    env: Mapping[str, str],
    streams: Sequence[int],
    *,
    tied: bool = False,
) -> socket.socket:
    """Ask a server for a command; the answers are read from what is returned."""
    request = {"words": list(words), "cwd": cwd, "env": dict(env), "tied": tied}
    body = json.dumps(request).encode()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    socket.send_fds(connection, [len(body).to_bytes(8, "big")], list(streams))
    connection.sendall(body)
    return connection


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """A request and its three file descriptors."""
    head, fds, _, _ = socket.recv_fds(connection, 8, 3)
    size, body = int.from_bytes(head, "big"), b""
    while len(body) < size:
        body += connection.recv(size - len(body))
    return json.loads(body), fds


def serve(listener: socket.socket) -> dict[str, Any]:
    """Fork a child for every request; returns in the children alone, with their request."""
    woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakes)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: meant for the children
    children: dict[int, socket.socket] = {}
    tied: dict[socket.socket, int] = {}
    selector = selectors.DefaultSelector()
    for source in (0, woken, listener):
        selector.register(source, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj == 0:
                os._exit(0)
            elif key.fileobj == woken:
                os.read(woken, 1 << 16)
                for pid, status in _ended():
                    connection = children.pop(pid)
                    if tied.pop(connection, None):
                        selector.unregister(connection)
                    _tell(connection, status)
                    connection.close()
            elif key.fileobj is listener:
                connection, _ = listener.accept()
                request, fds = receive(connection)
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    selector.close()
                    listener.close()
                    connection.close()
                    for other in children.values():
                        other.close()
                    for stream, fd in enumerate(fds):
                        os.dup2(fd, stream)
                    os.closerange(3, 1 << 16)
                    return request
                for fd in fds:
                    os.close(fd)
                children[pid] = connection
                if request["tied"]:
                    tied[connection] = pid
                    selector.register(connection, selectors.EVENT_READ)
                _tell(connection, pid)
            else:  # the other side of a tied request has gone
                assert isinstance(key.fileobj, socket.socket)
                selector.unregister(key.fileobj)
                os.kill(tied.pop(key.fileobj), signal.SIGKILL)


def _ended() -> list[tuple[int, int]]:
    """Process ids and exit statuses of the children that have ended."""
    ended = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append((pid, os.waitstatus_to_exitcode(status)))


def _tell(connection: socket.socket, number: int) -> None:
    # The other side may not wait for the answer.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(f"{number}\n".encode())


def become(request: dict[str, Any]) -> None:
    """Run a request's module or script as the interpreter's own."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    _open_streams("PYTHONUNBUFFERED" in request["env"])
    words = [word for word in request["words"] if word not in _WORDS]
    if words[0] == "-m":
        sys.path[0], sys.argv = str(Path.cwd()), words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0], sys.argv = str(Path(words[0]).absolute().parent), words
        runpy.run_path(words[0], run_name="__main__")


def _open_streams(unbuffered: bool) -> None:
    """New objects for the standard streams: the server's know what kind of file theirs were."""
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    for fd, name, errors in ((1, "stdout", "strict"), (2, "stderr", "backslashreplace")):
        raw: Any = open(fd, "wb", 0, closefd=False)  # noqa: SIM115
        stream = io.TextIOWrapper(
            raw if unbuffered else io.BufferedWriter(raw),
            encoding="utf-8",
            errors=errors,
            line_buffering=fd == 2 or raw.isatty(),
            write_through=unbuffered,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def main(path: str, modules: list[str]) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # collections of the children touch none of it, and so copy none of it
    threads = {(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()}
    # jemalloc starts its thread again after a fork; another one's locks would stay locked.
    assert len(threads - {"jemalloc_bg_thd"}) == 1, threads
    print("ready", flush=True)
    become(serve(listener))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
