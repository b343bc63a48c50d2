"""The command as its user has it: uploads over HTTP, no calls home, a clean end."""

from __future__ import annotations

import io
import signal
import socket
from functools import partial
from pathlib import Path

import gradio_client
import httpx
import numpy as np
import pytest
from demo_app.conftest import Demo, serving_demo
from PIL import Image
from waiting import PATIENCE_S, wait_until

from radcap import Captioner
from radcap.export import main as export

pytestmark = pytest.mark.slow
META = {"_type": "gradio.FileData"}
get = partial(httpx.get, timeout=PATIENCE_S)
post = partial(httpx.post, timeout=PATIENCE_S)


def noise(folder: Path, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (60, 60), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "smith.png")
    return folder / "smith.png"


def connect(demo: Demo) -> gradio_client.Client:
    return gradio_client.Client(
        demo.address,
        verbose=False,
        analytics_enabled=False,
        httpx_kwargs={"timeout": PATIENCE_S},
    )


def put(demo: Demo) -> str:
    """Upload something: the path that gradio gave it."""
    files = {"files": ("smith.png", io.BytesIO(b"no picture"))}
    (path,) = post(f"{demo.address}/gradio_api/upload", files=files).json()
    return str(path)


def wait_until_gone(demo: Demo) -> None:
    """Wait until no upload is left."""
    wait_until(lambda: not demo.uploads(), "the end of the uploads")


def test_an_upload_has_its_caption_and_is_gone(
    demo: Demo, looking_weights: Path, tmp_path: Path
) -> None:
    file = noise(tmp_path)
    client = connect(demo)
    html, _ = client.predict(gradio_client.handle_file(file), 3, 0, api_name="/caption")
    expected = Captioner.from_pretrained(looking_weights, device="cpu").caption(file, num_beams=3)
    assert f'<p class="rc-caption">{expected[0]}</p>' in html
    assert html.count('class="rc-bar"') == 3
    file.write_text("no picture")
    html, _ = client.predict(gradio_client.handle_file(file), 3, 0, api_name="/caption")
    assert "Not a picture that radcap can read." in html
    html, _ = client.predict(gradio_client.handle_file(file), 99, 0, api_name="/caption")
    assert "Captions to find: a whole number from 1 to 10." in html
    assert demo.uploads() == []


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_file_that_was_not_uploaded_is_neither_read_nor_fetched(
    demo: Demo, tmp_path: Path, place: int
) -> None:
    """In any of the inputs, the numbers' too, and an upload beside it is gone."""
    call = f"{demo.address}/gradio_api/call/caption"
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        for path in (
            f"http://127.0.0.1:{stranger.getsockname()[1]}/x.png",
            str(noise(tmp_path)),
            str(next(demo.temporary.glob("radcap-demo-*"))),
        ):
            data: list[object] = [{"path": put(demo), "meta": META}, 1, 0]
            data[place] = {"path": path, "meta": META}
            assert post(call, json={"data": data}).status_code == 422
            assert demo.uploads() == [] or place == 0
        stranger.settimeout(0.1)
        with pytest.raises(TimeoutError):
            stranger.accept()
    assert (tmp_path / "smith.png").exists()
    for file in demo.uploads():  # in whose place another one was named
        file.unlink()


def test_an_upload_that_is_gone_is_asked_for_once_more(demo: Demo) -> None:
    call = f"{demo.address}/gradio_api/call/caption"
    path = put(demo)
    for told in ("Not a picture that radcap can read.", "drop it once more"):
        data = [{"path": path, "meta": META}, 1, 0]
        event = httpx.post(call, json={"data": data}).json()["event_id"]
        assert told in httpx.get(f"{call}/{event}", timeout=30).text


