"""A model's files come into the Hub's cache and nowhere else, with the bytes that are stated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub.stand_in import StandInHub, endless, plain, point_client_at, serving

from radcap.errors import ConfigError
from radcap.model.weights import WeightsUnavailable
from radcap.serving.hub import download_model
from radcap.serving.pretrained import load_pretrained
from radcap.serving.source import hub_model_id
from radcap.serving.upload import check_repository, upload

HUB_ID = "someone/captioner"
FILES = {"config.json": b'{"num_heads": 4}', "model.safetensors": b"weights" * 100}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    folder = tmp_path / "repository"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    with serving(folder, HUB_ID, is_model=True) as hub:
        point_client_at(hub.endpoint, monkeypatch)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "a" / "cache"))
        monkeypatch.setattr("radcap.data.hub.download._FIRST_PAUSE_S", 0.01)
        monkeypatch.chdir(tmp_path)
        yield hub


def files_below(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def assert_whole(folder: Path, hub: StandInHub) -> None:
    assert folder.name == hub.commit
    assert files_below(folder) == set(FILES)
    for name, content in FILES.items():
        assert (folder / name).read_bytes() == content


@pytest.mark.parametrize("revision", [None, "refs/pr/1"])
def test_the_cache_is_that_of_the_hubs_own_clients(hub: StandInHub, revision: str | None) -> None:
    from huggingface_hub import constants, try_to_load_from_cache

    hub.commits["refs/pr/1"] = hub.folder
    hub.change_info = lambda info: info | {"sha": hub.commit}
    folder = download_model(HUB_ID, revision)
    assert_whole(folder, hub)
    for name in FILES:
        found = try_to_load_from_cache(
            HUB_ID, name, cache_dir=constants.HF_HUB_CACHE, revision=revision
        )
        assert found == str(folder / name)
    assert len(list(folder.parents[1].glob("blobs/*"))) == len(FILES)


def test_what_another_commit_has_too_is_not_fetched_again(hub: StandInHub, tmp_path: Path) -> None:
    download_model(HUB_ID)
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "model.safetensors").write_bytes(FILES["model.safetensors"])
    (newer / "config.json").write_bytes(b"{}")
    hub.publish(newer)
    before = hub.bytes_served
    folder = download_model(HUB_ID)
    assert (folder.name, hub.bytes_served - before) == (hub.commit, 2)
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]


@pytest.mark.parametrize(
    "changes",
    [
        {"sha": "../../../../outside"},
        {"sha": "/tmp/outside"},
        {"sha": None},
        {"siblings": None},
        {"siblings": [{"rfilename": "model.safetensors", "size": -1}]},
        {"siblings": [{"rfilename": "model.safetensors", "size": 10**15}]},
        {"siblings": [{"rfilename": "model.safetensors", "size": 9, "blobId": "../../outside"}]},
        {"siblings": [{"rfilename": "model.safetensors", "lfs": {"sha256": "../x", "size": 9}}]},
        {
            "siblings": [
                {"rfilename": "model.safetensors"},
                {"rfilename": "config.json", "size": 1e9},
            ]
        },
    ],
)
def test_a_listing_that_is_none_writes_nothing(
    hub: StandInHub, tmp_path: Path, changes: dict[str, Any]
) -> None:
    before = files_below(tmp_path)
    hub.change_info = lambda info: info | changes
    with pytest.raises(WeightsUnavailable, match=HUB_ID) as caught:
        download_model(HUB_ID)
    assert str(caught.value).isprintable()
    assert files_below(tmp_path) == before


def test_headers_of_a_file_name_no_place(hub: StandInHub, tmp_path: Path) -> None:
    """The client's other downloads put a file where its ETag and commit say."""
    headers = {"ETag": '"../../../outside"', "X-Linked-Etag": '"../../../outside"'}
    headers |= {"X-Repo-Commit": "../../../../outside", "Content-Disposition": "x=../outside"}

    def answer(handler: Any) -> None:
        content = FILES[handler.path.rpartition("/")[2].partition("?")[0]]
        span = {"Content-Range": f"bytes 0-{len(content) - 1}/{len(content)}"}
        handler._send(206, content, headers | span)

    before = files_below(tmp_path)
    hub.fault = lambda number, method, path: answer if "/resolve/" in path else None
    folder = download_model(HUB_ID)
    assert_whole(folder, hub)
    new = files_below(tmp_path) - before
    assert all(name.startswith(f"a/cache/models--{HUB_ID.replace('/', '--')}/") for name in new)


