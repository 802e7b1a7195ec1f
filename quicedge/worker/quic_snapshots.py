"""Snapshots of QUIC connections as telemetry structures."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from quicedge.config.host_port import HostPort
from quicedge.downstream.close_reason import close_reason
from quicedge.downstream.http3 import Http3Session
from quicedge.qlog.blocked_time import Limit
from quicedge.quic.connection import Connection
from quicedge.quic.connection.closing import State
from quicedge.quic.packet import VERSION_NAMES
from quicedge.quic.transport_parameters import TransportParameters
from quicedge.telemetry.comparison import Sample, goodput
from quicedge.telemetry.metrics import Metrics
from quicedge.telemetry.protocols import TransportKind, http_protocol
from quicedge.telemetry.stats import (
    ConnectionState,
    ConnectionStats,
    Direction,
    PathStats,
)
from quicedge.worker.stream_snapshots import observed_of, stream_stats


def quic_sample(session: Http3Session, now: float) -> Sample:
    """What a connection was like so far."""
    connection = session.connection
    recovery, rtt = connection.recovery, connection.recovery.rtt
    first_byte_at = session.client.first_byte_at
    spent = connection.limits.sent(now)
    busy = sum(seconds for limit, seconds in spent.items() if limit not in _NOT_SENDING)
    return Sample(
        smoothed_rtt=rtt.smoothed if rtt.initialized else None,
        handshake_seconds=connection.handshake_seconds,
        first_byte_seconds=(
            first_byte_at - connection.created_at if first_byte_at is not None else None
        ),
        goodput=goodput(recovery.delivered, busy),
        packets_sent=connection.counters.packets_sent,
        packets_lost=recovery.packets_lost,
    )


_NOT_SENDING = frozenset({Limit.HANDSHAKE, Limit.APPLICATION, Limit.IDLE})


def count_quic(metrics: Metrics, session: Http3Session, sample: Sample, now: float) -> None:
    """Record the metrics of a connection that has ended."""
    connection = session.connection
    is_complete = sample.handshake_seconds is not None
    observed = observed_of(sample, now - connection.created_at)
    if is_complete:
        observed["congestion_window_bytes"] = connection.recovery.congestion_window
    if connection.recovery.rtt.initialized:
        observed["min_rtt_seconds"] = connection.recovery.rtt.min
    metrics.connection(
        metrics.listener(connection.came_from.socket.name, TransportKind.QUIC),
        protocol=http_protocol(session.client.http_version) if is_complete else None,
        observed=observed,
    )


def quic_stats(
    session: Http3Session, *, worker: int, now: float, detail: bool = False
) -> ConnectionStats:
    """A snapshot of a connection; `detail` adds paths and streams. `now` is the loop's time."""
    connection = session.connection
    recovery, rtt = connection.recovery, connection.recovery.rtt
    path = connection.paths.address
    age = now - connection.created_at
    wall = time.time()
    pace = recovery.pacer.rate
    limits = connection.limits
    ect0, ect1, ce = connection.counters.ecn_received
    received_at = connection.counters.received_at
    return ConnectionStats(
        id=connection.id,
        worker=worker,
        time=wall,
        transport=TransportKind.QUIC,
        protocol=http_protocol(session.client.http_version),
        tls_version="TLSv1.3",
        odcid=connection.original_destination_connection_id.hex(),
        scids=[cid.hex() for cid in connection.local_ids.active],
        dcid=connection.remote_ids.current.cid.hex(),
        remote_address=str(HostPort.of(path.remote)) if path is not None else "",
        local_address=_local_address(path) if path is not None else "",
        path_validated=connection.paths.active.is_validated,
        migrations=connection.counters.migrations,
        version=VERSION_NAMES.get(connection.handshake.version, hex(connection.handshake.version)),
        alpn=connection.handshake.alpn,
        cipher=connection.handshake.cipher,
        group=connection.handshake.group.name if connection.handshake.group is not None else None,
        signature=connection.handshake.signature,
        hello_retry=connection.handshake.hello_retried,
        sni=connection.handshake.server_name,
        retry=connection.handshake.is_retried,
        resumed=connection.handshake.resumed,
        early_data=connection.handshake.early_data_accepted,
        key_updates=connection.handshake.phases.updates,
        state=_state(connection),
        created_at=wall - age,
        age_seconds=age,
        idle_seconds=now - received_at if received_at is not None else None,
        handshake_seconds=connection.handshake_seconds,
        close_reason=close_reason(connection),
        smoothed_rtt=rtt.smoothed if rtt.initialized else None,
        latest_rtt=rtt.latest if rtt.initialized else None,
        min_rtt=rtt.min if rtt.initialized else None,
        rtt_variance=rtt.variance if rtt.initialized else None,
        congestion_controller=recovery.controller.name,
        congestion_state=recovery.controller.state,
        congestion_window=recovery.congestion_window,
        bytes_in_flight=recovery.bytes_in_flight,
        ssthresh=recovery.controller.ssthresh,
        pto_count=recovery.pto_count,
        pto_total=recovery.pto_total,
        pacing_rate=pace * 8 if pace is not None else None,
        delivery_rate=recovery.delivery_rate * 8 if recovery.delivery_rate is not None else None,
        mtu=connection.max_datagram_size,
        packets_sent=connection.counters.packets_sent,
        packets_received=connection.counters.packets_received,
        bytes_sent=connection.counters.bytes_sent,
        bytes_received=connection.counters.bytes_received,
        bytes_acknowledged=recovery.delivered,
        packets_lost=recovery.packets_lost,
        bytes_lost=recovery.bytes_lost,
        packets_spuriously_lost=recovery.packets_spuriously_lost,
        packets_reordered=connection.counters.packets_reordered,
        bytes_retransmitted=connection.streams.bytes_resent,
        packets_dropped={
            reason.value: count for reason, count in connection.counters.packets_dropped.items()
        },
        ecn_state=connection.paths.ecn_state.value,
        ecn_ect0_received=ect0,
        ecn_ect1_received=ect1,
        ecn_ce_received=ce,
        ecn_ce_reported=connection.counters.ecn_ce_reported,
        streams_open=connection.streams.peer_bidi_open,
        streams_total=connection.streams.peer_bidi.opened,
        requests=session.requests,
        requests_active=len(session.streams),
        routes=sorted(session.routes),
        resets_sent=session.resets_sent,
        resets_received=session.resets_received,
        stop_sending_sent=session.stops_sent,
        stop_sending_received=session.stops_received,
        receive_window=connection.streams.receive_credit,
        send_window=connection.streams.send_credit,
        send_buffered=connection.streams.unsent_total,
        main_direction=(
            Direction.RECEIVING if connection.streams.mostly_receives else Direction.SENDING
        ),
        limited_by=connection.limited_by(now),
        sending_limited_seconds=_by_name(limits.sent(now)),
        receiving_limited_seconds=_by_name(limits.received(now)),
        paths=_paths(connection) if detail else None,
        local_parameters=_parameters(connection.handshake.local_parameters) if detail else None,
        remote_parameters=_parameters(connection.handshake.remote_parameters) if detail else None,
        streams=(
            [stream_stats(each, session.progress, now) for each in session.streams.values()]
            if detail
            else None
        ),
    )


