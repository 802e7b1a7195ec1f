"""Frames rewritten in place keep right checksums."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interop.runner.packet import Packet
from tests.support.frames import udp_frame

PORTS = st.integers(1, 65535)


def ones_complement(data: bytes) -> int:
    padded = data + b"\0" * (len(data) % 2)
    total = sum(word for (word,) in struct.iter_unpack("!H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksums_hold(packet: Packet) -> bool:
    data = bytes(packet.data)
    if packet.version == 4:
        header, addresses, l4 = data[14:34], data[26:34], data[34:]
        if ones_complement(header) != 0xFFFF:
            return False
    else:
        addresses, l4 = data[22:54], data[54:]
    return ones_complement(addresses + struct.pack("!HH", 17, len(l4)) + l4) == 0xFFFF


@given(st.binary(min_size=1, max_size=64), PORTS, PORTS, st.integers(0, 2**32 - 1))
def test_translation_keeps_checksums(
    payload: bytes, port: int, new_port: int, new_address: int
) -> None:
    packet = Packet(udp_frame("193.167.0.100", port, "193.167.100.100", 443, payload))
    assert checksums_hold(packet)
    packet.set_source(ipaddress.IPv4Address(new_address), new_port)
    packet.set_destination(ipaddress.IPv4Address(new_address ^ 0xFF), port)
    assert packet.hop(2)
    assert checksums_hold(packet)
    assert (int(packet.source), packet.source_port) == (new_address, new_port)
    assert packet.destination_port == port
    assert bytes(packet.payload) == payload


@given(st.binary(min_size=1, max_size=64), st.data(), st.sampled_from(("v4", "v6")))
def test_a_flipped_byte_has_a_right_checksum(payload: bytes, data: st.DataObject, ip: str) -> None:
    ends = ("193.167.0.100", "193.167.100.100") if ip == "v4" else ("fd00::1", "fd00::2")
    packet = Packet(udp_frame(ends[0], 5000, ends[1], 443, payload))
    offset = data.draw(st.integers(0, len(payload) - 1))
    value = data.draw(st.integers(0, 255))
    packet.flip(offset, value)
    assert checksums_hold(packet)
    assert bytes(packet.payload) == payload[:offset] + bytes([value]) + payload[offset + 1 :]


def test_the_last_hop_is_refused() -> None:
    packet = Packet(udp_frame("193.167.0.100", 1, "193.167.100.100", 443, b"x", ttl=3))
    assert packet.hop(2)
    assert not packet.hop(1)


def test_version_negotiation_is_known() -> None:
    frame = udp_frame("193.167.100.100", 443, "193.167.0.100", 1, b"\x80\0\0\0\0\0\0\0\0\0\x01")
    assert Packet(frame).is_version_negotiation
    frame = udp_frame("193.167.100.100", 443, "193.167.0.100", 1, b"\xc0\0\0\0\x01")
    assert not Packet(frame).is_version_negotiation


def test_ethernet_padding_is_cut() -> None:
    frame = udp_frame("193.167.100.100", 443, "193.167.0.100", 1, b"x")
    assert Packet(frame + bytes(20)).data == frame


@pytest.mark.parametrize("frame", [b"", bytes(12) + b"\x08\x06" + bytes(28)])
def test_what_is_not_ip_is_refused(frame: bytes) -> None:
    with pytest.raises(ValueError, match="not an IP packet"):
        Packet(frame)


def test_a_cut_packet_is_refused() -> None:
    frame = udp_frame("193.167.100.100", 443, "193.167.0.100", 1, b"abc")
    with pytest.raises(ValueError, match="cuts an IP packet"):
        Packet(frame[:-1])


@given(st.binary(max_size=120))
def test_any_frame_is_a_packet_or_refused(tail: bytes) -> None:
    for ethertype in (b"\x08\0", b"\x86\xdd"):
        try:
            packet = Packet(bytes(12) + ethertype + tail)
        except ValueError:
            continue
        if packet.is_udp:
            assert 0 <= packet.source_port <= 65535
            assert isinstance(packet.is_version_negotiation, bool)
