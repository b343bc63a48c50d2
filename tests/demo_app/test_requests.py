"""What is taken for a request of the page, and what of it is handed on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from radcap.demo_app.requests import RequestError, check_address, has_form, read_body

JOIN, CALL = "/gradio_api/queue/join", "/gradio_api/call/caption"
GOOD = {"data": [None, 5, 0], "fn_index": 0, "session_hash": "0abc"}


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    (tmp_path / "uploads" / "5eed").mkdir(parents=True)
    (tmp_path / "uploads" / "5eed" / "x.png").write_bytes(b"x")
    return tmp_path / "uploads"


def upload(uploads: Path) -> dict[str, Any]:
    return {"path": str(uploads / "5eed" / "x.png"), "meta": {"_type": "gradio.FileData"}}


def refused(path: str, body: bytes | dict[str, Any], uploads: Path) -> int:
    with pytest.raises(RequestError) as caught:
        read_body(path, body if isinstance(body, bytes) else json.dumps(body).encode(), uploads)
    assert len(caught.value.reason.splitlines()) == 1
    return caught.value.status


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/run/caption",
        "/gradio_api/call/v2/caption",
        "/gradio_api/call/nothing",
        "/gradio_api/component_server",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/proxy=http://stranger.example",
        "/gradio_api/vibe-edit",
        "/gradio_api/dev/reload",
        "/gradio_api/call/caption/" + "x" * 100,
        "/gradio_api/heartbeat/a\n",
        "/monitoring",
        "/assets/../../etc/passwd",
        "/assets/\0",
        "/" + "a" * 60_000,
        "",
    ],
)
def test_what_the_page_does_not_have_is_not_there(path: str) -> None:
    for method in ("GET", "POST", "PUT"):
        with pytest.raises(RequestError) as caught:
            check_address(method, path, b"")
        assert caught.value.status == 404


@pytest.mark.parametrize(
    ("method", "path", "query", "status"),
    [
        ("GET", JOIN, b"", 405),
        ("POST", "/config", b"", 405),
        ("PUT", "/gradio_api/upload", b"", 405),
        ("TRACE", "/", b"", 405),
        ("GET", "/gradio_api/queue/data", b"", 400),
        ("GET", "/gradio_api/queue/data", b"session_hash=", 400),
        ("GET", "/gradio_api/queue/data", b"session_hash=a%00", 400),
        ("GET", "/gradio_api/queue/data", b"session_hash=a&session_hash=b/c", 400),
        ("GET", "/gradio_api/queue/data", b"session_hash=" + b"s" * 65, 400),
        ("GET", "/gradio_api/upload_progress", b"", 400),
        ("POST", "/gradio_api/upload", b"upload_id=../x", 400),
        ("GET", "/", b"deep_link=x", 400),
        ("GET", "/", b"x" * 60_000, 414),
    ],
)
def test_an_address_has_its_way_and_its_words(
    method: str, path: str, query: bytes, status: int
) -> None:
    with pytest.raises(RequestError) as caught:
        check_address(method, path, query)
    assert caught.value.status == status


def test_what_the_page_asks_for_passes() -> None:
    for path in ("/", "/config", "/theme.css", "/assets/index-DphvyggB.js", "/gradio_api/info"):
        check_address("GET", path, b"__theme=dark")
    check_address("GET", "/gradio_api/queue/data", b"session_hash=a8sdf7")
    check_address("HEAD", "/gradio_api/heartbeat/5e1f-7c", b"")
    for path in (JOIN, CALL, "/gradio_api/upload", "/gradio_api/reset", "/gradio_api/cancel"):
        check_address("POST", path, b"")
        assert has_form(path) == (path != "/gradio_api/upload")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"data": NaN}', b'{"a": ' + b"9" * 5000 + b"}"],
)
def test_what_is_no_json_is_refused(body: bytes, uploads: Path) -> None:
    assert refused(JOIN, body, uploads) == 400


@pytest.mark.parametrize(
    "change",
    [
        {"data": None},
        {"data": "x"},
        {"data": {"a": 1}},
        {"data": []},
        {"data": [None, 1, 0, 0]},
        {"data": [None, "5", 0]},
        {"data": [None, True, 0]},
        {"data": [None, [], 0]},
        {"data": [None, {"path": "http://stranger.example/x.png"}, 0]},
        {"data": ["x.png", 1, 0]},
        {"data": [{"path": 5}, 1, 0]},
        {"data": [{"path": "/etc/passwd"}, 1, 0]},
        {"data": [{"path": "\ud800\0"}, 1, 0]},
        {"data": [{"url": "http://stranger.example/x.png"}, 1, 0]},
        {"fn_index": None},
        {"fn_index": "0"},
        {"fn_index": 99},
        {"fn_index": -1},
        {"fn_index": True},
        {"fn_index": 1},  # which takes one value
        {"session_hash": None},
        {"session_hash": 5},
        {"session_hash": ""},
        {"session_hash": "s" * 65},
        {"session_hash": "a\nb"},
        {"session_hash": "\ud800"},
        {"event_data": "x"},
        {"event_data": [1]},
        {"trigger_id": "x"},
        {"trigger_id": 1.5},
    ],
)
def test_what_is_not_of_the_known_form_is_refused(change: dict[str, Any], uploads: Path) -> None:
    assert refused(JOIN, GOOD | change, uploads) == 422
    (there,) = uploads.iterdir()
    assert there.name == "5eed"  # none of them names it


def test_a_number_has_an_end(uploads: Path) -> None:
    body = json.dumps(GOOD).replace("5", "1e999").encode()
    assert refused(JOIN, body, uploads) == 422


@pytest.mark.parametrize("body", [b"null", b"[]", b'"x"', b"1", b"{}"])
def test_what_is_no_object_with_data_is_refused(body: bytes, uploads: Path) -> None:
    for path in (JOIN, CALL, "/gradio_api/reset", "/gradio_api/cancel"):
        assert refused(path, body, uploads) == 422


def test_an_upload_that_a_refused_request_names_is_deleted(uploads: Path) -> None:
    assert refused(JOIN, GOOD | {"data": [5, 1, upload(uploads)]}, uploads) == 422
    assert list(uploads.iterdir()) == []


def test_the_known_part_alone_is_handed_on(uploads: Path) -> None:
    beside = {"url": "http://stranger.example", "is_stream": True, "orig_name": "smith.png"}
    sent = {
        "data": [upload(uploads) | beside, 5, 0],
        "fn_index": 0,
        "session_hash": "0abc",
        "event_data": {"number": 3, "target": "x"},
        "trigger_id": 4,
        "batched": True,
        "simple_format": True,
        "event_id": "e",
        "request": {"url": "x"},
    }
    known = json.loads(read_body(JOIN, json.dumps(sent).encode(), uploads))
    assert known == {
        "data": [upload(uploads), 5, 0],
        "fn_index": 0,
        "session_hash": "0abc",
        "event_data": {"number": 3},
        "trigger_id": 4,
    }
    call = json.loads(read_body(CALL, json.dumps(sent).encode(), uploads))
    assert call == {"data": known["data"], "session_hash": "0abc"}
    assert (uploads / "5eed" / "x.png").exists()
