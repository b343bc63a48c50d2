"""Bytes from the Hub: exact ranges, and patience with a Hub that fails now and then.

Transient faults (5xx, 429, 408, resets, stalls, half answers) are tried again with growing pauses
until nothing has arrived for a while; final ones (401, 403, 404 and other refusals) end at once.
Neither is ever taken for the end of the data: fewer bytes than asked for are no answer.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from radcap.data.faults import OFFLINE_HINT, DataError
from radcap.data.hub.answers import (
    SLOWEST,
    Pace,
    StatusError,
    content_range,
    is_malformed,
    is_unreachable,
    open_answer,
    read_answer,
    read_json,
    status_of,
)
from radcap.data.hub.connections import Connections
from radcap.errors import RadcapError, one_line

T = TypeVar("T")

_log = logging.getLogger(__name__)

_TOO_MANY = 429
_TRANSIENT = {408, 425, _TOO_MANY}  # and all of 500 and above
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 30.0
_SECONDS_BETWEEN_WARNINGS = 30.0
_MOST_MALFORMED = 2  # answers that are no HTTP, after which to ask no more
_MOST_ANSWERS = 1_000  # to one request for bytes, each of which broke off and brought some


@dataclass
class Traffic:
    """What was asked of the Hub so far, by one process.

    Attributes:
        requests: requests sent.
        bytes: bytes of data that arrived.
        used: those of them that were needed; the rest was read ahead and is waiting.
        retries: requests sent again.
        wait_s: seconds that connections spent waiting for the Hub, pauses included; of several
            at a time the sum.
    """

    requests: int = 0
    bytes: int = 0
    used: int = 0
    retries: int = 0
    wait_s: float = 0.0

    def __iadd__(self, other: Traffic) -> Traffic:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self

    def copy(self) -> Traffic:
        """A snapshot."""
        return replace(self)

    def since(self, before: Traffic) -> Traffic:
        """What was added since a snapshot."""
        return Traffic(**{name: v - getattr(before, name) for name, v in vars(self).items()})


@dataclass
class Hub:
    """A repository on the Hub, as one process reads it.

    Attributes:
        hub_id: owner/name.
        kind: "dataset" or "model".
        patience_s: seconds without a byte after which a fault counts as final.
        timeout_s: seconds without a byte after which a request is sent again.
        patience_to_connect_s: as `patience_s`, until a first connection has come about.
        met: whether the Hub has given what it was asked for before.
        reached: whether a connection to it has come about.
        traffic: what was asked so far; several threads may ask.
        connections: how many may be open.
    """

    hub_id: str
    kind: str = "dataset"
    patience_s: float = 600.0
    timeout_s: float = 20.0
    patience_to_connect_s: float = 5.0
    met: bool = False
    reached: bool = False
    traffic: Traffic = field(default_factory=Traffic)
    connections: Connections = field(default_factory=Connections)
    _warned: float = -_SECONDS_BETWEEN_WARNINGS
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def own(self, connections: int) -> Hub:
        """The same repository for a reader that counts for itself.

        Args:
            connections: how many it may have open.
        """
        return replace(self, traffic=Traffic(), connections=Connections(connections))

    def count(self, **added: float) -> None:
        """Add to what `traffic` counts."""
        with self._lock:
            self.traffic += Traffic(**added)  # type: ignore[arg-type]

    def fetch(
        self,
        url: str,
        start: int,
        stop: int,
        write: Callable[[int, bytes], object],
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Fetch the bytes [start, stop) of a file.

        Args:
            url: of the file at a commit.
            start, stop: half-open range.
            write: takes each piece with its place in the file; pieces come in order.
            sleep: pauses before another attempt.

        Raises:
            DataError: a final fault, or patience is at an end.
        """
        position = start
        attempts = _Patience(self, sleep)

        def rest() -> None:
            nonlocal position
            pace = Pace(self.patience_s)
            with self._get(url, f"bytes={position}-{stop - 1}") as response:
                first, size = content_range(response, url)
                if size < stop:
                    raise DataError(f"{url} has {size:,} bytes; byte {stop:,} was looked for")
                if first != position:
                    raise DataError(
                        f"{url} answers with bytes from {first} on instead of {position}"
                    )
                # One that ends where it should leaves the connection for the next request.
                is_exact = response.headers.get("content-length") == str(stop - position)
                pace.restart()
                # As it comes: in chunks of a size, the last one of a torn answer would be lost.
                for piece in response.iter_raw():
                    piece = piece[: stop - position]
                    write(position, piece)
                    position += len(piece)
                    self.count(bytes=len(piece))
                    if piece:
                        attempts.restart()
                    if position >= stop and not is_exact:
                        return  # and hang up: a server may go on for ever
                    if pace.is_lost(len(piece)):
                        raise DataError(f"{url} sends less than {SLOWEST} bytes a second")
            if position < stop:
                raise EOFError(f"the answer ends at byte {position} of {stop}")

        for _ in range(_MOST_ANSWERS):
            if position >= stop:
                return
            attempts.run(rest)
        if position < stop:
            raise DataError(
                f"{url} broke off {_MOST_ANSWERS:,} times, at last at byte {position:,} of {stop:,}"
            )

    def fetch_tail(self, url: str, size: int) -> tuple[bytes, int]:
        """Fetch at most the last `size` bytes of a file.

        Returns:
            The bytes, and the size of the whole file.
        """

        def tail() -> tuple[bytes, int]:
            with self._get(url, f"bytes=-{size}") as response:
                _, total = content_range(response, url)
                data = read_answer(response, url, size, self.timeout_s)
            if len(data) != min(size, total):
                raise EOFError(f"{len(data)} bytes of {min(size, total)}")
            self.count(bytes=len(data), used=len(data))
            return data, total

        return self.ask(tail)

    def ask(self, request: Callable[[], T]) -> T:
        """Call something that asks the Hub, until it succeeds.

        Raises:
            DataError: as in `fetch`.
        """
        attempts = _Patience(self)
        while True:
            done, answer = attempts.run(request)
            if done:
                return answer  # type: ignore[return-value]

    def ask_json(self, url: str) -> Any:
        """What the Hub answers at an address of its own, as JSON.

        Raises:
            DataError: as in `fetch`, or it is no JSON.
        """

        def ask() -> Any:
            self.count(requests=1)
            return read_json(url, self.timeout_s)

        return self.ask(ask)

    @contextmanager
    def _get(self, url: str, wanted: str) -> Iterator[Any]:
        with self.connections.one():
            self.count(requests=1)
            with open_answer(url, timeout_s=self.timeout_s, wanted=wanted) as response:
                if response.status_code != 206:
                    raise DataError(
                        f"{url} was asked for {wanted} and answered {response.status_code} with "
                        "all of it: this server cannot be streamed from; set data.local_copy=FOLDER"
                    )
                yield response

    def explain(self, error: BaseException) -> RadcapError:
        """A final fault in one line."""
        from huggingface_hub import constants

        status = status_of(error)
        where = f"data set {self.hub_id} at {constants.ENDPOINT}"
        if status in (401, 403):
            return DataError(
                f"not allowed to read {where} (HTTP {status}): accept its terms at "
                f"{constants.ENDPOINT}/datasets/{self.hub_id} and set HF_TOKEN to a token of that "
                "account"
            )
        if status == 404 and not self.met:
            return DataError(
                f"no {where}, or it is private: check its name and data.revision, or set HF_TOKEN "
                "to a token that may read it"
            )
        if status is not None and status < 500 and status not in (404, 410, *_TRANSIENT):
            return DataError(f"{where} refuses a request (HTTP {status}): {one_line(error)}")
        if status in (404, 410):
            return DataError(
                f"a file of {where} has gone since the run began ({one_line(error)}); what is "
                "saved stays good: try again later, or begin anew with run.fresh=true"
            )
        if is_malformed(error):
            return DataError(f"{where} answers with what is no HTTP: {one_line(error)}")
        if self.reached:
            goes_on = (
                "the same command goes on from the last checkpoint" if self.met else "try later"
            )
            return DataError(
                f"{where} has not answered for {self.patience_s:.0f} s: {one_line(error)}; "
                f"{goes_on} ({OFFLINE_HINT})"
            )
        return DataError(f"cannot reach {where}: {one_line(error)}; {OFFLINE_HINT}")


