"""The figures of a connection, for `stats --json`, `diff` and the report."""

from __future__ import annotations

from typing import Any

from quicedge.qlog.connection import Connection
from quicedge.qlog.event import Direction
from quicedge.qlog.packets import Packets
from quicedge.qlog.streams import Stream
from quicedge.qlog.verdict import findings, headline


def summary(connection: Connection) -> dict[str, Any]:
    """JSON values: times in ms, sizes in bytes, rates in bits per second; None is unknown."""
    header = connection.trace.header
    started = connection.trace.started
    start = connection.start or 0.0
    limits = connection.limits.totals
    return {
        "headline": headline(connection),
        "findings": [
            {"level": finding.level, "sentence": finding.sentence}
            for finding in findings(connection)
        ],
        "label": connection.label,
        "implementation": header.implementation,
        "vantage_point": connection.vantage,
        "qlog": header.version,
        "title": str(header.file.get("title") or header.trace.get("title") or ""),
        "connection": connection.identifier,
        "started": started.isoformat(timespec="milliseconds") if started else None,
        "version": connection.version or None,
        "alpn": connection.alpn or None,
        "events": connection.events,
        "duration": connection.duration,
        "handshake": {
            "complete": _since(connection.handshake_complete, start),
            "confirmed": _since(connection.handshake_confirmed, start),
            "early_data": connection.early_data,
            "before_trace": connection.begins_late is True,
        },
        "rtt": {
            "min": connection.recovery.min_rtt,
            "smoothed": connection.recovery.smoothed_rtt,
            "p50": connection.recovery.rtt.quantile(0.5),
            "p95": connection.recovery.rtt.quantile(0.95),
            "p99": connection.recovery.rtt.quantile(0.99),
            "max": connection.recovery.rtt.greatest if connection.recovery.rtt.count else None,
            "samples": connection.recovery.rtt.count,
        },
        "sent": _packets(connection, connection.sent, Direction.SENT),
        "received": _packets(connection, connection.received, Direction.RECEIVED),
        "loss": {
            "lost": connection.lost,
            "inferred": not connection.flight.lost and connection.lost > 0,
            "spurious": connection.spurious,
            "acknowledged": connection.flight.acknowledged,
            "probe_timeouts": connection.recovery.probe_timeouts,
            "never_received": connection.gaps.lost,
            "numbers_missing": connection.gaps.lost + connection.gaps.others,
            "reordered": connection.gaps.reordered,
            "dropped": dict(connection.dropped),
            "ecn_ce": connection.ecn_ce,
        },
        "congestion": {
            "window_last": connection.recovery.congestion_window,
            "window_min": connection.recovery.window_min,
            "window_max": connection.recovery.window_max,
            "window_cuts": connection.recovery.window_cuts,
            "max_bytes_in_flight": connection.recovery.max_in_flight,
        },
        "direction": connection.direction,
        "limited_by": dict(sorted(limits.items(), key=lambda item: -item[1])),
        "close": connection.close,
        "streams": len(connection.streams.rows),
    }


def _since(time: float | None, start: float) -> float | None:
    return None if time is None else time - start


def _packets(connection: Connection, packets: Packets, way: Direction) -> dict[str, Any]:
    first, last, data = connection.data.get(way, [0.0, 0.0, 0.0])
    rows = connection.streams.rows.values()
    again = sum(row.retransmitted if way is Direction.SENT else row.late for row in rows)
    return {
        "packets": packets.count,
        "bytes": packets.bytes,
        "stream_bytes": int(data),
        "retransmitted" if way is Direction.SENT else "late": again,
        "goodput": data * 8000 / (last - first) if last > first else None,
        "ack_only": packets.ack_only,
        "size_p50": packets.size_share(0.5),
        "size_max": max(packets.sizes, default=None),
        "types": dict(packets.types),
        "frames": dict(packets.frames),
    }


def stream_rows(connection: Connection) -> list[Stream]:
    """The streams in the order in which they opened."""
    return sorted(connection.streams.rows.values(), key=lambda row: (row.opened, row.id))
