"""The PROXY protocol: what headers say, and which are refused."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config.host_port import HostPort
from quicedge.config.limits import PROXY_HEADER_MAX
from quicedge.tcp.proxy_protocol import ProxyHeader, ProxyHeaderError, crc32c, read_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V4 = (
    socket.inet_aton("192.0.2.1") + socket.inet_aton("198.51.100.2") + struct.pack("!HH", 1234, 443)
)


def v2(kind: int, addresses: bytes, tlvs: bytes = b"", command: int = 0x21) -> bytes:
    body = addresses + tlvs
    return SIGNATURE + struct.pack("!BBH", command, kind, len(body)) + body


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def with_checksum(error: int = 0) -> bytes:
    blank = v2(0x11, V4, tlv(0x04, b"noop") + tlv(0x03, bytes(4)))
    return blank[:-4] + struct.pack("!I", crc32c(blank) ^ error)


@pytest.mark.parametrize(
    ("data", "source", "destination"),
    [
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 1234 443\r\n", "192.0.2.1:1234", "198.51.100.2:443"),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", "[2001:db8::1]:1",
         "[2001:db8::2]:65535"),
        (b"PROXY UNKNOWN\r\n", None, None),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None, None),
        (v2(0x11, V4), "192.0.2.1:1234", "198.51.100.2:443"),
        (v2(0x11, V4, tlv(0x02, b"example.com") + tlv(0xEA, bytes(100))), "192.0.2.1:1234",
         "198.51.100.2:443"),
        (v2(0x21, ipaddress.ip_address("2001:db8::1").packed * 2 + struct.pack("!HH", 5, 6)),
         "[2001:db8::1]:5", "[2001:db8::1]:6"),
        (v2(0x31, bytes(216)), None, None),
        (v2(0x00, b""), None, None),
        (v2(0x11, V4, command=0x20), None, None),
        (v2(0x00, b"anything", command=0x20), None, None),
        (with_checksum(), "192.0.2.1:1234", "198.51.100.2:443"),
    ],
)  # fmt: skip
def test_a_header_says_who_the_client_is(
    data: bytes, source: str | None, destination: str | None
) -> None:
    expected = ProxyHeader(
        len(data),
        *(None if text is None else HostPort.parse(text) for text in (source, destination)),
    )
    assert read_header(data + b"\x16\x03\x01") == expected
    for cut in range(len(data)):
        assert read_header(data[:cut]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1234\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 01234 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1234 65536\r\n",
        b"PROXY TCP4 192.0.2.256 198.51.100.2 1234 443\r\n",
        b"PROXY TCP4 ::1 ::2 1234 443\r\n",
        b"PROXY TCP6 192.0.2.1 198.51.100.2 1234 443\r\n",
        b"PROXY TCP4  192.0.2.1 198.51.100.2 1234 443\r\n",
        b"PROXY UDP4 192.0.2.1 198.51.100.2 1234 443\r\n",
        b"PROXY " + b"x" * 200,
        v2(0x11, V4, command=0x31),
        v2(0x11, V4, command=0x22),
        v2(0x12, V4),
        v2(0x11, V4[:-1]),
        v2(0x11, V4, b"\x02\0\x10short"),
        v2(0x11, V4, b"\x02\0"),
        v2(0x11, V4, tlv(0x03, b"abc")),
        v2(0x11, V4, tlv(0x04, bytes(PROXY_HEADER_MAX))),
        with_checksum(error=1),
    ],
)
def test_other_headers_are_refused(data: bytes) -> None:
    with pytest.raises(ProxyHeaderError):
        read_header(data)


def test_an_oversized_header_is_refused_before_it_has_arrived() -> None:
    with pytest.raises(ProxyHeaderError):
        read_header(SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 65535))


def test_the_checksum_is_that_of_castagnoli() -> None:
    assert crc32c(b"123456789") == 0xE3069283


ADDRESSES = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)),
    st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6)),
)
PORTS = st.integers(0, 65535)


@given(ADDRESSES, PORTS, PORTS, st.lists(st.binary(max_size=200), max_size=4), st.booleans())
def test_every_pair_of_addresses_is_read_back(ends, source, destination, values, text) -> None:
    version = ends[0].version
    if text:
        data = f"PROXY TCP{version} {ends[0]} {ends[1]} {source} {destination}\r\n".encode()
    else:
        addresses = ends[0].packed + ends[1].packed + struct.pack("!HH", source, destination)
        tlvs = b"".join(tlv(0xE0, value) for value in values)
        data = v2(0x11 if version == 4 else 0x21, addresses, tlvs)
    found = read_header(data)
    assert found is not None
    assert found.size == len(data)
    for end, host, port in (
        (found.source, ends[0], source),
        (found.destination, ends[1], destination),
    ):
        assert end is not None
        plain = getattr(host, "ipv4_mapped", None) or host
        assert (ipaddress.ip_address(end.host), end.port) == (plain, port)


@pytest.mark.parametrize(
    "data",
    [
        b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 1234 443\r\n",
        v2(0x21, b"".join(bytes(10) + b"\xff\xff" + V4[at : at + 4] for at in (0, 4)) + V4[8:]),
    ],
)
def test_an_ipv4_mapped_client_is_known_by_its_ipv4_address(data: bytes) -> None:
    header = read_header(data)
    assert header is not None
    assert header.source == HostPort("192.0.2.1", 1234)
    assert header.destination == HostPort("198.51.100.2", 443)


@given(st.one_of(st.binary(), st.binary().map(lambda rest: SIGNATURE + rest),
                 st.binary().map(lambda rest: b"PROXY " + rest)))  # fmt: skip
def test_no_input_takes_more_than_a_header_or_raises_anything_else(data: bytes) -> None:
    with contextlib.suppress(ProxyHeaderError):
        found = read_header(data)
        if found is None:
            assert len(data) < PROXY_HEADER_MAX
        else:
            assert found.size <= min(len(data), PROXY_HEADER_MAX)
