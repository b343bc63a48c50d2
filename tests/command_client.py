"""A `python` for programs that start one: `command_client.py SOCKET WORD...`.

Runs `python WORD...` in a child of the server of commands with this process's own streams, hands
signals on to it, and ends as it ends. torchrun starts its processes by this (PYTHON_EXEC), and so
do the command lines of the documentation. Imports nothing that takes time.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from command_server import ask, is_served


def main(path: str, words: list[str]) -> int:
    if not is_served(words):
        os.execv(sys.executable, [sys.executable, *words])
    connection = ask(path, words, os.getcwd(), os.environ, (0, 1, 2), tied=True)  # noqa: PTH109
    answers = connection.makefile("r")
    pid = int(answers.readline())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, lambda number, _: os.kill(pid, number))
    status = int(answers.readline())
    if status < 0:  # it was ended by a signal: so is this
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
