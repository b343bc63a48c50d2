"""A Hub whose answers have no end, or are none: each is refused in one line, soon and in bounds."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from data.conftest import row
from hub.stand_in import HUB_ID, StandInHub, endless, plain, point_client_at, serving

from radcap.data.faults import DataError
from radcap.data.hub.answers import MOST_FILE_BYTES, MOST_LISTING_BYTES
from radcap.data.hub.download import Hub
from radcap.data.open import open_source
from radcap.data.source import Source

# What the sockets of both sides hold in addition to what is read.
IN_FLIGHT = 16_000_000
COMMIT = "0123456789abcdef0123456789abcdef01234567"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def stand_in(write: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    with serving(write([[[row(0), row(1)]]])) as hub:
        point_client_at(hub.endpoint, monkeypatch)
        monkeypatch.setattr("radcap.data.hub.download._FIRST_PAUSE_S", 0.01)
        yield hub


def reader(**options: Any) -> Hub:
    # The patience of a run: what is refused within the test's time is not waited for.
    return Hub(HUB_ID, **({"patience_s": 600.0, "timeout_s": 20.0} | options))


def open_split(hub: Hub | None = None, **options: Any) -> Source:
    hub = hub or reader()
    return open_source(split="train", path=None, config="alignment", hub=hub, **options)


def refusal(**options: Any) -> str:
    with pytest.raises(DataError) as caught:
        open_split(**options)
    text = str(caught.value)
    assert text.isprintable() and len(text) < 700, text
    return text


def entry(name: object, **changes: Any) -> dict[str, Any]:
    return {"rfilename": name, "size": 100, "blobId": COMMIT} | changes


def train(name: str = "train-0.parquet", **changes: Any) -> dict[str, Any]:
    return {"siblings": [entry(f"alignment/{name}", **changes)]}


LISTINGS: dict[str, tuple[object, str]] = {
    "null": (None, "answers with a NoneType"),
    "a list": ([], "answers with a list"),
    "a number": (5, "answers with a int"),
    "no JSON": (b"<html>", "answers with no JSON"),
    "nothing": (b"", "answers with no JSON"),
    "no UTF-8": (b'"\xff"', "answers with no JSON"),
    "deep": (b"[" * 100_000, "answers with no JSON"),
    "many digits": (b'{"sha": ' + b"9" * 5_000 + b"}", "answers with no JSON"),
    "no commit": ({"sha": None}, "names the commit None"),
    "commit leads outside": ({"sha": "../../x"}, "names the commit '../../x'"),
    "commit with more": ({"sha": COMMIT + "/../../x"}, "names the commit"),
    "commit in capitals": ({"sha": COMMIT.upper()}, "names the commit"),
    "no files": ({"siblings": None}, "siblings None"),
    "files as a mapping": ({"siblings": {"a": 1}}, "siblings a dict"),
    "a file that is null": ({"siblings": [None]}, "without a name"),
    "a file without a name": ({"siblings": [{}]}, "without a name"),
    "a name that is a number": ({"siblings": [entry(5)]}, "without a name"),
    "up": (train("train-/../../../x.parquet"), r"component '\.\.'"),
    "up at its end": (train("train-/../x/../y.parquet"), r"component '\.\.'"),
    "an empty component": (train("train-a//b.parquet"), "component ''"),
    "a backslash": (train("train-..\\x.parquet"), "backslash"),
    "a NUL": (train("train-\0.parquet"), "do not print"),
    "a line break": (train("train-\n.parquet"), "do not print"),
    "an escape": (train("train-\x1b[2J.parquet"), "do not print"),
    "half a character": (train("train-\ud800.parquet"), "do not print"),
    "a long name": (train(f"train-{'x' * 300}.parquet"), "255 bytes"),
    "a long path": (train(f"train-{'x/' * 600}.parquet"), "1000 bytes"),
    "a size below 0": (train(size=-1), "size -1"),
    "a broken size": (train(size=1.5), "size 1.5"),
    "a size in words": (train(size="100"), "size '100'"),
    "a size that is true": (train(size=True), "size True"),
    "a petabyte": (train(size=10**15), "size 1000000000000000"),
    "a size of 4,000 digits": (train(size=10**3_999), "size 1000"),
    "a large file's size": (train(lfs={"sha256": "0" * 64, "size": -1}), "size -1"),
    "a hash that leads outside": (train(lfs={"sha256": "../x", "size": 9}), r"hash '\.\./x'"),
    "a hash that is a number": (train(blobId=7), "hash 7"),
}


@pytest.mark.parametrize("name", LISTINGS)
def test_a_listing_that_is_none_is_refused_once(stand_in: StandInHub, name: str) -> None:
    answer, said = LISTINGS[name]
    stand_in.change_info = lambda info: info | answer if isinstance(answer, dict) else answer
    with pytest.raises(DataError, match=said):
        open_split()
    refusal()
    assert stand_in.requests == {"GET listing": 2}


def test_another_commit_than_the_one_asked_for_is_refused(stand_in: StandInHub) -> None:
    stand_in.change_info = lambda info: info | {"sha": COMMIT}
    assert "another commit" in refusal(revision=stand_in.commit)


@pytest.mark.parametrize("revision", ["../../x", "main/../x", "", "a b", "x" * 300, "a\nb"])
@pytest.mark.parametrize("hub_id", [HUB_ID, "../x", "a/b/../c", "a/b@main", "a\0/b", ""])
def test_what_leads_outside_is_not_even_asked_for(
    stand_in: StandInHub, hub_id: str, revision: str
) -> None:
    refusal(hub=Hub(hub_id), revision=revision)
    assert not stand_in.requests


@pytest.mark.parametrize("names", [("../train", "a"), ("tr*", "a"), ("a", "../.."), ("a", "/etc")])
def test_a_split_or_configuration_that_leads_outside(
    stand_in: StandInHub, names: tuple[str, str], tmp_path: Path
) -> None:
    for path in (None, str(tmp_path)):
        with pytest.raises(DataError, match="no split or configuration is named"):
            open_source(split=names[0], path=path, config=names[1], hub=Hub(HUB_ID))
    assert not stand_in.requests


def test_a_branch_with_slashes_is_asked_for_as_one_name(stand_in: StandInHub) -> None:
    stand_in.commits["refs/pr/1"] = stand_in.folder
    stand_in.change_info = lambda info: info | {"sha": stand_in.commit}
    assert open_split(revision="refs/pr/1").revision == stand_in.commit


LISTING_ANSWERS: dict[str, tuple[Callable[[Any], None], str]] = {
    "endless": (endless(200, JSON, begin=b'{"sha": "'), "more than 8,000,000 bytes"),
    "a petabyte": (endless(200, {"Content-Length": str(10**15)}), "more than 8,000,000 bytes"),
    "compressed": (
        plain(200, gzip.compress(b"[" * 10**7), JSON | {"Content-Encoding": "gzip"}),
        "content-encoding 'gzip'",
    ),
    "endless and compressed": (
        endless(200, {"Content-Encoding": "br"}),
        "content-encoding 'br'",
    ),
    "a size of 4,000 digits": (endless(200, {"Content-Length": "9" * 4_000}), "no HTTP"),
    "a size below 0": (endless(200, {"Content-Length": "-1"}), "no HTTP"),
    "endless head": (endless(200, {"X": "x" * 10**6}), "no HTTP"),
    "an endless refusal": (endless(403), "accept its terms"),
    "a compressed refusal": (
        plain(401, gzip.compress(b"x" * 10**7), {"Content-Encoding": "gzip"}),
        "HF_TOKEN",
    ),
    "an endless page of errors": (endless(451, begin=b"<html>"), "HTTP 451"),
    "a refusal that writes to the terminal": (plain(451, b"\x1b[2J\nno\r"), r"\\x1b\[2J no"),
    "a redirect to a file": (plain(302, b"", {"Location": "file:///etc/passwd"}), "no http"),
    "a redirect to nowhere": (plain(302, b"", {"Location": ""}), "redirects to ''"),
    "a redirect without an address": (plain(307), "redirects to ''"),
    "a redirect to no address": (plain(302, b"", {"Location": "http://[1::g]/"}), "no http or"),
    "a redirect to no port": (plain(302, b"", {"Location": "http://a:99999/"}), "no address"),
    "a redirect with a password": (plain(302, b"", {"Location": "http://u:p@a/"}), "a user"),
    "a redirect with an escape": (plain(302, b"", {"Location": "http://a/\x1b"}), "no address"),
    "a redirect in circles": (plain(302, b"", {"Location": "/api/here"}), "more than 5 times"),
}


@pytest.mark.parametrize("name", LISTING_ANSWERS)
def test_an_answer_without_bound_is_refused_soon(stand_in: StandInHub, name: str) -> None:
    answer, said = LISTING_ANSWERS[name]
    stand_in.fault = lambda number, method, path: answer
    with pytest.raises(DataError, match=said) as caught:
        open_split()
    text = str(caught.value)
    assert text.isprintable() and len(text) < 700, text
    assert stand_in.bytes_sent <= MOST_LISTING_BYTES + IN_FLIGHT
    assert stand_in.number <= 6


def test_a_renamed_repository_is_followed(stand_in: StandInHub) -> None:
    moved = plain(307, b"", {"Location": f"/api/datasets/{HUB_ID}?blobs=true&moved=1"})

    def fault(number: int, method: str, path: str) -> Any:
        return moved if number == 1 else None

    stand_in.fault = fault
    assert open_split().num_rows == 2


def test_the_token_goes_to_the_hubs_own_address_alone(
    stand_in: StandInHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither to another host, nor from there back to the Hub."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    seen: list[tuple[str | None, str | None]] = []

    def note(handler: Any) -> None:
        seen.append((handler.headers["host"], handler.headers["authorization"]))
        target = ("/api/first", f"http://localhost:{stand_in.server_port}/api/other")
        back = f"{stand_in.endpoint}/api/back"
        location = [target[0], target[1], back, None][len(seen) - 1]
        handler._send(302, b"", {"Location": location}) if location else handler._send(403, b"")

    stand_in.fault = lambda number, method, path: note
    assert "accept its terms" in refusal()
    assert [token for _, token in seen] == ["Bearer hf_secret", "Bearer hf_secret", None, None]
    assert [host and host.partition(":")[0] for host, _ in seen] == [
        *("127.0.0.1", "127.0.0.1", "localhost", "127.0.0.1"),
    ]


def test_a_redirect_away_from_tls_is_refused() -> None:
    from radcap.data.hub.addresses import redirected

    assert redirected("https://a/b", "https://c/d?e") == "https://c/d?e"
    assert redirected("https://a/b", "/d") == "https://a/d"
    for location in ("http://169.254.169.254/latest", "http://a/b?secret", "//c\\@d/"):
        with pytest.raises(DataError) as caught:
            redirected("https://a/b", location)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("address", ["ftp://a", "a", "http://", "http://a b", "file:///etc", ""])
def test_an_address_of_the_hub_that_is_none(monkeypatch: Any, address: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    assert "HF_ENDPOINT" in refusal()


def tail_of(stand_in: StandInHub) -> bytes:
    return next((stand_in.folder / "alignment").iterdir()).read_bytes()


RANGES = {
    "no range": ({}, "content-range ''"),
    "4,000 digits": ({"Content-Range": f"bytes 0-1/{'9' * 5_000}"}, "content-range 'bytes 0-1/99"),
    "a petabyte": ({"Content-Range": f"bytes 0-1/{10**15}"}, f"{MOST_FILE_BYTES:,} bytes"),
    "backwards": ({"Content-Range": "bytes 9-1/20"}, "content-range 'bytes 9-1/20'"),
    "past its end": ({"Content-Range": "bytes 0-20/20"}, "content-range 'bytes 0-20/20'"),
    "below 0": ({"Content-Range": "bytes -5--1/20"}, "content-range"),
    "in words": ({"Content-Range": "bytes a-b/c"}, "content-range"),
    "compressed": ({"Content-Encoding": "gzip"}, "content-encoding 'gzip'"),
}


@pytest.mark.parametrize("name", RANGES)
def test_a_range_that_is_none_is_refused_once(stand_in: StandInHub, name: str) -> None:
    headers, said = RANGES[name]
    answer = endless(206, headers)
    stand_in.fault = lambda number, method, path: answer if "/resolve/" in path else None
    with pytest.raises(DataError, match=said):
        open_split()
    refusal()
    assert stand_in.requests == {"GET listing": 2, "GET file": 2}
    assert stand_in.bytes_sent <= 2 * IN_FLIGHT


def test_the_end_of_a_file_that_goes_on_is_refused(stand_in: StandInHub) -> None:
    size = len(tail_of(stand_in))
    answer = endless(206, {"Content-Range": f"bytes 0-{size - 1}/{size}"})
    stand_in.fault = lambda number, method, path: answer if "/resolve/" in path else None
    assert "more than 65,536 bytes" in refusal()
    assert stand_in.bytes_sent <= IN_FLIGHT


def test_a_range_that_goes_on_is_read_to_its_end_and_no_further(stand_in: StandInHub) -> None:
    hub = reader()
    group = open_split(hub).row_groups[0]
    whole = tail_of(stand_in)
    length = group.stop - group.start
    answer = endless(
        206,
        {"Content-Range": f"bytes {group.start}-{group.stop - 1}/{len(whole)}"},
        begin=whole[group.start : group.stop],
    )
    stand_in.fault = lambda number, method, path: answer
    found = bytearray()
    hub.fetch(group.file, group.start, group.stop, lambda at, piece: found.extend(piece))
    assert found == whole[group.start : group.stop] and hub.traffic.retries == 0
    assert stand_in.bytes_sent <= length + IN_FLIGHT


def test_a_file_shorter_than_its_footer_says_is_refused_once(stand_in: StandInHub) -> None:
    hub = reader()
    group = open_split(hub).row_groups[0]
    stand_in.fault = lambda number, method, path: plain(
        206,
        b"x" * 10,
        {"Content-Range": f"bytes {group.start}-{group.start + 9}/{group.start + 10}"},
    )
    with pytest.raises(DataError, match="was looked for"):
        hub.fetch(group.file, group.start, group.stop, lambda at, piece: None)
    assert hub.traffic.retries == 0


def test_a_server_that_brings_a_byte_and_breaks_off_is_left_in_the_end(
    stand_in: StandInHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("radcap.data.hub.download._MOST_ANSWERS", 20)
    monkeypatch.setattr("radcap.data.hub.download._FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr("radcap.data.hub.download.time.sleep", lambda seconds: None)
    hub = reader()
    group = open_split(hub).row_groups[0]
    before = stand_in.number

    def byte(handler: Any) -> None:
        start = int(handler.headers["range"].removeprefix("bytes=").partition("-")[0])
        handler._send(206, b"x", {"Content-Range": f"bytes {start}-{start}/{group.stop + 8}"}, 9)
        handler.close_connection = True

    stand_in.fault = lambda number, method, path: byte
    with pytest.raises(DataError, match="broke off 20 times"):
        hub.fetch(group.file, group.start, group.stop, lambda at, piece: None)
    assert stand_in.number == before + 20


def test_an_answer_byte_by_byte_is_left_when_patience_is_over(stand_in: StandInHub) -> None:
    hub = reader(patience_s=0.2)
    group = open_split(hub).row_groups[0]
    size = len(tail_of(stand_in))

    def drip(handler: Any) -> None:
        import time

        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {group.start}-{group.stop - 1}/{size}")
        handler.end_headers()
        for _ in range(10_000):
            try:
                handler.wfile.write(b"x")
            except OSError:
                return
            with stand_in.lock:
                stand_in.bytes_sent += 1
            time.sleep(0.05)

    stand_in.fault = lambda number, method, path: drip
    with pytest.raises(DataError, match="less than 100 bytes a second"):
        hub.fetch(group.file, group.start, group.stop, lambda at, piece: None)
    # A listing has to be whole in time.
    hub = reader(patience_s=0.2, timeout_s=0.1)
    with pytest.raises(DataError, match="has not answered for"):
        open_split(hub)


FOOTERS = {
    "a footer of gigabytes": (struct.pack("<I", 2**32 - 9) + b"PAR1", "does not end like one"),
    "no parquet": (b"\0\0\0\0PAR2", "does not end like one"),
    "a broken footer": (struct.pack("<I", 8) + b"PAR1", "not a whole parquet file"),
}


@pytest.mark.parametrize("name", FOOTERS)
def test_a_footer_that_is_none_is_refused(stand_in: StandInHub, name: str) -> None:
    end, said = FOOTERS[name]
    stand_in.change_bytes = lambda name, data: data[:-8] + end
    assert said in refusal()


def test_a_footer_without_bound_is_refused_before_it_is_read(
    stand_in: StandInHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 10**9
    asked = size // 2048  # a footer's usual share of its file
    end = b"\0" * (asked - 8) + struct.pack("<I", size - 100) + b"PAR1"
    answer = plain(206, end, {"Content-Range": f"bytes {size - asked}-{size - 1}/{size}"})
    stand_in.change_info = lambda info: info | train(size=size)
    stand_in.fault = lambda number, method, path: answer if "/resolve/" in path else None
    assert "states a footer of" in refusal()
    assert stand_in.requests["GET file"] == 1
    monkeypatch.setattr("radcap.data.hub.split._MOST_FOOTERS_BYTES", 100)
    stand_in.change_info = lambda info: info
    stand_in.fault = lambda number, method, path: None
    assert "the footers of" in refusal()


def test_another_size_than_the_listing_says_is_refused(stand_in: StandInHub) -> None:
    stand_in.change_info = lambda info: (
        info | {"siblings": [one | {"lfs": one["lfs"] | {"size": 77}} for one in info["siblings"]]}
    )
    assert "lists it with 77" in refusal()


def test_hostile_listings_are_sent_as_they_stand(stand_in: StandInHub) -> None:
    """The stand-in changes nothing on the way: what is refused above is what was sent."""
    import urllib.request

    stand_in.change_info = lambda info: info | {"sha": "../../x", "siblings": [entry("a\0b")]}
    address = f"{stand_in.endpoint}/api/datasets/{HUB_ID}?blobs=true"
    with urllib.request.urlopen(address) as answer:
        found = json.load(answer)
    assert (found["sha"], found["siblings"][0]["rfilename"]) == ("../../x", "a\0b")


def test_the_stand_in_states_true_hashes(stand_in: StandInHub, tmp_path: Path) -> None:
    import hashlib

    from radcap.data.hub.repository import list_repository

    (stand_in.folder / "README.md").write_text("small\n")
    repository = list_repository(reader(), None)
    for name, remote in zip(
        repository.listed, repository.files(list(repository.listed)), strict=True
    ):
        file = stand_in.folder / name
        assert remote.size == file.stat().st_size
        assert remote.digest is not None and remote.digest.is_of(file)
    digests = [file.digest.value for file in repository.files(["README.md"]) if file.digest]
    assert digests == [hashlib.sha1(b"blob 6\0small\n").hexdigest()]  # as `git hash-object` says


def test_a_first_answer_that_does_not_come_is_asked_for_again(stand_in: StandInHub) -> None:
    """A Hub that takes a connection is there: it gets the patience of every other request."""
    stand_in.stall_s = 0.6
    stand_in.fault = lambda number, method, path: "stall" if number <= 2 else None
    hub = reader(timeout_s=0.3, patience_to_connect_s=0.1)
    assert open_split(hub).num_rows == 2
    assert hub.traffic.retries == 2
    first = stand_in.number + 1
    stand_in.fault = lambda number, method, path: "reset" if number == first else None
    assert open_split(reader(patience_to_connect_s=0.0)).num_rows == 2


def test_a_hub_that_is_not_there_is_given_up_soon(
    stand_in: StandInHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_client_at("http://127.0.0.1:9", monkeypatch)
    hub = reader(patience_to_connect_s=0.1)
    with pytest.raises(DataError, match=r"cannot reach .*data=phantom"):
        open_split(hub)
    assert hub.traffic.retries <= 5