@pytest.mark.parametrize(
    "source",
    [
        f"{HUB_ID}@../../x",
        f"{HUB_ID}@a/../../x",
        f"{HUB_ID}@/etc",
        f"{HUB_ID}@a\\b",
        f"{HUB_ID}@a\0b",
        f"{HUB_ID}@\x1b[2J",
        f"{HUB_ID}@{'x' * 300}",
        f"{HUB_ID}@",
        "someone/..",
        "../captioner",
        "someone/cap..tioner",
        "someone/cap--tioner",
        "someone/captioner/more",
        "so\nmeone/captioner",
        "someone/c\u00e4ptioner",
        "\ud800/captioner",
        "x" * 5_000,
    ],
)
def test_what_leads_outside_is_not_asked_for(hub: StandInHub, source: str) -> None:
    with pytest.raises(WeightsUnavailable) as caught:
        load_pretrained(source)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)
    assert hub_model_id(source) is None
    with pytest.raises(ConfigError, match="OWNER/NAME"):
        check_repository(source)
    assert not hub.requests


def test_wrong_bytes_are_fetched_again_and_refused_in_the_end(hub: StandInHub) -> None:
    times = 0

    def wrong(name: str, data: bytes) -> bytes:
        nonlocal times
        times += 1
        return b"x" * len(data) if times % 2 else data

    hub.change_bytes = wrong
    assert_whole(download_model(HUB_ID), hub)
    damaged = download_model(HUB_ID) / "model.safetensors"
    damaged.resolve().write_bytes(b"y" * 700)
    hub.change_bytes = lambda name, data: b"x" * len(data)
    with pytest.raises(WeightsUnavailable, match="came 3 times with other bytes"):
        download_model(HUB_ID)
    hub.change_bytes = None
    assert_whole(download_model(HUB_ID), hub)


def test_a_damaged_download_is_not_used_without_the_hub(
    hub: StandInHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = download_model(HUB_ID)
    point_client_at("http://127.0.0.1:9", monkeypatch)
    assert download_model(HUB_ID) == folder
    (folder / "model.safetensors").resolve().write_bytes(b"y" * 700)
    with pytest.raises(WeightsUnavailable, match="other bytes than when it was downloaded"):
        download_model(HUB_ID)
    (folder.parents[1] / "refs" / "main").write_text("../../outside")
    with pytest.raises(WeightsUnavailable, match="cannot be reached"):
        download_model(HUB_ID)


def test_answers_without_bound_are_refused(hub: StandInHub) -> None:
    hub.fault = lambda number, method, path: endless()
    with pytest.raises(WeightsUnavailable, match="more than 8,000,000 bytes"):
        download_model(HUB_ID)
    hub.fault = lambda number, method, path: endless(404)
    with pytest.raises(WeightsUnavailable, match="HTTP 404"):
        download_model(HUB_ID)
    hub.fault = lambda number, method, path: (
        endless(206, {"Content-Range": "bytes 0-15/16"}) if "/resolve/" in path else None
    )
    with pytest.raises(WeightsUnavailable):  # as long as stated, and no further
        download_model(HUB_ID)
    assert hub.bytes_sent < 40_000_000
    hub.fault = lambda number, method, path: plain(302, b"", {"Location": "file:///etc/passwd"})
    with pytest.raises(WeightsUnavailable, match="no http or https address"):
        download_model(HUB_ID)
    hub.fault = lambda number, method, path: None
    hub.change_info = lambda info: (
        info | {"siblings": [one | {"size": 10**9} for one in info["siblings"]]}
    )
    with pytest.raises(WeightsUnavailable, match=r"config.json has 1,000,000,000 bytes"):
        download_model(HUB_ID)


def test_a_first_answer_that_does_not_come_is_asked_for_again(
    hub: StandInHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("radcap.serving.hub._TIMEOUT_S", 0.3)
    hub.stall_s = 0.6
    hub.fault = lambda number, method, path: "stall" if number == 1 else None
    assert_whole(download_model(HUB_ID), hub)


UPLOADS: dict[str, tuple[Any, str]] = {
    "endless": (endless(), "more than 8,000,000 bytes"),
    "an endless refusal": (endless(403), "more than 8,000,000 bytes"),
    "compressed": (plain(200, b"x", {"Content-Encoding": "gzip"}), "content-encoding 'gzip'"),
    "null": (plain(200, b"null"), "no answer"),
    "no JSON": (plain(200, b"<html>"), "refuses"),
    "deep": (plain(200, b"[" * 10**5), "refuses"),
    "a redirect to a file": (plain(302, b"", {"Location": "file:///etc"}), "cannot be reached"),
    "a redirect in circles": (plain(302, b"", {"Location": "/x"}), "cannot be reached"),
}


@pytest.mark.parametrize("name", UPLOADS)
def test_an_upload_believes_no_answer_without_bound(
    hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from huggingface_hub.utils import get_session

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    answer, said = UPLOADS[name]
    hub.fault = lambda number, method, path: answer
    session = get_session()
    before = {key: list(hooks) for key, hooks in session.event_hooks.items()}, session.timeout
    from radcap.errors import RadcapError

    with pytest.raises(RadcapError, match=said) as caught:
        upload(tmp_path / "repository", "me/captioner", private=True)
    assert str(caught.value).isprintable() and "hf_secret" not in str(caught.value)
    assert hub.bytes_sent < 40_000_000
    assert (session.event_hooks, session.timeout) == before
