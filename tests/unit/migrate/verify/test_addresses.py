"""Addresses of a configuration and their stand-ins."""

from __future__ import annotations

import socket

import pytest

from quicedge.migrate.verify.addresses import Listeners, Ports, canonical_address, split_url


@pytest.fixture
def ports():
    ports = Ports()
    yield ports
    ports.close()


@pytest.mark.parametrize(
    ("text", "canonical"),
    [("App", "app:80"), ("10.0.0.1:8000", "10.0.0.1:8000"), ("[::1]", "[::1]:80"),
     ("[::1]:81", "[::1]:81"), ("unix:/run/a.sock", "unix:/run/a.sock"),
     ("unix:/run/a.sock:", "unix:/run/a.sock")],
)  # fmt: skip
def test_an_address_has_one_form(text, canonical):
    assert canonical_address(text, 80) == canonical


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("http://app/x?y", ("http", "app", "/x?y")),
        ("http://10.0.0.1:80", ("http", "10.0.0.1:80", "")),
        ("http://unix:/run/a.sock:/x", ("http", "unix:/run/a.sock", "/x")),
        ("app:9000", ("", "app:9000", "")),
    ],
)
def test_a_url_is_split_where_nginx_splits_it(text, parts):
    assert split_url(text) == parts


def test_a_port_is_held_for_a_server_and_from_all_others(ports):
    port = ports.take()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port)).close()
    # create_server sets SO_REUSEADDR.
    with socket.create_server(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
        pass


def test_ipv4_and_ipv6_of_one_port_are_one_listener(ports):
    listeners = Listeners(ports)
    first = listeners.at("443", tls=True, h2=False)
    assert listeners.at("[::]:443", tls=True, h2=True) is first
    assert listeners.at("unix:/run/nginx.sock", tls=False, h2=False) is None
    inner = listeners.at("10.0.0.1:443", tls=True, h2=False)
    assert inner is not first
    assert listeners.of(443) is first
    assert first is not None
    assert (first.tls, first.h2) == (True, True)
    assert listeners.of(80) is None
