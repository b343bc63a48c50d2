"""A small stand-in for the Hub on loopback: as much of its protocol as its clients use to read a
data set or a model, with faults on demand."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import struct
import threading
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

# Asked for every request: its number, its method and its path; a name of FAULTS, a status, what
# answers in its place, or None.
Fault = Callable[[int, str, str], "str | int | Callable[[_Handler], None] | None"]

FAULTS = ("503", "429", "reset", "half", "stall", "empty")
_LARGE = (".parquet", ".safetensors", ".bin", ".png")  # files of which git holds a pointer
HUB_ID = "raidium/RadImageNet-VQA"


class StandInHub(ThreadingHTTPServer):
    """Serves the folder of one data set, or of one model, under one id.

    Attributes:
        folder: the data set's files.
        commit: its revision; `publish` gives another one.
        fault: decides which requests fail.
        requests: requests by method and kind of path.
        bytes_served: bytes of files that were sent.
        bytes_sent: bytes of answers that `endless` sent.
        change_info: changes what the Hub says of the repository before it is sent.
        change_bytes: changes the bytes of a file, by its name, before they are sent.
        failed: faults done, by name.
        token: what the client sent as its token last.
        leaked: tokens that came to the host that files are redirected to.
        created: repositories of models and Spaces that were made, with what was asked for.
        uploaded: file name -> content of the commits to them.
    """

    daemon_threads = True

    def __init__(self, folder: Path, hub_id: str = HUB_ID, *, is_model: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.hub_id = folder, hub_id
        self.api = f"/api/{'models' if is_model else 'datasets'}/{hub_id}"
        self.files = f"/{hub_id}/resolve/" if is_model else f"/datasets/{hub_id}/resolve/"
        self.fault: Fault = lambda number, method, path: None
        self.requests: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.bytes_served = self.bytes_sent = 0
        self.change_info: Callable[[dict[str, Any]], object] = lambda info: info
        self.change_bytes: Callable[[str, bytes], bytes] | None = None
        self.token: str | None = None
        self.leaked: list[str] = []
        self.created: dict[str, dict[str, object]] = {}
        self.uploaded: dict[str, bytes] = {}
        self.number = 0
        self.lock = threading.Lock()
        self.commits: dict[str, Path] = {}
        self.commit = ""
        self.publish(folder)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def publish(self, folder: Path) -> str:
        """Serve another folder as the newest revision; earlier commits stay."""
        self.commit = hashlib.sha1(f"{folder} {len(self.commits)}".encode()).hexdigest()
        self.commits[self.commit] = folder
        return self.commit

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is nobody's fault."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandInHub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub = self.server
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        with hub.lock:
            hub.number += 1
            number = hub.number
            kind = "file" if "/resolve/" in path else "listing"
            if path.startswith("/cdn/"):
                kind = "bytes"
            elif hub.hub_id not in path:  # the client asks about itself now and then
                kind = "other"
            hub.requests[f"{self.command} {kind}"] += 1
            if kind == "file":
                hub.token = self.headers.get("authorization")
        fault = hub.fault(number, self.command, path)
        if callable(fault):
            hub.failed["own"] += 1
            fault(self)
            return
        if fault is not None:
            hub.failed[str(fault)] += 1
        if fault == "reset":
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
            self.close_connection = True
        elif fault == "stall":
            self.connection.recv(1)  # until the client hangs up
            self.close_connection = True
        elif fault in ("503", "429", "408"):
            self._send(int(fault), b"later", {"Retry-After": "0"})
        elif isinstance(fault, int):
            self._send(fault, b"no")
        else:
            self._serve(path, body, fault)

    def _serve(self, path: str, body: bytes, fault: str | int | None) -> None:
        hub = self.server
        api = hub.api
        if path.startswith(hub.files):
            revision, _, name = path.split("/resolve/")[1].partition("/")
            if self.command == "GET" and fault is None and self._exists(revision, name):
                # Large files lie elsewhere: to a client, another name of this host is another one.
                elsewhere = f"http://localhost:{hub.server_port}/cdn/{revision}/{name}"
                self._send(302, b"", {"Location": elsewhere})
                return
            self._file(revision, name, fault)
        elif path.startswith("/cdn/"):
            if self.headers.get("authorization"):
                hub.leaked.append(self.headers["authorization"])
            revision, _, name = path.removeprefix("/cdn/").partition("/")
            self._file(revision, name, fault)
        elif path == api or path.startswith(f"{api}/revision/"):
            commit = self._commit(path.partition("/revision/")[2] or "main")
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            with_blobs = query.get("blobs", ["false"])[0].lower() == "true"
            info = commit and self._info(commit, with_blobs=with_blobs)
            if info:
                self._send_json(hub.change_info(info))
            else:
                self._json(None)
        elif path.startswith(f"{api}/tree/"):
            revision, _, prefix = path.split("/tree/")[1].partition("/")
            commit = self._commit(revision)
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            recursive = query.get("recursive", ["false"])[0].lower() == "true"
            found = commit and self._tree(commit, prefix, recursive=recursive)
            self._json(found or None)
        elif path.startswith(f"{api}/paths-info/"):
            commit = self._commit(path.split("/paths-info/")[1])
            wanted = urllib.parse.parse_qs(body.decode()).get("paths", [])
            if body.startswith(b"{"):
                wanted = json.loads(body)["paths"]
            entries = [] if commit is None else self._tree(commit, "")
            self._json([entry for entry in entries if entry["path"] in wanted])
        elif self.command == "GET" and path.startswith(("/api/models/", "/api/spaces/")):
            self._made(path.split("/", 3)[3])
        else:
            self._json(self._upload(path, body) if self.command == "POST" else None)

    def _made(self, name: str) -> None:
        """What is known of a repository that was made here."""
        asked = self.server.created.get(name)
        if asked is None:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
            return
        is_private = asked.get("private") or asked.get("visibility") == "private"
        self._json({"_id": "1", "id": name, "private": bool(is_private), "siblings": []})

    def _upload(self, path: str, body: bytes) -> object:
        """Make a repository, and take a commit to it; None for another request."""
        hub = self.server
        hub.token = self.headers.get("authorization")
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            hub.created[name] = asked
            return {"url": f"{hub.endpoint}/{name}", "id": name}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        parts = re.fullmatch(r"/api/(model|space)s/(.+)/(\w+)/main", path)
        if parts is None or parts[2] not in hub.created:
            return None
        kind, name, what = parts.groups()
        if hub.created[name].get("type", "model") != kind:
            return None
        if what == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            plain = {"uploadMode": "regular", "shouldIgnore": False}
            return {"files": [{"path": name, **plain} for name in names]}
        assert what == "commit", path
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                hub.uploaded[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        oid = hashlib.sha1(body).hexdigest()
        return {
            "success": True,
            "commitOid": oid,
            "commitUrl": f"{hub.endpoint}/{'spaces/' * (kind == 'space')}{name}/commit/{oid}",
        }

    def _exists(self, revision: str, name: str) -> bool:
        commit = self._commit(revision)
        return commit is not None and (self.server.commits[commit] / name).is_file()

    def _commit(self, revision: str) -> str | None:
        revision = urllib.parse.unquote(revision)
        if revision == "main":
            return self.server.commit
        return revision if revision in self.server.commits else None

    def _files(self, commit: str) -> list[tuple[str, Path]]:
        folder = self.server.commits[commit]
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        return [(file.relative_to(folder).as_posix(), file) for file in files]

    def _info(self, commit: str, *, with_blobs: bool) -> dict[str, Any]:
        return {
            "_id": "1",
            "id": self.server.hub_id,
            "sha": commit,
            "private": False,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": [
                {"rfilename": name} | (_blob(file) if with_blobs else {})
                for name, file in self._files(commit)
            ],
        }

    def _tree(self, commit: str, prefix: str, *, recursive: bool = True) -> list[dict[str, object]]:
        """Files and folders below a folder, itself left out."""
        entries: dict[str, dict[str, object]] = {}
        inside = f"{prefix}/" if prefix else ""
        for name, file in self._files(commit):
            if not name.startswith(inside):
                continue
            parts = name.removeprefix(inside).split("/")
            for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
                folder = inside + "/".join(parts[:depth])
                entries[folder] = {"type": "directory", "path": folder, "size": 0, "oid": "0"}
            if recursive or len(parts) == 1:
                blob = _blob(file)
                entry = {"type": "file", "path": name, "size": blob["size"], "oid": blob["blobId"]}
                if "lfs" in blob:
                    large = dict(blob["lfs"])
                    entry["lfs"] = {"oid": large.pop("sha256"), **large}
                entries[name] = entry
        return list(entries.values())

    def _file(self, revision: str, name: str, fault: str | int | None) -> None:
        commit = self._commit(revision)
        file = self.server.commits[commit] / name if commit else None
        if file is None or not file.is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        size = file.stat().st_size
        headers = {
            "ETag": f'"{_etag(file)}"',
            "X-Repo-Commit": str(commit),
            "Accept-Ranges": "bytes",
        }
        start, stop, status = 0, size, 200
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("range", ""))
        if wanted is not None:
            status = 206
            if wanted[1]:
                start = int(wanted[1])
                stop = min(size, int(wanted[2]) + 1) if wanted[2] else size
            else:
                start = max(0, size - int(wanted[2]))
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        if self.command == "HEAD":
            self._send(status, b"", headers, length=stop - start)
            return
        with file.open("rb") as stream:
            if self.server.change_bytes is not None:
                data = self.server.change_bytes(name, stream.read())[start:stop]
            else:
                stream.seek(start)
                data = stream.read(stop - start)
        if fault in ("half", "empty"):
            self._send(status, data[: len(data) // 2 if fault == "half" else 0], headers, len(data))
            self.close_connection = True
            self.connection.close()
            return
        self._send(status, data, headers)

    def _json(self, value: object) -> None:
        if value is None:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            return
        self._send_json(value)

    def _send_json(self, value: object) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self._send(200, data, {"Content-Type": "application/json"})

    def _send(
        self,
        status: int,
        data: bytes,
        headers: dict[str, str] | None = None,
        length: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
            self.wfile.flush()
            if headers and "ETag" in headers:
                with self.server.lock:
                    self.server.bytes_served += len(data)


def _blob(file: Path) -> dict[str, Any]:
    """What the Hub states of a file where it is asked for its blobs."""
    stat = file.stat()
    return _blob_of(file, stat.st_size, stat.st_mtime_ns)


@lru_cache
def _blob_of(file: Path, size: int, _: int) -> dict[str, Any]:
    content = file.read_bytes()
    if file.suffix not in _LARGE:
        return {"size": size, "blobId": git_name(content)}
    sha256 = hashlib.sha256(content).hexdigest()
    pointer = (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
    ).encode()
    large = {"sha256": sha256, "size": size, "pointerSize": len(pointer)}
    return {"size": size, "blobId": git_name(pointer), "lfs": large}


def git_name(content: bytes) -> str:
    """What git calls a file's content."""
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def _etag(file: Path) -> str:
    blob = _blob(file)
    return blob["lfs"]["sha256"] if "lfs" in blob else blob["blobId"]