def _state(connection: Connection) -> ConnectionState:
    if connection.state is State.CONNECTED and not connection.handshake_complete:
        return ConnectionState.HANDSHAKE
    return ConnectionState(connection.state.value)


def _by_name(spent: dict[Limit, float]) -> dict[str, float]:
    """Seconds by limit, longest first."""
    longest = sorted(spent, key=lambda limit: -spent[limit])
    return {limit.value: spent[limit] for limit in longest}


def _local_address(path: object) -> str:
    host, port = getattr(path, "local_host", ""), path.socket.address[1]  # type: ignore[attr-defined]
    return str(HostPort(host or path.socket.address[0], port))  # type: ignore[attr-defined]


def _parameters(parameters: TransportParameters) -> dict[str, Any]:
    """The transport parameters that are set, as JSON values."""
    found: dict[str, Any] = {}
    for name, value in msgspec.structs.asdict(parameters).items():
        if isinstance(value, bytes):
            # Anyone who knows the token can terminate the connection.
            if name != "stateless_reset_token":
                found[name] = value.hex()
        elif isinstance(value, bool | int):
            found[name] = value
    return found


def _paths(connection: Connection) -> list[PathStats]:
    return [
        PathStats(
            local_address=_local_address(path.address),
            remote_address=str(HostPort.of(path.address.remote)),
            validated=path.is_validated,
            active=index == 0,
            bytes_received=path.bytes_received,
            bytes_sent=path.bytes_sent,
        )
        for index, path in enumerate(connection.paths.known)
    ]
