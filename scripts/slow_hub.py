"""A Hub on loopback behind a slow link: latency, a bandwidth cap for each connection, many files.

For `bench.py wan`. Every file of a split has the same bytes, those of one real file, so that a data
set of 38 GB takes the disk of one file.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

HUB_ID = "raidium/RadImageNet-VQA"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
_PIECE = 1 << 15
_PREFIX = f"/datasets/{HUB_ID}/resolve/"


@dataclass(frozen=True)
class Link:
    """A link to the Hub.

    Attributes:
        latency_s: from a request to the first byte of its answer.
        bytes_per_s: of one connection.
        tail_bytes_per_s: likewise, for requests of the end of a file; None: the same.
    """

    latency_s: float
    bytes_per_s: float
    tail_bytes_per_s: float | None = None


@dataclass
class Served:
    """What was served so far.

    Attributes:
        requests: all of them, listings and redirects too.
        bytes: of files.
        open_s: seconds that connections were open with a request under way, added up.
        peak: most of them at a time.
    """

    requests: int = 0
    bytes: int = 0
    open_s: float = 0.0
    peak: int = 0


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, file: Path, num_files: int, link: Link) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content, self.link = file.read_bytes(), link
        self.names = [
            f"alignment/train-{i:05d}-of-{num_files:05d}.parquet" for i in range(num_files)
        ]
        self.served = Served()
        self.lock = threading.Lock()
        self.active = 0

    def handle_error(self, request: object, client_address: object) -> None:
        """A client may hang up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        hub = self.server
        began = time.monotonic()
        with hub.lock:
            hub.active += 1
            hub.served.requests += 1
            hub.served.peak = max(hub.served.peak, hub.active)
        try:
            time.sleep(hub.link.latency_s)
            self._answer(hub)
        finally:
            with hub.lock:
                hub.active -= 1
                hub.served.open_s += time.monotonic() - began

    def _answer(self, hub: _Server) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/datasets/"):
            size = len(hub.content)
            files = [{"rfilename": name, "size": size} for name in hub.names]
            self._send(200, json.dumps({"sha": COMMIT, "siblings": files}).encode(), {})
        elif path.startswith(_PREFIX):  # the Hub stores its files elsewhere
            self._send(302, b"", {"Location": f"/cdn/{path.removeprefix(_PREFIX)}"})
        else:
            self._file(hub)

    def _file(self, hub: _Server) -> None:
        size = len(hub.content)
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("range", ""))
        assert wanted is not None, "a request without a range"
        rate = hub.link.bytes_per_s
        if wanted[1]:
            start, stop = int(wanted[1]), min(size, int(wanted[2]) + 1)
        else:
            start, stop = max(0, size - int(wanted[2])), size
            rate = hub.link.tail_bytes_per_s or rate
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        view, began = memoryview(hub.content)[start:stop], time.monotonic()
        for at in range(0, len(view), _PIECE):
            piece = view[at : at + _PIECE]
            due = began + (at + len(piece)) / rate
            if (pause := due - time.monotonic()) > 0:
                time.sleep(pause)
            self.wfile.write(piece)
            with hub.lock:
                hub.served.bytes += len(piece)

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _serve(file: Path, num_files: int, link: Link, pipe: Connection) -> None:
    server = _Server(file, num_files, link)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pipe.send(f"http://127.0.0.1:{server.server_port}")
    while pipe.recv():
        with server.lock:
            pipe.send(Served(**vars(server.served)))
            server.served.peak = server.active


class SlowHub:
    """The server, in a process of its own.

    Attributes:
        endpoint: its address.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.endpoint: str = pipe.recv()

    def served(self) -> Served:
        """What it has served; the peak is that since it was last asked."""
        self._pipe.send(True)
        return self._pipe.recv()


@contextmanager
def serving(file: Path, num_files: int, link: Link) -> Iterator[SlowHub]:
    """Serve a file under many names for the duration of the block."""
    context: Any = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(file, num_files, link, theirs), daemon=True)
    process.start()
    try:
        yield SlowHub(ours)
    finally:
        process.kill()
        process.join()
