"""What is refused before gradio sees it: sizes, strangers' pages, a folder that is full."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from radcap.demo_app.guard import Guard

MB = 1 << 20
PIECE = 1 << 16


class App:
    """Reads a body whole; an upload it writes down, as gradio does."""

    def __init__(self, uploads: Path) -> None:
        self.uploads, self.received = uploads, 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            more = message["more_body"]
            self.received += len(message["body"])
        if scope["path"] == "/gradio_api/upload":
            (self.uploads / "5eed").mkdir()
            (self.uploads / "5eed" / "x").write_bytes(b"x")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


JOIN = b'{"data": [null, 1, 0], "fn_index": 0, "session_hash": "s"}'


def ask(
    guard: Guard,
    path: str,
    size: int = 0,
    host: str = "localhost:7860",
    method: str | None = None,
    **headers: str,
) -> int:
    """The status of the one answer to a request of so many bytes."""
    body, start, answers = (JOIN if path.endswith("join") else b"").ljust(size), 0, []

    async def receive() -> dict[str, Any]:
        nonlocal start
        piece, start = body[start : start + PIECE], start + PIECE
        return {"type": "http.request", "body": piece, "more_body": start < len(body)}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answers.append(message["status"])

    named = {"host": host} | {name.replace("_", "-"): value for name, value in headers.items()}
    scope = {
        "type": "http",
        "method": method or ("POST" if size else "GET"),
        "path": path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
    }
    asyncio.run(guard(scope, receive, send))
    (status,) = answers
    return status


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


@pytest.fixture
def app(uploads: Path) -> App:
    return App(uploads)


@pytest.fixture
def guard(app: App, uploads: Path) -> Guard:
    return Guard(app, uploads, max_upload=2 * MB, local=True)


@pytest.mark.parametrize(
    ("path", "most"),
    [("/gradio_api/upload", 3 * MB), ("/gradio_api/queue/join", MB), ("/config", MB)],
)
def test_no_more_of_a_request_is_taken_than_it_may_have(
    guard: Guard, app: App, uploads: Path, path: str, most: int
) -> None:
    method = "GET" if path == "/config" else "POST"
    assert ask(guard, path, most, method=method) == 200
    app.received = 0
    assert ask(guard, path, 50 * MB, method=method) == 413
    assert app.received <= most


@pytest.mark.parametrize("stated", [True, False])
def test_what_is_too_large_is_answered_in_words_that_the_sender_can_read(
    guard: Guard, app: App, stated: bool
) -> None:
    """Who sends looks for the answer at the end: a connection closed before that has none."""
    size, told = 150 * MB, []
    left = size

    async def receive() -> dict[str, Any]:
        nonlocal left
        piece = bytes(min(PIECE, left))
        left -= len(piece)
        return {"type": "http.request", "body": piece, "more_body": left > 0}

    async def send(message: dict[str, Any]) -> None:
        told.append((message, left))

    headers = [(b"host", b"localhost:7860")]
    headers += [(b"content-length", str(size).encode())] if stated else []
    scope = {"type": "http", "method": "POST", "path": "/gradio_api/upload", "query_string": b""}
    asyncio.run(guard(scope | {"headers": headers}, receive, send))
    (start, _), (words, _), (end, left_at_the_end) = told
    assert start["status"] == 413
    assert words["body"] == b"A file of more than 2 MB is not taken." and words["more_body"]
    assert dict(start["headers"])[b"content-length"] == str(len(words["body"])).encode()
    assert not end["more_body"] and left_at_the_end == 0
    assert app.received <= (0 if stated else 3 * MB)


def test_the_uploads_that_wait_have_a_size_together(guard: Guard, uploads: Path) -> None:
    uploads.mkdir()
    (uploads / "big").mkdir()
    with (uploads / "big" / "x").open("wb") as file:
        file.truncate(32 * 3 * MB + 1)
    assert ask(guard, "/gradio_api/upload", 10) == 503
    (uploads / "big" / "x").unlink()
    assert ask(guard, "/gradio_api/upload", 10) == 200


def test_a_folder_that_vanished_is_made_again_for_its_owner_alone(
    guard: Guard, uploads: Path, tmp_path: Path
) -> None:
    assert ask(guard, "/gradio_api/upload", 10) == 200
    assert stat.S_IMODE(uploads.stat().st_mode) == 0o700
    uploads.rename(tmp_path / "elsewhere")
    uploads.symlink_to(tmp_path / "elsewhere")  # by somebody who knows its name
    assert ask(guard, "/gradio_api/upload", 10) == 503


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:7860", 200),
        ("127.0.0.1", 200),
        ("[::1]:7860", 200),
        ("rebound.example:7860", 403),
        ("localhost.example", 403),
        ("192.0.2.1", 403),
        ("[", 403),
        ("", 403),
    ],
)
def test_on_this_machine_alone_only_its_names_are_answered_to(
    app: App, uploads: Path, host: str, status: int
) -> None:
    """A name of a stranger's that leads here would let the stranger's page in."""
    assert ask(Guard(app, uploads, max_upload=MB, local=True), "/", host=host) == status
    assert ask(Guard(app, uploads, max_upload=MB, local=False), "/", host=host) == 200


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/queue/join", "/gradio_api/upload"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://stranger.example"},
        {"origin": "http://localhost:7861"},
        {"origin": "http://localhost"},
        {"origin": "http://localhost:7860.stranger.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "file://localhost:7860"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site", "sec_fetch_mode": "no-cors"},
    ],
)
def test_a_page_of_another_address_is_answered_nothing(
    app: App, uploads: Path, path: str, method: str, headers: dict[str, str]
) -> None:
    """Neither an upload nor a question nor a look: local or not."""
    for local in (True, False):
        guard = Guard(app, uploads, max_upload=MB, local=local)
        assert ask(guard, path, 100, method=method, **headers) == 403
    assert app.received == 0 and not uploads.exists()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://localhost:7860"},
        {"origin": "HTTP://LocalHost:7860"},
        {"sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "none", "sec_fetch_mode": "navigate"},
    ],
)
def test_the_page_itself_and_programs_are_answered(guard: Guard, headers: dict[str, str]) -> None:
    assert ask(guard, "/gradio_api/queue/join", 100, **headers) == 200
    assert ask(guard, "/gradio_api/upload", 100, **headers) == 200


def test_a_link_may_lead_to_the_page_and_nowhere_else(guard: Guard) -> None:
    link = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert ask(guard, "/", **link) == 200
    assert ask(guard, "/gradio_api/heartbeat/x", **link) == 403
    assert ask(guard, "/", 10, **link) == 403


def test_behind_a_proxy_the_page_has_its_name(app: App, uploads: Path) -> None:
    outside = {"origin": "https://me-page.hf.space", "x_forwarded_host": "me-page.hf.space"}
    words = ("/gradio_api/queue/join", 100)
    assert ask(Guard(app, uploads, max_upload=MB, local=False), *words, **outside) == 200
    # On this machine alone there is no proxy, and a stranger may say so.
    assert ask(Guard(app, uploads, max_upload=MB, local=True), *words, **outside) == 403


def test_what_gradio_fails_at_has_an_answer_and_a_fault_its_traceback(uploads: Path) -> None:
    """A stream that is nobody's: gradio has sent the head of an answer when it finds that out."""

    def failing(error: Exception, cause: Exception | None, head: int) -> Guard:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": head, "headers": []})
            body = b'event: error\ndata: "404: Not Found"\n\n'
            await send({"type": "http.response.body", "body": body, "more_body": head == 200})
            raise error from cause

        return Guard(app, uploads, max_upload=MB, local=True)

    nobody = failing(RuntimeError("begun"), HTTPException(404), 200)
    assert ask(nobody, "/gradio_api/call/caption/x") == 404
    assert ask(failing(TypeError("no file"), None, 500), "/gradio_api/upload", 10) == 400
    with pytest.raises(TypeError, match="fault"):
        ask(failing(TypeError("fault"), None, 500), "/config")
