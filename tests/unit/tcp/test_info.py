"""The kernel's facts about TCP connections, from real sockets and from kernels of other ages."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator

import pytest

from quicedge.tcp import info
from quicedge.tcp.info import (
    TcpInfo,
    congestion_control,
    parse_info,
    read_info,
    read_rtt,
    unacknowledged,
)
from tests.support.peers import wait_until

linux = pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux's")

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The server's and the client's end of a connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        with server, client:
            yield server, client


def found(sock: socket.socket) -> TcpInfo:
    facts = read_info(sock)
    assert facts is not None
    return facts


@linux
def test_facts_of_a_new_connection(pair: Pair) -> None:
    server, _ = pair
    facts = found(server)
    assert facts.snd_mss > 500
    assert facts.congestion_window == facts.snd_cwnd * facts.snd_mss
    assert facts.smoothed_rtt is not None, "the SYN-ACK was the first sample"
    assert 0 < facts.smoothed_rtt < 5
    assert read_rtt(server) == facts.smoothed_rtt
    assert facts.ssthresh is None
    assert facts.delivery_bits is None
    assert facts.bytes_in_flight == facts.total_retrans == 0
    assert not facts.in_recovery


@linux
def test_acknowledged_bytes_leave_the_send_queue(pair: Pair) -> None:
    server, client = pair
    server.sendall(bytes(10_000))
    wait_until(lambda: unacknowledged(server) == 0, "the acknowledgment")
    assert client.recv(20_000, socket.MSG_WAITALL | socket.MSG_PEEK | socket.MSG_DONTWAIT)
    facts = found(server)
    assert facts.bytes_acked == 10_000
    assert facts.bytes_sent == 10_000
    assert facts.bytes_retrans == 0
    assert facts.minimum_rtt is not None
    assert facts.minimum_rtt <= facts.rtt * 1e-6 + 1e-6
    assert facts.delivery_bits is not None


@linux
def test_a_client_that_does_not_read_shows_as_its_receive_window(pair: Pair) -> None:
    server, client = pair
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    server.setblocking(False)
    written = 0
    try:
        while written < 50_000_000:
            written += server.send(bytes(65536))
    except BlockingIOError:
        pass

    def is_limited() -> bool:
        facts = found(server)
        busy = facts.busy_seconds
        limited = facts.receive_window_limited_seconds
        return bool(busy and limited and limited > busy / 2)

    wait_until(is_limited, "time limited by the receive window")
    assert unacknowledged(server)

    def adds_up() -> bool:
        return written == (unacknowledged(server) or 0) + (found(server).bytes_acked or 0)

    wait_until(adds_up, "written bytes to be either acknowledged or waiting")


@linux
def test_the_congestion_control_is_told_by_name(pair: Pair) -> None:
    server, _ = pair
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
    assert congestion_control(server) == "reno"


@linux
def test_a_closed_socket_has_no_facts(pair: Pair) -> None:
    server, _ = pair
    server.close()
    assert read_info(server) is None
    assert read_rtt(server) is None
    assert unacknowledged(server) is None
    assert congestion_control(server) is None


@linux
def test_a_udp_socket_has_no_facts() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert read_info(sock) is None
        assert read_rtt(sock) is None
        assert congestion_control(sock) is None


@linux
def test_every_field_of_this_kernel_is_known(pair: Pair) -> None:
    server, _ = pair
    size = len(server.getsockopt(socket.IPPROTO_TCP, info.TCP_INFO, 1024))
    known = [value for value in found(server) if value is not None]
    if size >= info._LAYOUT.size:
        assert len(known) == len(TcpInfo._fields)
    else:
        assert len(known) < len(TcpInfo._fields)


AGES = {
    104: ("total_retrans", "pacing_rate"),  # 2.6.10
    120: ("max_pacing_rate", "bytes_acked"),  # 3.15
    148: ("notsent_bytes", "min_rtt"),
    160: ("data_segs_out", "delivery_rate"),  # 4.6
    192: ("sndbuf_limited", "delivered"),  # 4.10
    224: ("reord_seen", "rcv_ooopack"),  # 4.19
    232: ("snd_wnd", "rcv_wnd"),  # 5.4
    240: ("rehash", "total_rto"),  # 6.2
    248: ("total_rto_time", "received_ce"),  # 6.7
    276: ("received_ce_bytes", None),
    280: ("received_ce_bytes", None),  # 6.18
    320: ("received_ce_bytes", None),
}


@pytest.mark.parametrize("size", AGES)
def test_what_an_older_kernel_does_not_tell_is_unknown(size: int) -> None:
    last, first_unknown = AGES[size]
    facts = parse_info(b"\1" * size)
    assert facts is not None
    at = TcpInfo._fields.index(last)
    assert all(value is not None for value in facts[: at + 1])
    assert all(value is None for value in facts[at + 1 :])
    assert first_unknown is None or getattr(facts, first_unknown) is None


def test_a_field_that_is_cut_is_unknown() -> None:
    facts = parse_info(b"\1" * 110)
    assert facts is not None
    assert facts.pacing_rate is None


def test_a_structure_from_before_linux_2_6_10_is_of_no_use() -> None:
    assert parse_info(b"\1" * 100) is None


def test_markers_for_unknown_values_are_not_shown_as_numbers() -> None:
    data = bytearray(280)
    struct.pack_into("=I", data, 8 + 4 * 17, 0x7FFFFFFF)  # snd_ssthresh
    struct.pack_into("=Q", data, 104, (1 << 64) - 1)  # pacing_rate
    struct.pack_into("=I", data, 148, 0xFFFFFFFF)  # min_rtt
    facts = parse_info(bytes(data))
    assert facts is not None
    assert facts.snd_ssthresh == 0x7FFFFFFF
    assert facts.min_rtt == 0xFFFFFFFF
    assert facts.pacing_rate == (1 << 64) - 1
    assert facts.ssthresh is None
    assert facts.minimum_rtt is None
    assert facts.pacing_bits is None
    assert facts.smoothed_rtt is None
    assert facts.rtt_variance is None


def test_values_are_converted_to_seconds_bytes_and_bits() -> None:
    facts = TcpInfo(*[0] * 32)._replace(
        rtt=12_500, rttvar=250, snd_cwnd=10, snd_mss=1448, snd_ssthresh=7, unacked=9, sacked=2,
        lost=1, retrans=1, pacing_rate=1000, delivery_rate=500, busy_time=3_000_000,
        rwnd_limited=1_000_000, sndbuf_limited=500_000, min_rtt=10_000, ca_state=4,
    )  # fmt: skip
    assert facts.smoothed_rtt == pytest.approx(0.0125)
    assert facts.rtt_variance == pytest.approx(0.00025)
    assert facts.minimum_rtt == pytest.approx(0.01)
    assert facts.congestion_window == 14_480
    assert facts.ssthresh == 10_136
    assert facts.bytes_in_flight == 7 * 1448
    assert facts.pacing_bits == 8000
    assert facts.delivery_bits == 4000
    assert facts.busy_seconds == pytest.approx(3.0)
    assert facts.receive_window_limited_seconds == pytest.approx(1.0)
    assert facts.send_buffer_limited_seconds == pytest.approx(0.5)
    assert facts.in_recovery


def test_another_system_has_no_facts_and_says_so_once(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(info, "IS_LINUX", False)
    monkeypatch.setattr(info, "_reported", False)
    monkeypatch.setattr(info.log, "info", said.append)
    server, _ = pair
    assert read_info(server) is None
    assert read_info(server) is None
    assert unacknowledged(server) is None
    assert len(said) == 1
