"""What the kernel knows of a TCP connection: TCP_INFO, and the bytes in its send queue.

`struct tcp_info` of Linux only ever grows at its end. An older kernel fills a shorter one: fields
that it does not have are None. Other systems have nothing comparable: `read_info` returns None.
Each call is one system call of about a microsecond; read facts on demand, not per request.
"""

from __future__ import annotations

import socket
import struct
import sys
from enum import IntEnum
from fcntl import ioctl
from typing import Final, NamedTuple, Protocol

import structlog

log = structlog.get_logger(__name__)

IS_LINUX: Final = sys.platform == "linux"
TCP_INFO: Final = 11
TCP_CONGESTION: Final = getattr(socket, "TCP_CONGESTION", 13)
SIOCOUTQ: Final = 0x5411
"""ioctl: bytes written and not acknowledged (tcp(7))."""

_CONGESTION_NAME_SIZE = 16
_INFINITE_SSTHRESH = 0x7FFFFFFF
_UNLIMITED_RATE = (1 << 64) - 1
_UNKNOWN_RTT = (1 << 32) - 1
_MICROSECONDS = 1e-6


class CongestionState(IntEnum):
    """`tcpi_ca_state`: how the sender takes the acknowledgments that arrive."""

    OPEN = 0
    DISORDER = 1
    CONGESTION_WINDOW_REDUCED = 2
    RECOVERY = 3
    LOSS = 4


class Socket(Protocol):
    """A TCP socket, or the socket of an asyncio transport."""

    def fileno(self) -> int: ...

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


class TcpInfo(NamedTuple):
    """`struct tcp_info` under the kernel's names and in its units; properties convert them.

    Times are in microseconds unless the name says otherwise, rates in bytes per second, windows in
    segments where the kernel counts segments. None: unknown to this kernel.
    """

    state: int
    ca_state: int
    retransmits: int
    """Consecutive retransmission timeouts without an acknowledgment."""
    probes: int
    """Unanswered window or keep-alive probes."""
    backoff: int
    """Doublings of the retransmission timeout."""
    options: int
    window_scales: int
    flags: int
    rto: int
    ato: int
    snd_mss: int
    rcv_mss: int
    unacked: int
    """Segments sent and not cumulatively acknowledged."""
    sacked: int
    lost: int
    """Segments in flight that are taken for lost."""
    retrans: int
    """Segments in flight that are retransmissions."""
    fackets: int
    last_data_sent: int
    """Milliseconds ago; so are the next three."""
    last_ack_sent: int
    last_data_recv: int
    last_ack_recv: int
    pmtu: int
    rcv_ssthresh: int
    rtt: int
    rttvar: int
    snd_ssthresh: int
    snd_cwnd: int
    advmss: int
    reordering: int
    """Segments by which the path is taken to reorder."""
    rcv_rtt: int
    rcv_space: int
    total_retrans: int
    """Segments retransmitted since the start."""
    pacing_rate: int | None = None
    max_pacing_rate: int | None = None
    bytes_acked: int | None = None
    bytes_received: int | None = None
    segs_out: int | None = None
    segs_in: int | None = None
    notsent_bytes: int | None = None
    min_rtt: int | None = None
    data_segs_in: int | None = None
    data_segs_out: int | None = None
    delivery_rate: int | None = None
    busy_time: int | None = None
    """While anything was in the send queue."""
    rwnd_limited: int | None = None
    """Part of `busy_time`: the client's receive window was full."""
    sndbuf_limited: int | None = None
    """Part of `busy_time`: the send buffer was full, and the window was not."""
    delivered: int | None = None
    delivered_ce: int | None = None
    """Segments that the client reported as Congestion Experienced."""
    bytes_sent: int | None = None
    """Including retransmissions."""
    bytes_retrans: int | None = None
    dsack_dups: int | None = None
    """Segments that the client received twice: retransmissions that were not needed."""
    reord_seen: int | None = None
    """Times that acknowledgments showed reordering."""
    rcv_ooopack: int | None = None
    """Segments received out of order."""
    snd_wnd: int | None = None
    """The client's receive window, in bytes."""
    rcv_wnd: int | None = None
    """Our receive window, in bytes."""
    rehash: int | None = None
    total_rto: int | None = None
    """Retransmission timeouts since the start, of SYN and SYN-ACK too."""
    total_rto_recoveries: int | None = None
    total_rto_time: int | None = None
    """Milliseconds spent in recoveries from them."""
    received_ce: int | None = None
    """Segments received with Congestion Experienced; this and the rest: AccECN (RFC 9768)."""
    delivered_e1_bytes: int | None = None
    delivered_e0_bytes: int | None = None
    delivered_ce_bytes: int | None = None
    received_e1_bytes: int | None = None
    received_e0_bytes: int | None = None
    received_ce_bytes: int | None = None

    @property
    def smoothed_rtt(self) -> float | None:
        """Seconds; None before the first sample."""
        return self.rtt * _MICROSECONDS if self.rtt else None

    @property
    def rtt_variance(self) -> float | None:
        """Seconds; None before the first sample."""
        return self.rttvar * _MICROSECONDS if self.rtt else None

    @property
    def minimum_rtt(self) -> float | None:
        """Seconds, the minimum of the last minutes (`net.ipv4.tcp_min_rtt_wlen`)."""
        found = self.min_rtt
        return None if found is None or found == _UNKNOWN_RTT else found * _MICROSECONDS

    @property
    def congestion_window(self) -> int:
        """Bytes."""
        return self.snd_cwnd * self.snd_mss

    @property
    def ssthresh(self) -> int | None:
        """Bytes; None before the first congestion event."""
        found = self.snd_ssthresh
        return None if found >= _INFINITE_SSTHRESH else found * self.snd_mss

    @property
    def bytes_in_flight(self) -> int:
        """Bytes that are taken to be in the network."""
        segments = self.unacked - self.sacked - self.lost + self.retrans
        return max(segments, 0) * self.snd_mss

    @property
    def pacing_bits(self) -> int | None:
        """Bits per second; None when sending is not paced."""
        rate = self.pacing_rate
        return None if rate is None or rate == _UNLIMITED_RATE else rate * 8

    @property
    def delivery_bits(self) -> int | None:
        """Bits per second of the latest sample; None before the first."""
        return self.delivery_rate * 8 if self.delivery_rate else None

    @property
    def busy_seconds(self) -> float | None:
        return _seconds(self.busy_time)

    @property
    def receive_window_limited_seconds(self) -> float | None:
        return _seconds(self.rwnd_limited)

    @property
    def send_buffer_limited_seconds(self) -> float | None:
        return _seconds(self.sndbuf_limited)

    @property
    def in_recovery(self) -> bool:
        """Whether losses are being repaired."""
        return self.ca_state >= CongestionState.RECOVERY


