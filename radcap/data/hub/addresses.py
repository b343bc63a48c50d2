"""Addresses that the Hub gives, and the address of the Hub."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urljoin, urlsplit

from radcap.data.faults import DataError
from radcap.files.names import shown

_ADDRESS = re.compile(r"[!-\[\]-~]{1,8000}", re.ASCII)  # no backslash: it is read in two ways
_HOST = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)


def endpoint() -> str:
    """The Hub's address (HF_ENDPOINT).

    Raises:
        DataError: it is none.
    """
    from huggingface_hub import constants

    address = str(constants.ENDPOINT)
    if fault := _fault_in_address(address):
        raise DataError(f"HF_ENDPOINT={shown(address)} cannot be used: {fault}")
    return address


def redirected(url: str, location: str) -> str:
    """Where a redirect leads.

    Raises:
        DataError: to no address, or away from TLS.
    """
    try:
        following = urljoin(url, location) if location else ""
    except ValueError:
        following = ""
    fault = _fault_in_address(following)
    if fault is None and urlsplit(following).username is not None:
        fault = "it names a user"
    if fault is None and url.startswith("https:") and not following.startswith("https:"):
        fault = "it leaves https"
    if fault is not None:
        raise DataError(
            f"{without_query(url)} redirects to {shown(without_query(location))}: {fault}"
        )
    return following


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port: a token for one origin is for no other."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def without_query(url: str) -> str:
    """An address for a message: what follows the question mark may be as good as a password."""
    return url.partition("?")[0]


def _fault_in_address(url: str) -> str | None:
    """What keeps an address from being asked; None if nothing."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
        if ":" in host:
            ipaddress.ip_address(host)
    except ValueError:
        return "it is no address"
    if parts.scheme not in ("http", "https"):
        return "it is no http or https address"
    if not _ADDRESS.fullmatch(url) or not (":" in host or _HOST.fullmatch(host)):
        return "it is no address"
    return None