def endless(
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    *,
    begin: bytes = b"",
    piece: bytes = b" " * 65_536,
) -> Callable[[_Handler], None]:
    """An answer whose body never ends: `begin`, then the same piece for as long as it is read."""

    def answer(handler: _Handler) -> None:
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        data = begin
        while True:
            try:
                handler.wfile.write(data)
            except OSError:  # the client hung up
                return
            with handler.server.lock:
                handler.server.bytes_sent += len(data)
            data = piece

    return answer


def plain(
    status: int, data: bytes = b"", headers: dict[str, str] | None = None
) -> Callable[[_Handler], None]:
    """An answer of one's own."""
    return lambda handler: handler._send(status, data, headers)


@contextmanager
def serving(folder: Path, hub_id: str = HUB_ID, *, is_model: bool = False) -> Iterator[StandInHub]:
    """A stand-in that runs for as long as the block."""
    hub = StandInHub(folder, hub_id, is_model=is_model)
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()


def point_client_at(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does, in a process that has loaded the client already."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", endpoint)


def one_in(count: int, *, kinds: tuple[str, ...] = FAULTS) -> Fault:
    """One request in `count` fails, each time in the next way."""

    def fault(number: int, method: str, path: str) -> str | None:
        if number % count:
            return None
        return kinds[number // count % len(kinds)]

    return fault
