"""What the environment says of the way to the network: proxies, and certificates.

The clients of packages read it when they are made, some at their import, and fail there with an
exception of their own where it cannot be used.
"""

from __future__ import annotations

import importlib.util
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

_SCHEMES = ("http", "https", "socks5", "socks5h")
_KINDS = ("http", "https", "all")
_VARIABLES = {f"{kind}_proxy" for kind in _KINDS} | {"ssl_cert_file", "ssl_cert_dir"}
_OLD_SOCKS = "socks://"  # as desktops write it; meant is the current version, 5


def settle_proxies() -> None:
    """Let `socks://` mean what it means elsewhere; the clients know `socks5://` alone."""
    for name, value in list(os.environ.items()):
        if name.lower() in _VARIABLES and value.startswith(_OLD_SOCKS):
            os.environ[name] = f"socks5://{value.removeprefix(_OLD_SOCKS)}"


def network_fault() -> str | None:
    """What keeps a client from being made, and what to do, in one line; None if nothing does.

    A user's name and password for a proxy are not shown.
    """
    settle_proxies()
    return _proxy_fault() or _certificate_fault()


@contextmanager
def without_faulty_network() -> Iterator[None]:
    """Let a package that makes a client at its import, and may need none, be imported in a block.

    Where the settings can be used, they stand.
    """
    if network_fault() is None:
        yield
        return
    kept = {name: value for name, value in os.environ.items() if name.lower() in _VARIABLES}
    for name in kept:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(kept)


def _proxy_fault() -> str | None:
    proxies = getproxies()
    if "*" in [host.strip() for host in proxies.get("no", "").split(",")]:
        return None
    for kind in _KINDS:
        address = proxies.get(kind)
        if not address:
            continue
        names = (f"{kind}_proxy", f"{kind}_PROXY".upper())
        variable = next((name for name in names if os.environ.get(name)), names[0])
        try:
            parts = urlsplit(address if "://" in address else f"http://{address}")
            shown = f"{variable}={parts.scheme}://{parts.hostname}:{parts.port or ''}".rstrip(":")
            has_host = bool(parts.hostname)
        except ValueError:
            shown, has_host = variable, False
        if not has_host or not shown.isprintable():
            return f"{variable} holds no address of a proxy; write http://HOST:PORT, or unset it"
        if parts.scheme not in _SCHEMES:
            return f"{shown}: no proxy of that kind can be used; write socks5:// or http://"
        if parts.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
            return f"{shown}: a SOCKS proxy needs the package socksio; pip install socksio"
    return None


@lru_cache(maxsize=4)
def _read_certificates(file: str) -> None:
    ssl.create_default_context(cafile=file)  # takes 20 ms, and each request asks


def _certificate_fault() -> str | None:
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if file:
        fix = "name a file of certificates in PEM form, or unset SSL_CERT_FILE"
        if not Path(file).is_file():
            return f"SSL_CERT_FILE={file}: no such file; {fix}"
        try:
            _read_certificates(file)
        except OSError as error:  # also of what is none
            return f"SSL_CERT_FILE={file}: {error.strerror or error}; {fix}"
    elif folder and not Path(folder).is_dir():
        return f"SSL_CERT_DIR={folder}: no such folder; name one of certificates, or unset it"
    return None
