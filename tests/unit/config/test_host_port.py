"""The one notation of a host and a port."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config.host_port import HostPort

MALFORMED = [
    "", "443", "a", "::1:443", "::1", "[::1", "[::1]", "[::1]443", "[::1]:", "a:", "a:x", "a:-1",
    "a:١", "a:443 ", "[127.0.0.1]:443", "[]:443", "[a]:443", "[::1]]:443", "a:b:1", "a:000443",
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:443", "127.0.0.1", 443),
        ("edge.example:65535", "edge.example", 65535),
        ("[2001:db8::1]:0", "2001:db8::1", 0),
        ("[fe80::1%eth0]:443", "fe80::1%eth0", 443),
        (":443", "", 443),
    ],
)
def test_host_and_port_are_parsed_and_printed_back(text: str, host: str, port: int) -> None:
    found = HostPort.parse(text)
    assert found == (host, port)
    assert str(found) == text


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_text_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not host:port") as error:
        HostPort.parse(text)
    assert repr(text) in str(error.value)


def test_a_port_beyond_65535_is_out_of_range() -> None:
    with pytest.raises(ValueError, match="out of range"):
        HostPort.parse("a:65536")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("edge.example", ("edge.example", 443)),
        ("edge.example:8443", ("edge.example", 8443)),
        ("[::1]", ("::1", 443)),
        ("[::1]:8443", ("::1", 8443)),
    ],
)
def test_an_authority_may_lack_the_port(text: str, expected: tuple[str, int]) -> None:
    assert HostPort.parse(text, default_port=443) == expected


@pytest.mark.parametrize("text", ["a:", "::1", "[::1", "[127.0.0.1]", "user@a:b", "a:x"])
def test_malformed_authorities_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not host:port"):
        HostPort.parse(text, default_port=443)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_every_address_survives_the_round_trip(ip: ipaddress.IPv4Address, port: int) -> None:
    found = HostPort.parse(str(HostPort(str(ip), port)))
    assert (found.ip, found.port) == (ip, port)


def test_a_name_is_no_address() -> None:
    assert HostPort("edge.example", 443).ip is None


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_socket_addresses_of_both_families(family: int, host: str) -> None:
    """Four fields with IPv6, two with IPv4; sockets take both back as two."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind(HostPort(host, 0))
        found = HostPort.of(sock.getsockname())
        assert found == (host, sock.getsockname()[1])
        assert HostPort.parse(str(found)) == found


def test_only_ipv6_addresses_have_brackets_in_urls() -> None:
    assert HostPort("::1", 443).url_host == "[::1]"
    assert HostPort("127.0.0.1", 443).url_host == "127.0.0.1"
