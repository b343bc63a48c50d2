"""What a command says to the person who runs it."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import resource
import signal
import stat
import sys
import textwrap
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TextIO

from radcap.errors import EXIT_DONE, EXIT_FAILED, ConfigError, RadcapError
from radcap.host.handlers import ask_for_end
from radcap.host.places import NO_TEMPORARY_FOLDER, lacks_temporary_folder, settle
from radcap.host.streams import discard, open_streams, write_now

WIDTH = 100  # columns of the longest line
_LEAST_OPEN_FILES = 128  # fewer do not do for a start; data workers take more
_NAME = "radcap: "  # begins what is told on standard error
_SPINS = "3000"  # some tens of microseconds, as short as between two operations
_BEAT_S = 8.0  # of silence at most, with some to spare to ten
_WORTH_TELLING_S = 3.0
_muted = False
_last_line = time.monotonic()  # when something was last said, or moved on a terminal
_beats: list[_Beat] = []  # under way, the innermost last
_speaking = threading.Lock()  # held by whoever says a beat


def mute() -> None:
    """Let `say` be silent: of processes that train together the first one speaks for all."""
    global _muted
    _muted = True


def say(text: str) -> None:
    """Print a line at once, also into a pipe, without breaking a progress bar.

    Where nobody reads any more (`| head`, a closed terminal), the rest is for nobody too: the work
    goes on.
    """
    try:
        put(_without_control(text))
    except BrokenPipeError:
        discard(sys.stdout)


def put(text: str) -> None:
    """Print a line of what a command is there to print: as `say`, but somebody must read it.

    Raises:
        BrokenPipeError: nobody does any more.
    """
    if not _muted:
        _write_line(text, sys.stdout)


def say_at_once(text: str, *, error: bool = False) -> None:
    """Print a line from a handler of signals, which may come in the middle of another line.

    Where it cannot be taken at once (a full pipe, a stopped terminal) it is left out.

    Args:
        error: on standard error, as `report`.
    """
    if error:
        write_now(2, f"{_NAME}{text}\n")
    elif not _muted:
        write_now(1, f"\n{text}\n" if on_terminal() else f"{text}\n")


def printable(text: str) -> str:
    """A text of others, such as a file's name, on one line: control characters as escapes.

    `say` and `report` do so with every line of theirs, `put` with none.
    """
    return "".join(
        char.encode("unicode_escape").decode("ascii")
        if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp")
        else char
        for char in text
    )


def last_words(text: str) -> str:
    """The error of a command that failed, of all that it said: without its name before."""
    lines = [line for line in text.splitlines() if line.strip()]
    for line in reversed(lines):
        if line.startswith(_NAME):
            return line.removeprefix(_NAME)
        if line.startswith("Traceback "):
            break
    return lines[-1] if lines else "without a word"


def wrapped(text: str, *, width: int = WIDTH) -> str:
    """A long sentence in lines of at most so many columns."""
    return textwrap.fill(text, width, subsequent_indent="  ", break_on_hyphens=False)


def report(text: str) -> None:
    """Print a line on standard error, without breaking a progress bar."""
    if not _muted:
        _tell(text)


def seconds_of_silence() -> float:
    """How long ago a line was last said, on either stream, or a bar was moved."""
    return time.monotonic() - _last_line


def moved() -> None:
    """Count as a line what somebody has just seen and `say` did not print, such as a bar's step."""
    global _last_line
    _last_line = time.monotonic()


def _begin_in_child() -> None:
    _speaking.release()
    _beats.clear()  # no thread of theirs is here
    moved()


# A process that is forked in the middle of a line would inherit the stream's lock, and nobody in
# it would ever release that.
os.register_at_fork(
    before=_speaking.acquire, after_in_parent=_speaking.release, after_in_child=_begin_in_child
)


@dataclass
class _Beat:
    """A block of `heartbeat`."""

    text: str | Callable[[], str]
    since: float


@contextmanager
def heartbeat(
    text: str | Callable[[], str],
    *,
    every_s: float | None = None,
    tell: Callable[[str], None] = say,
) -> Iterator[Callable[[str], None]]:
    """Say what a block is at, and for how long, whenever nothing was said for `every_s`.

    Of blocks that lie in each other the innermost speaks.

    Args:
        text: what the block does; asked for at each beat where it is a function.
        every_s: seconds of silence, whoever broke it last; None: as all do, under ten.
        tell: gets the lines.

    Yields:
        What to call with a text when the block goes over to something else.
    """
    done = threading.Event()
    beat = _Beat(text, time.monotonic())
    wait_s = _BEAT_S if every_s is None else every_s

    def go_over_to(text: str) -> None:
        beat.text, beat.since = text, time.monotonic()

    def watch() -> None:
        pause = wait_s - seconds_of_silence()
        while not done.wait(max(pause, 0.0)):
            with _speaking:
                pause = wait_s - seconds_of_silence()
                if pause <= 0.0:
                    pause = wait_s  # also where this process may say nothing
                    if beat is _beats[-1]:
                        try:
                            tell(_line_of(beat))
                        except OSError:  # a full disk: the command's own next line meets it too
                            return

    thread = threading.Thread(target=watch, name="radcap-heartbeat", daemon=True)
    try:
        _beats.append(beat)
        thread.start()
        yield go_over_to
    finally:
        done.set()
        if thread.ident is not None:  # a signal may have come before its start
            thread.join()
        _beats[:] = [other for other in _beats if other is not beat]