def test_a_pressed_button_neither_fetches_nor_fails(demo: Demo) -> None:
    """Whatever is sent for the number of captions and of the button."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        address = f"http://127.0.0.1:{stranger.getsockname()[1]}/x.png"
        join = f"{demo.address}/gradio_api/queue/join"
        body = {"data": [{"path": address, "meta": META}], "fn_index": 1, "session_hash": "s"}
        assert httpx.post(join, json=body).status_code == 422
        for beams, event, said in (
            (99, {"number": 0}, "Captions to find: a whole number"),
            (1, None, "no such drawn picture"),
            (1, {}, "no such drawn picture"),
            (1, {"number": 0}, "rc-caption"),
        ):
            body = {"data": [beams], "fn_index": 1, "session_hash": "s", "event_data": event}
            assert post(join, json=body).is_success
            stream = f"{demo.address}/gradio_api/queue/data?session_hash=s"
            assert said in get(stream).text
        stranger.settimeout(0.1)
        with pytest.raises(TimeoutError):
            stranger.accept()


def test_a_file_that_is_too_large_or_never_whole_leaves_nothing(demo: Demo) -> None:
    upload = f"{demo.address}/gradio_api/upload"
    for megabytes in (101, 150):
        content = io.BytesIO(bytes(megabytes << 20))
        answer = post(upload, files={"files": ("x.dcm", content)})
        assert answer.status_code == 413
        assert answer.text == "A file of more than 100 MB is not taken."
        wait_until_gone(demo)
    host, port = demo.address.removeprefix("http://").split(":")
    head = (
        "POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
        'Content-Disposition: form-data; name="files"; filename="smith.dcm"\r\n\r\n'
    )
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as half:
        half.sendall(head.encode() + b"PATIENT" * 1000)
        wait_until(
            lambda: any(file.stat().st_size for file in demo.uploads()), "the begin of the upload"
        )
    wait_until_gone(demo)


def test_the_browser_is_told_to_fetch_from_here_alone(demo: Demo) -> None:
    answer = get(demo.address)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self';") and "http" not in policy
    assert "Not for diagnosis" in answer.text


def test_what_is_too_large_is_not_taken_and_a_nameless_file_leaves_nothing(demo: Demo) -> None:
    body = {"data": ["x" * (2 << 20)], "fn_index": 0, "session_hash": "s"}
    assert post(f"{demo.address}/gradio_api/queue/join", json=body).status_code == 413
    upload = f"{demo.address}/gradio_api/upload"
    assert post(upload, files={"files": ("", io.BytesIO(b"x"))}).status_code >= 400
    assert get(demo.address, headers={"Host": "rebound.example"}).status_code == 403
    wait_until_gone(demo)


def test_it_calls_nobody(demo: Demo) -> None:
    """The last of those that share a page: in all that time, not one address but its own."""
    assert set(demo.calls.read_text().splitlines()) == {"127.0.0.1"}  # its own, to listen at


def hostile(demo: Demo) -> list[object]:
    """Requests that no page of this server sends, where the answer is not one of a refusal."""
    join, call = "/gradio_api/queue/join", "/gradio_api/call/caption"
    good = {"data": [None, 1, 0], "fn_index": 0, "session_hash": "s"}
    bodies: list[object] = [good | {"fn_index": 99}, good | {"data": []}, {"data": "x"}, 7, None]
    bodies.append(good | {"data": [{"path": 5, "meta": META}, 1, 0]})
    bodies.append(good | {"session_hash": "s" * 100_000})
    asked: list[tuple[str, str, dict[str, object]]] = [
        ("POST", path, {"json": body})
        for path in (join, call, "/gradio_api/run/caption", "/gradio_api/call/nothing")
        for body in bodies
        if (path, body) != (call, bodies[0])
    ]
    asked += [
        ("POST", join, {"content": b"{", "headers": {"Content-Type": "application/json"}}),
        ("POST", join, {"json": good, "headers": {"Origin": "http://stranger.example"}}),
        ("POST", "/gradio_api/upload", {"content": b"{}"}),
        ("POST", "/gradio_api/upload", {"files": {"files": ("", b"1")}}),
        ("GET", "/gradio_api/queue/data?session_hash=nobody", {}),
        ("GET", "/gradio_api/call/caption/nobody", {}),
        ("GET", "/config", {"headers": {"Host": "rebound.example"}}),
    ]
    with httpx.Client(base_url=demo.address, timeout=60) as client:
        answers = [(words, client.request(*words[:2], **words[2])) for words in asked]  # type: ignore[arg-type]
    return [
        (words, answer.status_code)
        for words, answer in answers
        if not 400 <= answer.status_code < 500
    ]


@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_good_order(
    looking_weights: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """With a page open, which holds a stream; what it was asked before left no word."""
    with serving_demo(tmp_path, looking_weights, "--host", "localhost") as demo:
        assert demo.output.splitlines()[:-1] == [
            f"weights: {looking_weights} (8 heads assumed)",
            "not for diagnosis: captions of a research model",
        ]
        assert hostile(demo) == []
        beat = f"{demo.address}/gradio_api/heartbeat/x"
        with httpx.stream("GET", beat, timeout=PATIENCE_S) as stream:
            next(stream.iter_raw())
            demo.process.send_signal(number)
            out, err = demo.process.communicate(timeout=PATIENCE_S)
        assert (demo.process.returncode, err) == (0, "")
        assert out.splitlines()[-1] == "ended; no upload is kept"
        assert list(demo.temporary.glob("radcap-demo-*")) == []
        assert list(demo.temporary.iterdir()) == []


def test_a_space_runs_by_its_app_with_its_own_copy_of_radcap(
    looking_weights: Path, tmp_path: Path
) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    work.mkdir()
    assert export([str(looking_weights), str(out), "--space"]) == 0
    # What the page is called, in the copy alone.
    source = out / "space/radcap/demo_app/blocks.py"
    source.write_text(source.read_text().replace("radiology captions", "from a copy"))
    with serving_demo(work, app=out / "space/app.py") as demo:
        assert demo.output.startswith("weights: weights\n")
        assert "radcap: from a copy" in get(demo.address).text
        # As through the proxy of a Space, which speaks https to the outside.
        outside = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "me-page.hf.space"}
        config = get(f"{demo.address}/config", headers=outside).json()
        assert config["root"] == "https://me-page.hf.space"
        file = gradio_client.handle_file(noise(tmp_path))
        html, _ = connect(demo).predict(file, 2, 0, api_name="/caption")
        assert "rc-caption" in html and demo.uploads() == []
