"""The page on a port of this machine: private, silent, and gone without a trace at its end."""

from __future__ import annotations

import errno
import ipaddress
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import Any

from radcap.errors import ConfigError, RadcapError
from radcap.host.handlers import handled

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


def is_loopback(listener: socket.socket) -> bool:
    """Whether this machine alone can reach it."""
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and the end of the terminal (SIGHUP) end a block as Ctrl-C does, at any time."""

    def hang_up(*_: Any) -> None:
        signal.raise_signal(signal.SIGTERM)  # to whoever takes that one now

    with handled({signal.SIGTERM: signal.default_int_handler, signal.SIGHUP: hang_up}):
        yield


def serve(page: Any, listener: socket.socket, uploads: Path) -> None:
    """Serve a page until Ctrl-C, or what `ended_by_signals` takes for it.

    Args:
        page: gradio Blocks.
        listener: from `listen`.
        uploads: from `radcap.demo_app.uploads.private_uploads`.
    """
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI

    from radcap.demo_app.blocks import MAX_UPLOAD_MB
    from radcap.demo_app.guard import Guard

    assets = resources.files("radcap") / "assets"
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        server_port=listener.getsockname()[1],
        max_file_size=f"{MAX_UPLOAD_MB}mb",
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
        Guard(app, uploads, max_upload=MAX_UPLOAD_MB << 20, local=is_loopback(listener)),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_LAST_ANSWERS_S,
    )
    # uvicorn ends in good order and then raises the signal once more, for whoever was there before.
    with suppress(KeyboardInterrupt):
        Server(config).run(sockets=[listener])
