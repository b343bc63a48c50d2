"""What is refused before gradio sees it: sizes, names of this machine, a folder that is full."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")

from starlette.requests import ClientDisconnect

from radcap.page.guard import Guard

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


def ask(guard: Guard, path: str, size: int = 0, host: str = "localhost:7860") -> int:
    """The status of the one answer to a request of so many bytes."""
    left, answers = size, []

    async def receive() -> dict[str, Any]:
        nonlocal left
        piece = min(left, PIECE)
        left -= piece
        return {"type": "http.request", "body": bytes(piece), "more_body": left > 0}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answers.append(message["status"])

    scope = {"type": "http", "path": path, "headers": [(b"host", host.encode())]}
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
    [("/gradio_api/upload", 3 * MB), ("/gradio_api/queue/join", MB), ("/gradio_api/stream/x", MB)],
)
def test_no_more_of_a_request_is_taken_than_it_may_have(
    guard: Guard, app: App, uploads: Path, path: str, most: int
) -> None:
    assert ask(guard, path, most) == 200
    app.received = 0
    assert ask(guard, path, 50 * MB) == 413
    assert app.received <= most


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
