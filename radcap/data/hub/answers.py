"""Answers of the Hub, each read within a bound.

A server that is wrong, or not the Hub at all, may send without end, compress a gigabyte into a
packet, redirect in circles or to somewhere else. So no answer is read further than it can be of
use, none is decompressed, and the token goes to the Hub's own address and nowhere else.
"""

from __future__ import annotations

import importlib
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from radcap.data.faults import DataError
from radcap.data.hub.addresses import origin, redirected, without_query
from radcap.errors import one_line
from radcap.files.names import shown
from radcap.host.network import network_fault

# A repository of 25,000 files is described in about this many bytes.
MOST_LISTING_BYTES = 8_000_000
MOST_FILE_BYTES = 10**12
_MOST_ERROR_BYTES = 64_000
_MOST_REDIRECTS = 5
SLOWEST = 100  # bytes a second, over the time that patience lasts
_REDIRECTS = (301, 302, 303, 307, 308)
_LONGEST_PAUSE_S = 30.0
_LONGEST_CONNECT_S = 8.0
# Before this many time-outs have passed, an answer that is held in memory must be whole.
_TIMEOUTS_FOR_AN_ANSWER = 3
_TOKEN = re.compile(r"[!-~]+", re.ASCII)
_NUMBER = re.compile(r"\d{1,18}", re.ASCII)


class StatusError(Exception):
    """The Hub refused a request.

    Attributes:
        status: of HTTP.
        retry_after: seconds that it asked to wait, 0 where it did not.
    """

    def __init__(self, url: str, status: int, retry_after: float, said: str) -> None:
        super().__init__(f"HTTP {status} for {without_query(url)}{': ' if said else ''}{said}")
        self.status, self.retry_after = status, retry_after


def hub_session() -> Any:
    """The client that the Hub's packages share in this process.

    Raises:
        DataError: it cannot be made with the proxies or certificates that the environment names.
    """
    from huggingface_hub.utils import get_session

    if fault := network_fault():
        raise DataError(fault)
    return get_session()


@contextmanager
def open_answer(url: str, *, timeout_s: float, wanted: str | None = None) -> Iterator[Any]:
    """Send a GET request and follow its redirects; yields an answer whose body is not read yet.

    Args:
        url: at the Hub's own address.
        timeout_s: seconds without a byte that are a time-out.
        wanted: value of the header Range.

    Raises:
        StatusError: the Hub refuses.
        DataError: the answer is none, whoever asks again.
        huggingface_hub.errors.HTTPError, OSError: no answer; asking again may help.
    """
    headers = _headers()
    if wanted is not None:
        headers["Range"] = wanted
    session = hub_session()
    connect = min(timeout_s, _LONGEST_CONNECT_S)
    at = url
    for _ in range(_MOST_REDIRECTS + 1):
        with session.stream(
            "GET",
            at,
            headers=headers,
            timeout=(connect, timeout_s, timeout_s, timeout_s),
            follow_redirects=False,
        ) as response:
            if response.status_code not in _REDIRECTS:
                if response.status_code >= 400:
                    raise _refusal(response, at, timeout_s)
                _check_encoding(response, at)
                yield response
                return
            following = redirected(at, str(response.headers.get("location", "")))
        if origin(following) != origin(url):
            headers = {k: v for k, v in headers.items() if k.lower() != "authorization"}
        at = following
    raise DataError(
        f"{url} redirects more than {_MOST_REDIRECTS} times, at last to {shown(without_query(at))}"
    )


def read_answer(response: Any, url: str, most: int, timeout_s: float) -> bytes:
    """The body of an answer, held in memory.

    Args:
        response: from `open_answer`.
        url: for messages.
        most: the bound in bytes.
        timeout_s: as in `open_answer`; three of them bound the whole.

    Raises:
        DataError: it is longer.
        TimeoutError: it is too slow.
    """
    declared = str(response.headers.get("content-length", "0"))
    if _NUMBER.fullmatch(declared) is None or int(declared) > most:
        raise _too_long(url, most)
    end = time.monotonic() + _TIMEOUTS_FOR_AN_ANSWER * timeout_s
    pieces = bytearray()
    for piece in response.iter_raw():
        pieces += piece
        if len(pieces) > most:
            raise _too_long(url, most)
        if time.monotonic() > end:
            raise TimeoutError(
                f"{url} sent {len(pieces):,} bytes in {_TIMEOUTS_FOR_AN_ANSWER * timeout_s:.0f} s"
            )
    return bytes(pieces)


