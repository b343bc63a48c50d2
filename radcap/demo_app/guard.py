"""What stands between the network and gradio's application."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from radcap.demo_app.requests import UPLOAD, RequestError, check_address, has_form, read_body
from radcap.demo_app.uploads import keep_private

_AROUND = 1 << 20  # bytes of a request beside the file
_FAILED = 500
_TOO_LARGE = "The request is too large."
_PATIENCE_S = 120.0  # with whoever is sending a request that is refused
# gradio begins a stream of events, says in it that there is no such session, and fails.
_NOBODYS = (b'"session_not_found":true', b'data: "404: Not Found"')
_OF_THE_BODY = (b"content-length", b"content-type", b"content-encoding", b"transfer-encoding")
_WAITING = 32  # uploads of full size that may lie in the folder
# The browser may fetch from this server alone, whatever gradio's own page asks for.
_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        b"style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]


class Guard:
    """An ASGI application around another: headers for every answer, limits for every request.

    A request of another site's page is refused: a browser lets it send them here, though it does
    not show it the answers. So is what the page would not ask for (radcap.demo_app.requests).

    gradio limits files, but not what else a request may hold, nor all files together. It writes an
    upload into a file of the folder itself and moves it into a folder of its own when it is whole.
    One that is too large or breaks off would stay.

    Args:
        app: gradio's, mounted.
        uploads: the folder that it puts uploads into.
        max_upload: bytes of an upload.
        local: whether nobody but this machine is meant to reach it. Then only its own names are
            answered to: a stranger's page in the browser could let a name of its own lead here.
    """

    def __init__(self, app: Any, uploads: Path, *, max_upload: int, local: bool) -> None:
        self._app = app
        self._uploads = uploads
        self._max_upload = max_upload + _AROUND
        self._too_large = f"A file of more than {max_upload >> 20} MB is not taken."
        self._local = local
        self._arriving = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a request; see the ASGI specification."""

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = message | {"headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":  # the page has none
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            request = _Request(receive)
            try:
                await self._answer(scope, request.receive, send_with_headers)
            except RequestError as error:
                is_upload = scope["path"].rstrip("/") == UPLOAD  # all others are small
                rest = request if is_upload else None
                await _refuse(send_with_headers, error.status, error.reason, rest)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        method, path = scope["method"], scope["path"]
        said = [(n.decode("latin-1").lower(), v.decode("latin-1")) for n, v in scope["headers"]]
        headers = dict(said)
        if any(sum(name == once for name, _ in said) > 1 for once in ("host", "origin")):
            raise RequestError(400, "The request comes from several places.")
        if self._local and not _names_this_machine(headers.get("host", "")):
            raise RequestError(403, "This page answers to localhost alone.")
        if not _is_from_here(headers, method, path, local=self._local):
            raise RequestError(403, "This page answers to itself alone.")
        check_address(method, path, scope["query_string"])
        scope = scope | {"headers": [h for h in scope["headers"] if _is_plain(*h)]}
        if path.rstrip("/") == UPLOAD:
            if _stated_length(headers) > self._max_upload:
                raise RequestError(413, self._too_large)
            await self._take_upload(scope, receive, send)
        elif not has_form(path):
            await self._pass(scope, receive, send, _AROUND)
        else:
            body = read_body(path, await _whole(receive), self._uploads)
            length = (b"content-length", str(len(body)).encode())
            others = [h for h in scope["headers"] if h[0].lower() not in _OF_THE_BODY]
            kind = (b"content-type", b"application/json")
            scope = scope | {"headers": [*others, length, kind]}
            await self._pass(scope, _replay(body, receive), send, _AROUND)

    async def _take_upload(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            keep_private(self._uploads)
            most = (_WAITING - self._arriving) * self._max_upload  # those that arrive may grow
            is_full = self._stored() > most
        except OSError:
            raise RequestError(503, "There is no folder for uploads.") from None
        if is_full:
            raise RequestError(503, "Too many uploads wait: try again in some minutes.")
        self._arriving += 1
        try:
            await self._pass(scope, receive, send, self._max_upload, self._too_large)
        finally:
            self._arriving -= 1
            if not self._arriving:
                for entry in _entries(self._uploads):
                    if entry.is_file():
                        entry.unlink(missing_ok=True)

    async def _pass(
        self, scope: Any, receive: Any, send: Any, limit: int, too_large: str = _TOO_LARGE
    ) -> None:
        """Hand a request on, but no more than `limit` bytes of its body.

        Raises:
            RequestError: it has more, with `too_large` as the reason; or gradio cannot read it.
        """
        received, refused, answered = 0, False, False
        # Of an answer, until its first piece is there: what fails before has another answer.
        head: Any = {"status": 0}

        async def receive_some() -> Any:
            nonlocal received, refused
            if refused:
                return {"type": "http.disconnect"}
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit and not answered:
                refused = True
                return {"type": "http.disconnect"}
            return message

        async def send_some(message: Any) -> None:
            nonlocal head, answered
            if message["type"] == "http.response.start":
                head = message
                return
            body = message.get("body", b"")
            is_nobodys = not answered and any(words in body for words in _NOBODYS)
            if refused or head["status"] == _FAILED or is_nobodys:
                return
            if not answered:
                answered = True
                await send(head)
            await send(message)

        async def fail() -> None:
            if head["status"] == _FAILED and not refused:
                await _refuse(send, _FAILED, "The page failed at this.")

        try:
            await self._app(scope, receive_some, send_some)
        except ClientDisconnect:  # a browser that was closed meanwhile: nobody waits for an answer
            pass
        except (TypeError, AttributeError, RuntimeError) as error:
            status = _status_of(error, scope["path"])
            if status is None:
                await fail()
                raise
            if not answered and not refused:
                raise RequestError(status, "The page has no answer to that.") from None
        else:
            await fail()
        if refused:
            raise RequestError(413, too_large)

    def _stored(self) -> int:
        files = (file for entry in _entries(self._uploads) for file in (entry, *_entries(entry)))
        return sum(_size(file) for file in files)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # a file, or gone meanwhile
        return []


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # gone meanwhile
        return 0


def _names_this_machine(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _is_plain(name: bytes, value: bytes) -> bool:
    """Whether gradio may see a header: it fails at some of what no proxy says."""
    of_a_proxy = name.lower().startswith(b"x-forwarded-")
    return not of_a_proxy or re.fullmatch(rb"[\w.:,/ \[\]-]{0,512}", value) is not None


def _is_from_here(headers: Mapping[str, str], method: str, path: str, *, local: bool) -> bool:
    """Whether a request comes from this page, or from no page at all.

    A browser names the page's address in Origin where it sends something, and says in
    Sec-Fetch-Site how that stands to this one also where it only fetches. A link may lead here
    from anywhere.
    """
    origin = headers.get("origin")
    if origin is not None:
        ours = {headers.get("host", "").lower()}
        if not local:  # a proxy, as before a Space, may have another name outside
            ours.add(headers.get("x-forwarded-host", "").lower())
        scheme, _, place = origin.lower().partition("://")
        return scheme in ("http", "https") and place != "" and place in ours
    if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
        return True
    return (method, path, headers.get("sec-fetch-mode")) == ("GET", "/", "navigate")


def _status_of(error: Exception, path: str) -> int | None:
    """What a fault of gradio's means that comes of a request; None for one that does not."""
    if isinstance(error.__cause__, HTTPException):  # of a stream, see _NOBODYS
        return error.__cause__.status_code
    is_upload = path.rstrip("/") == UPLOAD and not isinstance(error, RuntimeError)
    return 400 if is_upload else None  # its parts are no files or have no name


async def _whole(receive: Any) -> bytes:
    """The body of a request, which is no file.

    Raises:
        RequestError: it is too large, or nobody waits for an answer any more.
    """
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestError(400, "The request is not whole.")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > _AROUND:
            raise RequestError(413, _TOO_LARGE)
    return bytes(body)


def _replay(body: bytes, receive: Any) -> Any:
    """A body that was received, to be received once more."""
    given = False

    async def receive_again() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


class _Request:
    """A request's body as it arrives.

    Attributes:
        ended: whether all of it is here, or whoever sent it is gone.
    """

    def __init__(self, receive: Any) -> None:
        self._receive = receive
        self.ended = False

    async def receive(self) -> Any:
        """The next message."""
        message = await self._receive()
        self.ended = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message


def _stated_length(headers: Mapping[str, str]) -> int:
    """Bytes of a request's body by its own word, which the server holds it to; 0 without one."""
    stated = headers.get("content-length", "")
    return int(stated) if re.fullmatch(r"\d{1,15}", stated, re.ASCII) else 0


async def _refuse(send: Any, status: int, reason: str, rest: _Request | None = None) -> None:
    """Answer in a sentence.

    Args:
        rest: of a large request, which may still be arriving. Browsers and programs look for an
            answer when they have sent all, and if the connection is closed before that they may
            find none. So the rest is taken too, and dropped.
    """
    content = reason.encode()
    headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
    headers.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": True})
    with suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE_S):
            while rest is not None and not rest.ended:
                await rest.receive()
    await send({"type": "http.response.body", "body": b"", "more_body": False})
