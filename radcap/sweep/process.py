"""A job of a sweep in a process of its own: what it says is shown and kept, signals reach it.

One process a job, since much of a run belongs to its process: SPMD mode, random states, counts of
programs, the files that are written.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import subprocess
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType

from radcap.files.durable import DurableFile
from radcap.host.handlers import STOPPING, handled
from radcap.host.streams import discard

_MAX_KEPT = 100_000  # bytes of the last lines, in which the error is looked for
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None)


class Runner:
    """Runs one process after the other, until a signal comes.

    Attributes:
        stopping: whether a signal has asked for an end.
    """

    def __init__(self) -> None:
        self.stopping = False
        self._process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Pass SIGTERM, SIGINT and, as SIGTERM, SIGHUP on to the running job inside a block.

        What they mean is the job's to say: it saves, and a second one ends it at once. SIGHUP is a
        terminal that was closed or a connection that was dropped; the job is not told of it by the
        system, being in a process group of its own.
        """
        # What is ignored stays so: SIGHUP by nohup, SIGINT by a shell for what runs beside it.
        heard = [number for number in STOPPING if signal.getsignal(number) != signal.SIG_IGN]
        with handled(dict.fromkeys(heard, self._handle)):
            yield

    def run(self, words: Sequence[str], log: Path) -> tuple[int, str]:
        """Run a process to its end, showing all that it says on standard output.

        On a terminal it finds one too, and draws its progress.

        Args:
            words: its command line.
            log: file that gets its lines, behind what is there, without progress bars.

        Returns:
            Its exit status, negative for the signal that killed it, and its last lines.

        Raises:
            RadcapError: the log cannot be opened.
        """
        with_the_sweep = partial(_stop_with_the_sweep, os.getpid())
        file = DurableFile(log)
        lines = _Lines(file)
        on_terminal = sys.stdout.isatty()
        reader, writer = os.openpty() if on_terminal else os.pipe()
        try:
            if on_terminal:
                tty.setraw(writer)  # the terminal in front does what is left to do
                _hand_on_size(writer)
            with subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=writer,
                process_group=0,  # Ctrl-C is for the sweep, which passes it on
                preexec_fn=with_the_sweep if sys.platform == "linux" else None,
            ) as process:
                self._process = process
                os.close(writer)
                writer = -1
                if self.stopping:  # a signal came while it was started
                    process.terminate()
                try:
                    for data in _output(reader, process):
                        _show(data)
                        lines.add(data)
                except BaseException:
                    process.terminate()
                    raise
                finally:
                    status = process.wait()
                    self._process = None
        finally:
            os.close(reader)
            if writer >= 0:
                os.close(writer)
            lines.end()
            file.close()
        return status, lines.last

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)


class _Lines:
    """Writes the lines of an output to a file, as they stand when a bar has gone over them.

    Attributes:
        last: the last of them.
    """

    def __init__(self, file: DurableFile) -> None:
        self._file = file
        self._begun = b""
        self._kept = b""

    def add(self, data: bytes) -> None:
        *lines, self._begun = (self._begun + data).split(b"\n")
        self._begun = self._begun.rpartition(b"\r")[2]  # a bar draws itself over and over
        text = b"".join(line.rstrip(b"\r").rpartition(b"\r")[2] + b"\n" for line in lines)
        if text:
            self._file.append(text)
            self._kept = (self._kept + text)[-_MAX_KEPT:]

    def end(self) -> None:
        if self._begun:
            self.add(b"\n")

    @property
    def last(self) -> str:
        return self._kept.decode(errors="replace")


def _output(reader: int, process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """What a process says, until it has ended; a helper that outlives it is not waited for."""
    while True:
        ended = process.poll() is not None
        if not select.select([reader], [], [], 0.0 if ended else 0.5)[0]:
            if ended:
                return
            continue
        try:
            data = os.read(reader, 65_536)
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal's other end is closed
                raise
            return
        if not data:
            return
        yield data
        if os.isatty(reader):
            _hand_on_size(reader)


def _hand_on_size(terminal: int) -> None:
    """Give the job's terminal the size of the one in front, as long as that is there."""
    with suppress(termios.error):
        termios.tcsetwinsize(terminal, termios.tcgetwinsize(sys.stdout))


def _show(data: bytes) -> None:
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError:  # a closed pipe or terminal, a full disk: the work goes on, the log has it all
        discard(sys.stdout)


def _stop_with_the_sweep(parent: int) -> None:
    """In the new process: let a sweep that is killed take its job along, which saves itself."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # killed before that was asked for: nothing has begun
        os._exit(128 + signal.SIGTERM)
