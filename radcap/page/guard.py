"""What stands between the network and gradio's application."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect

_UPLOAD = "/gradio_api/upload"
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
    """An ASGI application around another: headers for every answer, nothing left of half uploads.

    gradio writes an upload into a file of the folder itself and moves it into a folder of its own
    when it is whole. One that is too large or breaks off would stay.

    Args:
        app: gradio's, mounted.
        uploads: the folder that it puts uploads into.
    """

    def __init__(self, app: Any, uploads: Path) -> None:
        self._app = app
        self._uploads = uploads
        self._arriving = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a request; see the ASGI specification."""

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = message | {"headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        is_upload = scope["type"] == "http" and scope["path"] == _UPLOAD
        self._arriving += is_upload
        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:  # the browser was closed meanwhile: nobody waits for an answer
            pass
        finally:
            self._arriving -= is_upload
            if is_upload and not self._arriving:
                for entry in self._uploads.iterdir():
                    if entry.is_file():
                        entry.unlink(missing_ok=True)
