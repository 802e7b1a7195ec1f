"""The copy of a capture for tshark, and captures themselves."""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interop.runner.dissection import only_client, unpadded_length, write_dissectible
from interop.runner.packet import Packet
from interop.runner.pcap import PcapWriter, read_pcap
from tests.support.frames import udp_frame

V1, V2 = 1, 0x6B3343CF
CLIENT, SERVER = "193.167.0.100", "193.167.100.100"


def long_packet(first: int, version: int, body: int, *, token: bytes | None = None) -> bytes:
    head = struct.pack("!BIB", first, version, 8) + b"d" * 8 + b"\0"
    if token is not None:
        head += bytes([len(token)]) + token
    return head + (0x4000 | body).to_bytes(2, "big") + b"\xaa" * body


INITIAL = long_packet(0xC0, V1, 100, token=b"tok")
HANDSHAKE = long_packet(0xE0, V1, 70)
SHORT = b"\x40" + b"\xbb" * 30


@pytest.mark.parametrize(
    "packets",
    [
        INITIAL,
        INITIAL + HANDSHAKE,
        long_packet(0xD0, V2, 100, token=b"") + long_packet(0xF0, V2, 50),
    ],
)
def test_zeros_behind_long_headers_are_padding(packets: bytes) -> None:
    assert unpadded_length(packets + bytes(200)) == len(packets)
    assert unpadded_length(packets) == len(packets)


@pytest.mark.parametrize(
    "payload",
    [
        INITIAL + SHORT,
        SHORT + bytes(30),
        bytes(50),
        b"\xc0WAIT\0\0" + bytes(100),  # a version that nobody knows
        b"\x80\0\0\0\0\0\0" + bytes(8),  # Version Negotiation
        long_packet(0xF0, V1, 20) + bytes(30),  # Retry
        INITIAL[:-20],
    ],
)
def test_anything_else_stays(payload: bytes) -> None:
    assert unpadded_length(payload) == len(payload)


@given(st.binary(max_size=80))
def test_any_payload_has_a_length(payload: bytes) -> None:
    assert 0 <= unpadded_length(payload) <= len(payload)


def capture(path: Path, *frames: bytes) -> Path:
    writer = PcapWriter(path)
    for number, frame in enumerate(frames):
        writer.write(1000.5 + number, frame)
    writer.close()
    return path


def test_a_capture_is_read_as_written(tmp_path: Path) -> None:
    frame = udp_frame(CLIENT, 5000, SERVER, 443, SHORT)
    assert list(read_pcap(capture(tmp_path / "a.pcap", frame, frame))) == [
        (1000.5, frame),
        (1001.5, frame),
    ]
    (tmp_path / "b.pcap").write_bytes(b"not a capture")
    with pytest.raises(ValueError, match=r"b\.pcap"):
        list(read_pcap(tmp_path / "b.pcap"))


def test_a_rebound_client_gets_its_address_back(tmp_path: Path) -> None:
    left = capture(tmp_path / "left.pcap", udp_frame(CLIENT, 5000, SERVER, 443, SHORT))
    client = only_client(left)
    assert client == (ipaddress.IPv4Address(CLIENT), 5000)
    right = capture(
        tmp_path / "right.pcap",
        udp_frame("193.167.0.7", 77, SERVER, 443, INITIAL + bytes(9)),
        udp_frame(SERVER, 443, "193.167.0.7", 77, SHORT),
    )
    write_dissectible(right, tmp_path / "copy.pcap", client)
    frames = [frame for _, frame in read_pcap(tmp_path / "copy.pcap")]
    padded = udp_frame(CLIENT, 5000, SERVER, 443, INITIAL + bytes(9))
    assert frames[0] == padded[:-9]
    back = Packet(frames[1])
    assert (str(back.destination), back.destination_port) == (CLIENT, 5000)


def test_several_clients_keep_their_addresses(tmp_path: Path) -> None:
    frames = [udp_frame(CLIENT, port, SERVER, 443, SHORT) for port in (5000, 6000)]
    assert only_client(capture(tmp_path / "left.pcap", *frames)) is None
    write_dissectible(tmp_path / "left.pcap", tmp_path / "copy.pcap", None)
    assert [frame for _, frame in read_pcap(tmp_path / "copy.pcap")] == frames