class _Patience:
    """Attempts at one thing: when to pause, and when to give up."""

    def __init__(self, hub: Hub, sleep: Callable[[float], object] = time.sleep) -> None:
        self._hub, self._sleep = hub, sleep
        self.restart()

    def restart(self) -> None:
        """Something arrived: begin to count anew."""
        self._start = time.monotonic()
        self._tries = 0

    def run(self, request: Callable[[], T]) -> tuple[bool, T | None]:
        """One attempt: (True, its answer), or (False, None) after a pause."""
        from huggingface_hub.errors import HTTPError

        began = time.monotonic()
        try:
            answer = request()
        # Not every OSError: a full disk on this side is no fault of the Hub.
        except (StatusError, HTTPError, ConnectionError, TimeoutError, EOFError) as error:
            self._hub.count(wait_s=time.monotonic() - began)
            self.failed(error)
            return False, None
        self._hub.count(wait_s=time.monotonic() - began)
        self._hub.met = self._hub.reached = True
        return True, answer

    def failed(self, error: Exception) -> None:
        """Pause, or give up."""
        hub = self._hub
        status = status_of(error)
        if status is not None and status < 500 and status not in _TRANSIENT:
            raise hub.explain(error) from error
        patience = hub.patience_s
        hub.reached = hub.reached or not is_unreachable(error)
        if not hub.reached:
            # Not there when a run begins, or its address is wrong.
            patience = min(patience, hub.patience_to_connect_s)
        waited = time.monotonic() - self._start
        if waited >= patience or (is_malformed(error) and self._tries >= _MOST_MALFORMED):
            raise hub.explain(error) from error
        self._tries += 1
        hub.count(retries=1)
        if status == _TOO_MANY:
            hub.connections.fewer()
        pause = min(_FIRST_PAUSE_S * 2 ** (self._tries - 1), _LONGEST_PAUSE_S)
        pause *= random.uniform(0.75, 1.25)  # or all workers would come back together
        if isinstance(error, StatusError):
            pause = max(pause, error.retry_after)
        pause = min(pause, max(0.05, patience - waited))
        self._warn(error, pause)
        self._sleep(pause)
        hub.count(wait_s=pause)

    def _warn(self, error: Exception, pause: float) -> None:
        now = time.monotonic()
        if now - self._hub._warned >= _SECONDS_BETWEEN_WARNINGS:
            self._hub._warned = now
            what = f"HTTP {status_of(error)}" if status_of(error) else one_line(error)
            _log.warning(
                "the Hub: %s; trying again in %.1f s (told every %.0f s at most)",
                what,
                pause,
                _SECONDS_BETWEEN_WARNINGS,
            )
