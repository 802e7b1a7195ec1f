"""The connections of one worker, of all protocols, as telemetry structures."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from quicedge.config.limits import COMPARISON_CONNECTIONS
from quicedge.downstream.http3 import Http3Session
from quicedge.downstream.session import Session
from quicedge.telemetry.comparison import Samples
from quicedge.telemetry.protocols import HttpProtocol, http_protocol
from quicedge.telemetry.stats import ConnectionStats
from quicedge.worker.edge import Edge
from quicedge.worker.quic_snapshots import quic_sample, quic_stats
from quicedge.worker.tcp_snapshots import tcp_sample, tcp_stats


def all_stats(edge: Edge, *, worker: int, now: float) -> Iterator[ConnectionStats]:
    """Snapshots of all connections."""
    for session in edge.sessions:
        yield quic_stats(session, worker=worker, now=now)
    for tcp_session, connection in edge.tcp.sessions.items():
        yield tcp_stats(connection, tcp_session, worker=worker, now=now)


def stats_of(edge: Edge, connection_id: str, *, worker: int, now: float) -> ConnectionStats | None:
    """A snapshot of one connection with all details; None: there is none of that ID."""
    for session in edge.sessions:
        if session.connection.id == connection_id:
            return quic_stats(session, worker=worker, now=now, detail=True)
    for tcp_session, connection in edge.tcp.sessions.items():
        if connection.id == connection_id:
            return tcp_stats(connection, tcp_session, worker=worker, now=now, detail=True)
    return None


def session_of(edge: Edge, connection_id: str) -> Session | None:
    """The session of a connection."""
    session: Http3Session
    for session in edge.sessions:
        if session.connection.id == connection_id:
            return session
    for tcp_session, connection in edge.tcp.sessions.items():
        if connection.id == connection_id:
            return tcp_session
    return None


def counts_by_protocol(edge: Edge) -> dict[HttpProtocol, int]:
    """How many connections there are, handshakes on QUIC included."""
    found = dict.fromkeys(HttpProtocol, 0)
    for session in edge.all_sessions:
        found[http_protocol(session.client.http_version)] += 1
    return found


def samples(edge: Edge, now: float) -> Samples:
    """Samples of live connections and of those that ended last."""
    live: Samples = {}
    for session in islice(edge.sessions, COMPARISON_CONNECTIONS):
        sample = quic_sample(session, now)
        if sample.handshake_seconds is not None:
            live.setdefault(http_protocol(session.client.http_version), []).append(sample)
    for tcp_session, connection in islice(edge.tcp.sessions.items(), COMPARISON_CONNECTIONS):
        protocol = http_protocol(tcp_session.client.http_version)
        live.setdefault(protocol, []).append(tcp_sample(connection, tcp_session))
    return edge.recent.samples(live)