def _seconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds * _MICROSECONDS


_LAYOUT = struct.Struct("=8B24I4Q6I4Q2I2Q6I2H9I")
"""The longest known `struct tcp_info`; the last number is bit fields that differ by release."""
_MINIMUM_SIZE = 104
"""Up to `tcpi_total_retrans`: Linux 2.6.10."""
_RTT = struct.Struct("=68xI")
"""Up to `tcpi_rtt`."""
_DEFAULTS = len(TcpInfo._field_defaults)


def _ends() -> tuple[int, ...]:
    """Where each field beyond the minimum ends."""
    sizes = [8] * 4 + [4] * 6 + [8] * 4 + [4] * 2 + [8] * 2 + [4] * 6 + [2] * 2 + [4] * 8
    ends, at = [], _MINIMUM_SIZE
    for size in sizes[:_DEFAULTS]:
        at += size
        ends.append(at)
    return tuple(ends)


_ENDS: Final = _ends()


def parse_info(data: bytes) -> TcpInfo | None:
    """Parse what TCP_INFO returned; None when it is too short to be of use."""
    size = len(data)
    if size >= _LAYOUT.size:
        return TcpInfo(*_LAYOUT.unpack_from(data)[:-1])
    if size < _MINIMUM_SIZE:
        return None
    values = _LAYOUT.unpack(data + bytes(_LAYOUT.size - size))
    known = sum(end <= size for end in _ENDS)
    return TcpInfo(*values[: len(TcpInfo._fields) - _DEFAULTS + known])


def read_info(sock: Socket) -> TcpInfo | None:
    """The kernel's facts about a connection; None where there are none."""
    if not IS_LINUX:
        _report_once()
        return None
    try:
        return parse_info(sock.getsockopt(socket.IPPROTO_TCP, TCP_INFO, _LAYOUT.size))
    except OSError:
        return None  # closed, or not TCP


def read_rtt(sock: Socket) -> float | None:
    """The smoothed round trip alone, in seconds, for a fraction of the cost; None: unknown."""
    if not IS_LINUX:
        return None
    try:
        facts = sock.getsockopt(socket.IPPROTO_TCP, TCP_INFO, _RTT.size)
    except OSError:
        return None  # closed, or not TCP
    (rtt,) = _RTT.unpack(facts)
    return rtt * _MICROSECONDS or None


def unacknowledged(sock: Socket) -> int | None:
    """Bytes that were written and that the client has not acknowledged; None: unknown."""
    if not IS_LINUX:
        return None
    try:
        return int.from_bytes(ioctl(sock.fileno(), SIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):
        return None  # closed


def congestion_control(sock: Socket) -> str | None:
    """The name of the connection's congestion control."""
    try:
        name = sock.getsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, _CONGESTION_NAME_SIZE)
    except OSError:
        return None
    return name.partition(b"\0")[0].decode("ascii", "replace") or None


_reported = False


def _report_once() -> None:
    global _reported
    if not _reported:
        _reported = True
        log.info("this system has no TCP_INFO; TCP connections are shown without RTT and losses")
