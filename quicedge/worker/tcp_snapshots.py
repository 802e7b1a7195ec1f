"""Snapshots of connections on TCP: the kernel's facts under the names of QUIC's statistics."""

from __future__ import annotations

import time

from msgspec import structs

from quicedge.downstream.http2 import Http2Session
from quicedge.tcp.connection import TcpConnection
from quicedge.tcp.info import TcpInfo
from quicedge.tcp.limits import limited_seconds, main_limit
from quicedge.telemetry.comparison import Sample, goodput
from quicedge.telemetry.metrics import Metrics
from quicedge.telemetry.protocols import TransportKind, http_protocol
from quicedge.telemetry.stats import ConnectionState, ConnectionStats, Direction
from quicedge.worker.stream_snapshots import observed_of, stream_stats
from quicedge.worker.tcp_front import TcpSession


def tcp_sample(connection: TcpConnection, session: TcpSession) -> Sample:
    """What a connection was like so far; reads the kernel's facts anew."""
    info = connection.info(fresh=True)
    since_first_packet = connection.created_at - (connection.syn_rtt or 0.0)
    first_byte_at = session.client.first_byte_at
    established_at = connection.created_at + connection.handshake_seconds
    return Sample(
        smoothed_rtt=info.smoothed_rtt if info is not None else None,
        handshake_seconds=established_at - since_first_packet,
        first_byte_seconds=(
            first_byte_at - since_first_packet if first_byte_at is not None else None
        ),
        goodput=goodput(info.bytes_acked, info.busy_seconds) if info is not None else None,
        packets_sent=(info.data_segs_out or 0) if info is not None else 0,
        packets_lost=info.total_retrans if info is not None else 0,
    )


def count_tcp(
    metrics: Metrics, connection: TcpConnection, session: TcpSession, sample: Sample, now: float
) -> None:
    """Record the metrics of a connection that has ended."""
    observed = observed_of(sample, now - connection.created_at)
    info = connection.info()
    if info is not None:
        observed["congestion_window_bytes"] = info.congestion_window
        if info.minimum_rtt is not None:
            observed["min_rtt_seconds"] = info.minimum_rtt
    metrics.connection(
        metrics.listener(connection.listener, TransportKind.TCP),
        protocol=http_protocol(session.client.http_version),
        observed=observed,
    )


def tcp_stats(
    connection: TcpConnection,
    session: TcpSession,
    *,
    worker: int,
    now: float,
    detail: bool = False,
) -> ConnectionStats:
    """A snapshot of a connection; `detail` adds its requests. `now` is the loop's time."""
    age, wall = now - connection.created_at, time.time()
    sample = tcp_sample(connection, session)
    info = connection.info()
    stats = ConnectionStats(
        id=connection.id,
        worker=worker,
        time=wall,
        transport=TransportKind.TCP,
        protocol=http_protocol(session.client.http_version),
        tls_version=connection.tls_version,
        remote_address=str(connection.remote),
        local_address=str(connection.local),
        path_validated=True,
        alpn=connection.alpn,
        cipher=connection.cipher,
        group=connection.group,
        hello_retry=connection.hello_retried,
        sni=connection.server_name,
        resumed=connection.resumed,
        early_data=False,
        state=ConnectionState.CONNECTED,
        created_at=wall - age,
        age_seconds=age,
        handshake_seconds=sample.handshake_seconds,
        first_byte_seconds=sample.first_byte_seconds,
        bytes_sent=connection.bytes_sent,
        bytes_received=connection.bytes_received,
        streams_open=len(session.streams),
        streams_total=session.requests,
        requests=session.requests,
        requests_active=len(session.streams),
        routes=sorted(session.routes),
        resets_sent=session.resets_sent if isinstance(session, Http2Session) else None,
        resets_received=(session.resets_received if isinstance(session, Http2Session) else None),
        main_direction=(
            Direction.RECEIVING
            if connection.bytes_received > connection.bytes_sent
            else Direction.SENDING
        ),
        streams=(
            [stream_stats(each, session.progress, now) for each in session.streams.values()]
            if detail
            else None
        ),
    )
    return stats if info is None else _with_facts(stats, connection, info)


def _with_facts(
    stats: ConnectionStats, connection: TcpConnection, info: TcpInfo
) -> ConnectionStats:
    spent = limited_seconds(info, stats.age_seconds)
    return structs.replace(
        stats,
        idle_seconds=info.last_data_recv / 1000,
        smoothed_rtt=info.smoothed_rtt,
        min_rtt=info.minimum_rtt,
        rtt_variance=info.rtt_variance,
        congestion_controller=connection.congestion_control or "",
        congestion_state="recovery" if info.in_recovery else None,
        congestion_window=info.congestion_window,
        congestion_window_packets=info.snd_cwnd,
        bytes_in_flight=info.bytes_in_flight,
        ssthresh=info.ssthresh,
        pto_count=info.backoff,
        pto_total=info.total_rto,
        pacing_rate=info.pacing_bits,
        delivery_rate=info.delivery_bits,
        mtu=info.snd_mss,
        reordering=info.reordering,
        packets_sent=info.segs_out,
        packets_received=info.segs_in,
        bytes_acknowledged=info.bytes_acked,
        packets_lost=info.total_retrans,
        packets_spuriously_lost=info.dsack_dups,
        packets_reordered=info.rcv_ooopack,
        bytes_retransmitted=info.bytes_retrans,
        ecn_ce_received=info.received_ce,
        ecn_ce_reported=info.delivered_ce,
        receive_window=info.rcv_wnd,
        send_window=info.snd_wnd,
        send_buffered=(info.notsent_bytes or 0) + connection.transport.get_write_buffer_size(),
        limited_by=main_limit(spent),
        sending_limited_seconds={limit.value: seconds for limit, seconds in spent.items()},
    )
