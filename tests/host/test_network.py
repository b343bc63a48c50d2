"""Proxies and certificates of the environment that cannot be used: one line, or no matter."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from radcap.config.compose import compose
from radcap.data.faults import DataError
from radcap.data.hub.answers import hub_session
from radcap.diagnosis.dataset import network
from radcap.host.network import network_fault, settle_proxies, without_faulty_network

NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.utils import close_session

    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    close_session()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ALL_PROXY", "ftp://127.0.0.1:9", "ALL_PROXY=ftp://127.0.0.1:9: no proxy of that kind"),
        ("all_proxy", "socks4://h:1", "all_proxy=socks4://h:1: no proxy of that kind"),
        ("https_proxy", "http://h:port", "https_proxy holds no address of a proxy"),
        ("HTTPS_PROXY", "://", "HTTPS_PROXY holds no address of a proxy"),
        ("HTTPS_PROXY", "http://[::1", "HTTPS_PROXY holds no address of a proxy"),
        ("http_proxy", "gopher://me:secret@h:1", "http_proxy=gopher://h:1: no proxy of that kind"),
        ("SSL_CERT_FILE", "/nonexistent/ca.pem", "SSL_CERT_FILE=/nonexistent/ca.pem: no such file"),
        ("SSL_CERT_FILE", __file__, f"SSL_CERT_FILE={__file__}: "),
        ("SSL_CERT_DIR", "/nonexistent", "SSL_CERT_DIR=/nonexistent: no such folder"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    fault = network_fault()
    assert fault is not None and fault.startswith(said) and "\n" not in fault
    assert "; " in fault and "secret" not in fault
    with pytest.raises(DataError) as caught:
        hub_session()
    assert str(caught.value) == fault
    (check,) = network(compose(["data=radimagenet_vqa"]))
    assert check.status == "fail" and fault.startswith(check.found) and fault.endswith(check.fix)
    (check,) = network(compose([]))
    assert check.status == "warn"
    with without_faulty_network():
        assert name not in os.environ
        hub_session()  # can be made
    assert os.environ[name] == value


@pytest.mark.parametrize("address", ["socks5://h:1", "socks5h://h:1", "socks://h:1"])
def test_socks_works_or_names_the_package(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("ALL_PROXY", address)
    assert network_fault() is None
    hub_session()
    assert os.environ["ALL_PROXY"] == address.replace("socks://", "socks5://")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "socksio" else find(name)
    )
    fault = network_fault()
    assert fault is not None and fault.endswith("pip install socksio")


@pytest.mark.parametrize(
    ("name", "value"),
    [("https_proxy", "127.0.0.1:9"), ("http_proxy", "http://h:1"), ("HTTPS_PROXY", "")],
)
def test_what_can_be_used_stands(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    settle_proxies()
    assert network_fault() is None and os.environ[name] == value
    assert not list(network(compose([])))
    with without_faulty_network():
        assert os.environ[name] == value


def test_a_proxy_for_nothing_is_no_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ALL_PROXY", "ftp://h:1")
    monkeypatch.setenv("NO_PROXY", "*")
    assert network_fault() is None
    hub_session()
