"""What a command says to the person who runs it."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from radcap.errors import EXIT_DONE, EXIT_FAILED, ConfigError, RadcapError

_muted = False


def mute() -> None:
    """Let `say` be silent: of processes that train together the first one speaks for all."""
    global _muted
    _muted = True


def say(text: str) -> None:
    """Print a line at once, also into a pipe, without breaking a progress bar.

    Where nobody reads any more (`| head`), the rest is for nobody too: the work goes on.
    """
    if _muted:
        return
    tqdm = sys.modules.get("tqdm")
    try:
        if tqdm is not None:
            tqdm.tqdm.write(text)
            sys.stdout.flush()
        else:
            print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def wrapped(text: str) -> str:
    """A long sentence in lines of at most 100 columns."""
    return textwrap.fill(text, 100, subsequent_indent="  ", break_on_hyphens=False)


def report(text: str) -> None:
    """Print a line on standard error, without breaking a progress bar."""
    if _muted:
        return
    tqdm = sys.modules.get("tqdm")
    if tqdm is not None:
        tqdm.tqdm.write(f"radcap: {text}", file=sys.stderr)
    else:
        print(f"radcap: {text}", file=sys.stderr, flush=True)


@contextmanager
def heartbeat(text: str, *, every_s: float = 15.0) -> Iterator[None]:
    """Say `text` and the time gone by, again and again, while a block takes long."""
    done = threading.Event()
    start = time.monotonic()

    def beat() -> None:
        while not done.wait(every_s):
            say(f"{text}: {time.monotonic() - start:.0f} s so far")

    thread = threading.Thread(target=beat, name="radcap-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def progress(
    text: str, unit: str, *, every_s: float = 15.0
) -> Iterator[Callable[[int, int], None]]:
    """Show how far a block is: a bar on a terminal, elsewhere a line now and then.

    Yields:
        What to call with (units done, units in all). Nothing is shown before.
    """
    bar: Any = None
    last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal bar, last
        if on_terminal():
            from tqdm import tqdm

            bar = bar or tqdm(total=total, desc=text, unit=f" {unit}", dynamic_ncols=True)
            bar.update(done - bar.n)
        elif time.monotonic() - last >= every_s:
            last = time.monotonic()
            say(f"{text}: {done:,} of {total:,} {unit}")

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


def run_command(main: Callable[[Sequence[str]], int], usage: str) -> int:
    """Run a command's body with its arguments and turn its end into an exit status.

    `--help` prints the usage. A `RadcapError` is printed as its message alone; any other exception
    is a fault of radcap and keeps its traceback (status 1, by Python itself).
    """
    words = sys.argv[1:]
    if "-h" in words or "--help" in words:
        say(usage.strip())
        return EXIT_DONE
    try:
        return main(words)
    except RadcapError as error:
        sys.stdout.flush()
        print(f"radcap: {error}", file=sys.stderr, flush=True)
        return error.exit_status
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "radcap"):
            raise
        print(
            f"radcap: the package {package} is not installed in {sys.prefix}; pip install radcap "
            "brings it, and in a checkout bash scripts/quickstart.sh does",
            file=sys.stderr,
            flush=True,
        )
        return EXIT_FAILED
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(
            f"radcap: {where}{error.strerror}; free some space, and the same command goes on from "
            "the last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("radcap: interrupted", file=sys.stderr, flush=True)
        return 128 + signal.SIGINT