class Pace:
    """Ends the wait for an answer that comes byte by byte."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self.restart()

    def restart(self) -> None:
        """Begin to count."""
        self._start, self._bytes = time.monotonic(), 0

    def is_lost(self, count: int) -> bool:
        """Count what came; True where too little came for as long as patience lasts."""
        self._bytes += count
        waited = time.monotonic() - self._start
        if waited < self._patience_s:
            return False
        if self._bytes < SLOWEST * waited:
            return True
        self.restart()
        return False


def read_json(url: str, timeout_s: float) -> Any:
    """What the Hub answers as JSON, of at most `MOST_LISTING_BYTES`.

    Raises:
        As `open_answer` and `read_answer`; DataError also where it is no JSON.
    """
    with open_answer(url, timeout_s=timeout_s) as response:
        data = read_answer(response, url, MOST_LISTING_BYTES, timeout_s)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:  # also a number of too many digits
        raise DataError(f"{url} answers with no JSON: {one_line(error)}") from None


@contextmanager
def bounded_client(timeout_s: float) -> Iterator[None]:
    """Hold the Hub's own client, in this process, to the bounds of `read_json` for the block.

    For requests whose answers are all small: those that write.

    Args:
        timeout_s: seconds without a byte that end a request which sets no time-out of its own.
    """
    session = hub_session()
    # httpx or httpx2, as the client's version has it.
    stream_type = importlib.import_module(type(session).__module__).SyncByteStream

    class Bounded(stream_type):  # type: ignore[misc, valid-type]
        def __init__(self, response: Any) -> None:
            self._stream, self._url = response.stream, str(response.request.url)

        def __iter__(self) -> Iterator[bytes]:
            size = 0
            for piece in self._stream:
                size += len(piece)
                if size > MOST_LISTING_BYTES:
                    raise _too_long(without_query(self._url), MOST_LISTING_BYTES)
                yield piece

        def close(self) -> None:
            self._stream.close()

    def ask_plainly(request: Any) -> None:
        request.headers["Accept-Encoding"] = "identity"

    def bound(response: Any) -> None:
        _check_encoding(response, str(response.request.url))
        response.stream = Bounded(response)

    hooks, timeout = session.event_hooks, session.timeout
    session.event_hooks = {
        "request": [*hooks.get("request", ()), ask_plainly],
        "response": [*hooks.get("response", ()), bound],
    }
    session.timeout = timeout_s
    try:
        yield
    finally:
        session.event_hooks, session.timeout = hooks, timeout


def content_range(response: Any, url: str) -> tuple[int, int]:
    """First byte and size of the whole file, as the answer to a request for a range says.

    Raises:
        DataError: it does not say so, or says the impossible.
    """
    text = str(response.headers.get("content-range", ""))
    found = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", text, re.ASCII)
    if found is None:
        raise DataError(f"{url} answers with content-range {shown(text)}")
    first, last, size = map(int, found.groups())
    if not first <= last < size <= MOST_FILE_BYTES:
        raise DataError(
            f"{url} answers with content-range {shown(text)}; the most that a file may have is "
            f"{MOST_FILE_BYTES:,} bytes"
        )
    return first, size


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an exception, if any."""
    if isinstance(error, StatusError):
        return error.status
    return getattr(getattr(error, "response", None), "status_code", None)


def is_unreachable(error: BaseException) -> bool:
    """Whether there is no connection: an unknown name, no route, no listener, or offline mode."""
    # By name: depending on its version, the client uses httpx or httpx2.
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"ConnectError", "ConnectTimeout", "ProxyError", "OfflineModeIsEnabled"})


def _headers() -> dict[str, str]:
    """Not those of the Hub's client, which asks the Hub for more than it is asked for, unbounded,
    before it makes them."""
    from huggingface_hub import constants, get_token

    headers = {"User-Agent": "radcap", "Accept-Encoding": "identity"}
    token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
    if not token:
        return headers
    if _TOKEN.fullmatch(token) is None:
        raise DataError("HF_TOKEN cannot be sent: it holds other characters than ASCII's")
    return headers | {"Authorization": f"Bearer {token}"}


def _check_encoding(response: Any, url: str) -> None:
    """Refuse what is compressed: its size says nothing of what it becomes."""
    encoding = str(response.headers.get("content-encoding", "identity"))
    if encoding.strip().lower() != "identity":
        raise DataError(
            f"{without_query(url)} answers with content-encoding {shown(encoding)}; asked for was "
            "identity"
        )


def is_malformed(error: BaseException) -> bool:
    """Whether what came is no HTTP; a connection that broke off is another thing."""
    names = {kind.__name__ for kind in type(error).__mro__}
    text = str(error).lower()
    return "ProtocolError" in names and "disconnected" not in text and "closed" not in text


def _refusal(response: Any, url: str, timeout_s: float) -> Exception:
    """The error for an answer of status 400 or above, with the start of its text."""
    from huggingface_hub.errors import HTTPError

    try:
        said = read_answer(response, url, _MOST_ERROR_BYTES, timeout_s).decode("utf-8", "replace")
    except (DataError, TimeoutError, HTTPError):  # the status alone says enough
        said = ""
    said = str(response.headers.get("x-error-message", "")) or said
    pause = str(response.headers.get("retry-after", ""))
    seconds = float(pause) if _NUMBER.fullmatch(pause) else 0.0
    said = "" if "<" in said else " ".join(said.split())[:200]  # a page for people
    return StatusError(url, response.status_code, min(seconds, _LONGEST_PAUSE_S), said)


def _too_long(url: str, most: int) -> DataError:
    return DataError(f"{url} answers with more than {most:,} bytes, the most that is read of it")
