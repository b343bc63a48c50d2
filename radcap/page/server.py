"""The page on a port of this machine: private, silent, and gone without a trace at its end."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from radcap.errors import ConfigError, RadcapError

_SWEEP_EVERY_S, _SWEEP_AFTER_S = 60.0, 600.0
_LAST_ANSWERS_S = 5  # for answers under way when the page is ended
_BACKLOG = 128


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections, before anything slow is begun.

    Args:
        host: a name or an address of this machine.
        port: 0 for any that is free.

    Raises:
        ConfigError: no such host here.
        RadcapError: the port is taken, or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise ConfigError(f"--host {host}: no such host ({error})") from None
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise ConfigError(f"--host {host}: not an address of this machine") from None
        fix = "--port 0 takes one that is free" if port else "try again"
        raise RadcapError(f"port {port} of {host}: {error.strerror}; {fix}") from None
    return listener


def address_of(listener: socket.socket) -> str:
    """What to type into a browser."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


@contextmanager
def private_uploads() -> Iterator[Path]:
    """A folder for uploads that its owner alone may enter; it goes with the block.

    gradio is told of it, and to make no calls of its own, so it must not be imported before.
    What is left in it for minutes, as by a browser that was closed in between, is deleted.
    """
    folder = Path(tempfile.mkdtemp(prefix="radcap-demo-"))
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    ended = threading.Event()
    sweeper = threading.Thread(target=_sweep, args=(folder, ended), name="radcap-sweep")
    sweeper.start()
    try:
        yield folder
    finally:
        ended.set()
        sweeper.join()
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(folder: Path, ended: threading.Event) -> None:
    while not ended.wait(_SWEEP_EVERY_S):
        delete_older(folder, time.time() - _SWEEP_AFTER_S)


def delete_older(folder: Path, then: float) -> None:
    """Delete what lies in a folder and was last changed before `then`, seconds since 1970."""
    for entry in folder.iterdir():
        try:
            if entry.stat().st_mtime >= then:
                continue
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink()
        except FileNotFoundError:  # read and deleted meanwhile
            continue


def serve(page: Any, listener: socket.socket, uploads: Path, *, max_upload_mb: int) -> None:
    """Serve a page until Ctrl-C or SIGTERM.

    Args:
        page: gradio Blocks.
        listener: from `listen`.
        uploads: from `private_uploads`.
        max_upload_mb: larger files are refused while they arrive.
    """
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI

    from radcap.page.guard import Guard

    assets = resources.files("radcap") / "assets"
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        server_port=listener.getsockname()[1],
        max_file_size=f"{max_upload_mb}mb",
        # Named fonts of the system: gradio's themes would ask Google for theirs.
        theme=gr.themes.Default(
            primary_hue="orange", font=["system-ui", "sans-serif"], font_mono=["monospace"]
        ),
        css=(assets / "page.css").read_text(encoding="utf-8"),
        js=(assets / "page.js").read_text(encoding="utf-8"),
        footer_links=[],
        run_history=False,  # it would keep the pictures in the browser
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        show_error=False,
    )

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            for route in app.routes:
                gradio_app = getattr(route, "app", None)
                if isinstance(gradio_app, gr.routes.App):
                    gradio_app.stop_event.set()  # ends the streams that open pages hold
            await super().shutdown(sockets)

    config = uvicorn.Config(
        Guard(app, uploads),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_LAST_ANSWERS_S,
    )
    # uvicorn ends in good order and then raises the signal once more, for whoever was there before.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