def _line_of(beat: _Beat) -> str:
    seconds = time.monotonic() - beat.since
    text = beat.text if isinstance(beat.text, str) else beat.text()
    # Of what has only just begun the time says nothing, and the text how far the work is.
    return f"{text}: {seconds:.0f} s so far" if seconds >= _WORTH_TELLING_S else text


@contextmanager
def progress(
    text: str, unit: str, *, every_s: float | None = None
) -> Iterator[Callable[[int, int], None]]:
    """Show how far a block is: a bar on a terminal, elsewhere a line now and then.

    Yields:
        What to call with (units done, units in all). Before that it is a `heartbeat`.
    """
    bar: Any = None

    with heartbeat(text, every_s=every_s) as go_over_to:

        def show(done: int, total: int) -> None:
            nonlocal bar
            line = f"{text}, {done:,} of {total:,} {unit}"
            go_over_to(line)
            if on_terminal():
                from tqdm import tqdm

                if bar is None:  # one of a total of 0 is false
                    bar = tqdm(total=total, desc=text, unit=f" {unit}", dynamic_ncols=True)
                bar.update(done - bar.n)
                moved()
            elif seconds_of_silence() >= (_BEAT_S if every_s is None else every_s):
                say(line)

        try:
            yield show
        finally:
            if bar is not None:
                bar.close()


def on_terminal() -> bool:
    """Whether a person sees the progress as it happens."""
    return sys.stderr.isatty() and not _muted


class Arguments(argparse.ArgumentParser):
    """Ordinary arguments of a command, refused in one line; `run_command` answers --help."""

    def __init__(self) -> None:
        super().__init__(add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; --help lists what there is")


def run_command(
    main: Callable[[Sequence[str]], int],
    usage: str,
    *,
    on_full_disk: str = "free some space and give the same command again",
) -> int:
    """Run a command's body with its arguments and turn its end into an exit status.

    `--help` prints the usage. A `RadcapError` is printed as its message alone; any other exception
    is a fault of radcap and keeps its traceback (status 1, by Python itself).
    """
    open_streams()
    _show_warnings()
    _let_threads_sleep()
    words = sys.argv[1:]
    if "-h" in words or "--help" in words:
        say(usage.strip())
        return EXIT_DONE
    if _open_files() < _LEAST_OPEN_FILES:  # Python itself would fail in many ways
        _tell(_few_files())
        return EXIT_FAILED
    settle()
    try:
        return main(words)
    except RadcapError as error:
        _tell(str(error))
        return error.exit_status
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "radcap"):
            raise
        _tell(
            f"the package {package} is not installed in {sys.prefix}; pip install radcap "
            "brings it; in a checkout bash scripts/quickstart.sh does, and source "
            ".venv/bin/activate finds it"
        )
        return EXIT_FAILED
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            _tell(_few_files())
            return EXIT_FAILED
        if lacks_temporary_folder(error):
            _tell(NO_TEMPORARY_FOLDER)
            return EXIT_FAILED
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        if not error.filename:  # perhaps standard output's, whose end would try once more
            discard(sys.stdout)
        where = f"{error.filename}: " if error.filename else ""
        _tell(f"{where}{error.strerror}; {on_full_disk}")
        return EXIT_FAILED
    except KeyboardInterrupt:
        ask_for_end()  # nobody may read of it
        _tell("interrupted")
        return 128 + signal.SIGINT


class _OnOneLine(logging.Formatter):
    """What is logged names files, rows and answers of others; a traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        return _without_control(super().format(record))


def _show_warnings() -> None:
    """Print what the library logs on standard error, also in data workers, which inherit it."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(_OnOneLine())
    logging.getLogger("radcap").addHandler(handler)


def _let_threads_sleep() -> None:
    """Let torch's threads, which wait for each other thousands of times a second, sleep soon.

    libgomp lets them spin 300,000 times before, many milliseconds. On a machine with other work
    that keeps the core from the very thread that is waited for, and from the other work: a small
    model's training step took 3.7 times the processor time and twice as long (two cores, load 8).
    It is read when torch is imported, and what a command starts inherits it.
    """
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
        os.environ["GOMP_SPINCOUNT"] = _SPINS


def _open_files() -> int:
    """How many files this process may have open; raised where that is too low and allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = sys.maxsize if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < _LEAST_OPEN_FILES <= most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (_LEAST_OPEN_FILES, hard))
        return _LEAST_OPEN_FILES
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _few_files() -> str:
    return (
        f"too many open files: a process may have {_open_files():,} here; ulimit -n 4096, as root "
        "where that is refused, and the same command again"
    )


def _tell(text: str) -> None:
    """A line on standard error, for whoever reads it."""
    try:
        _write_line(_without_control(f"{_NAME}{text}"), sys.stderr)
    except BrokenPipeError:
        discard(sys.stderr)


def _without_control(text: str) -> str:
    """Lines whose words may be those of a file: what would steer a terminal is shown instead."""
    return "\n".join(printable(line) for line in text.split("\n"))


def _write_line(text: str, stream: TextIO) -> None:
    moved()
    tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)  # none while it is being imported
    try:
        if tqdm is not None:
            tqdm.write(text, file=stream)
            stream.flush()
        else:
            print(text, file=stream, flush=True)
    except OSError as error:
        # What a closed pipe calls EPIPE is EIO of a closed terminal; of a file it is a bad disk.
        if error.errno == errno.EIO and stat.S_ISCHR(os.fstat(stream.fileno()).st_mode):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from None
        raise
