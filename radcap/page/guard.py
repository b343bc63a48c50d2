"""What stands between the network and gradio's application."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect

from radcap.page.uploads import keep_private

_UPLOAD = "/gradio_api/upload"
_AROUND = 1 << 20  # bytes of a request beside the file
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
        self._local = local
        self._arriving = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a request; see the ASGI specification."""

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = message | {"headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif self._local and not _names_this_machine(scope):
            await _refuse(send_with_headers, 403, "This page answers to localhost alone.")
        elif scope["path"].rstrip("/") == _UPLOAD:
            await self._take_upload(scope, receive, send_with_headers)
        else:
            await self._pass(scope, receive, send_with_headers, _AROUND)

    async def _take_upload(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            keep_private(self._uploads)
            most = (_WAITING - self._arriving) * self._max_upload  # those that arrive may grow
            is_full = self._stored() > most
        except OSError:
            await _refuse(send, 503, "There is no folder for uploads.")
            return
        if is_full:
            await _refuse(send, 503, "Too many uploads wait: try again in some minutes.")
            return
        self._arriving += 1
        try:
            # gradio's, of parts that are no files or have no name; it has answered.
            with suppress(TypeError, AttributeError):
                await self._pass(scope, receive, send, self._max_upload)
        finally:
            self._arriving -= 1
            if not self._arriving:
                for entry in _entries(self._uploads):
                    if entry.is_file():
                        entry.unlink(missing_ok=True)

    async def _pass(self, scope: Any, receive: Any, send: Any, limit: int) -> None:
        """Hand a request on, but no more than `limit` bytes of its body."""
        received, refused, answered = 0, False, False

        async def receive_some() -> Any:
            nonlocal received, refused
            if refused:
                return {"type": "http.disconnect"}
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit and not answered:
                refused = True
                await _refuse(send, 413, "The request is too large.")
                return {"type": "http.disconnect"}
            return message

        async def send_once(message: Any) -> None:
            nonlocal answered
            answered = True
            if not refused:
                await send(message)

        # Of a browser that was closed meanwhile: nobody waits for an answer.
        with suppress(ClientDisconnect):
            await self._app(scope, receive_some, send_once)

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


def _names_this_machine(scope: Any) -> bool:
    host = next((value for name, value in scope["headers"] if name == b"host"), b"")
    try:
        name = urlsplit(f"//{host.decode('latin-1')}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


async def _refuse(send: Any, status: int, reason: str) -> None:
    headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason.encode()})
