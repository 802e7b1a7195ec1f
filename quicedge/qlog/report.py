"""The HTML report of a connection: self-contained, without external requests.

A trace contains what its client chose to send (paths, reasons, header values), and the file itself
may come from anyone. Its values are therefore embedded as JSON in a `<script
type="application/json">` whose text cannot end the element, the script renders them with
`textContent` only, and the Content-Security-Policy allows only the script with the given hash.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib import resources
from pathlib import Path
from typing import Any

from quicedge.qlog.align import clock_offset
from quicedge.qlog.analyse import Analysis
from quicedge.qlog.blocked_time import MEANINGS
from quicedge.qlog.connection import Connection
from quicedge.qlog.packets import Packets
from quicedge.qlog.series import Series, Sums
from quicedge.qlog.stats import what
from quicedge.qlog.streams import Interleaving
from quicedge.qlog.summary import stream_rows, summary

_SCRIPTS = ("chart.js", "graphs.js", "streams.js", "packets.js", "main.js")
_MAX_ROWS = 400
"""Maximum number of streams drawn, the largest first; the statistics have all of them."""
_SIZE_STEP = 50
"""Bytes per bar of the packet size histogram."""


def write(path: Path, sides: list[tuple[Analysis, Connection]]) -> None:
    """Write the page; `sides` is one connection or both ends of it. Raises OSError."""
    path.write_text(page(sides), encoding="utf-8")


def page(sides: list[tuple[Analysis, Connection]]) -> str:
    """The page as HTML."""
    style = _asset("report.css")
    script = '"use strict";\n' + "\n".join(_asset(name) for name in _SCRIPTS)
    title = " and ".join(analysis.path.name for analysis, _ in sides)
    return (
        _asset("report.html")
        .replace("{{policy}}", _policy(style, script))
        .replace("{{style}}", style)
        .replace("{{script}}", script)
        # Last, so that no placeholder above is replaced within the name or data of a trace.
        .replace("{{title}}", html.escape(_printable(title)))
        .replace("{{data}}", _embed(data(sides)))
    )


def _asset(name: str) -> str:
    return resources.files("quicedge.qlog").joinpath("assets", name).read_text("utf-8")


def _policy(style: str, script: str) -> str:
    def source(text: str) -> str:
        digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()
        return f"'sha256-{digest}'"

    return (
        f"default-src 'none'; style-src {source(style)}; script-src {source(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _printable(text: str) -> str:
    """Replace what cannot be encoded as UTF-8 (undecodable bytes of a file name)."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _embed(value: Any) -> str:
    """JSON that is plain text in HTML: ASCII, without `<`, `>` and `&`."""
    encoded = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        encoded = encoded.replace(character, f"\\u{ord(character):04x}")
    return encoded


def data(sides: list[tuple[Analysis, Connection]]) -> dict[str, Any]:
    """The data of the page. Times are milliseconds on the clock of the first side."""
    offset = 0.0
    aligned = False
    if len(sides) == 2:
        found = clock_offset(sides[0][1], sides[1][1])
        aligned = found is not None
        offset = found or 0.0
    return {
        "sides": [
            _side(analysis, connection, offset if index else 0.0)
            for index, (analysis, connection) in enumerate(sides)
        ],
        "aligned": aligned,
        "meanings": MEANINGS,
    }


def _side(analysis: Analysis, connection: Connection, offset: float) -> dict[str, Any]:
    rows = stream_rows(connection)
    drawn = sorted(rows, key=lambda row: -(row.sent + row.received))[:_MAX_ROWS]
    keep = {row.id for row in drawn}
    return {
        "file": analysis.path.name,
        "summary": summary(connection),
        "broken": [str(place) for place in analysis.parse_errors.places],
        "breaks": analysis.parse_errors.count,
        "start": _time((connection.start or 0.0) - offset),
        "end": _time(connection.end - offset),
        "handshake": [
            None if at is None else _time(at - offset)
            for at in (connection.handshake_complete, connection.handshake_confirmed)
        ],
        "series": {
            "window": _series(connection.recovery.window_series, offset),
            "flight": _series(connection.recovery.flight_series, offset),
            "ssthresh": _series(connection.recovery.ssthresh_series, offset),
            "rtt": _series(connection.recovery.rtt_series, offset),
            "smoothed": _series(connection.recovery.smoothed_series, offset),
        },
        "losses": _sums(connection.losses, offset),
        "goodput": _sums(connection.goodput, offset),
        "limits": _sums(connection.limits, offset),
        "states": [
            [_time(at - offset), state] for at, state in connection.recovery.congestion_states
        ],
        "streams": [
            {
                "id": row.id,
                "what": what(row),
                "opened": _time(row.opened - offset),
                "closed": _time(row.closed - offset),
                "out": _span(row.first_sent, row.last_sent, offset),
                "in": _span(row.first_received, row.last_received, offset),
                "sent": row.sent,
                "received": row.received,
                "again": row.retransmitted,
            }
            for row in rows
            if row.id in keep
        ],
        "streams_left_out": len(rows) - len(keep),
        "runs": {
            "sent": _runs(connection.streams.sent, offset),
            "received": _runs(connection.streams.received, offset),
        },
        "packets": {
            "sent": _packets(connection.sent, offset),
            "received": _packets(connection.received, offset),
        },
    }


def _time(value: float) -> float:
    return round(value, 3)


def _number(value: float) -> float:
    return round(value, 3) if value < 1e6 else round(value)


def _series(series: Series, offset: float) -> list[list[float]]:
    return [
        [_time(at - offset), _number(low), _number(high), _number(last)]
        for at, low, high, last in series.points()
    ]


def _sums(sums: Sums, offset: float) -> dict[str, Any]:
    return {
        "width": sums.width,
        "totals": {kind: _number(amount) for kind, amount in sums.totals.items()},
        "buckets": [
            [_time(at - offset), {kind: _number(amount) for kind, amount in kinds.items()}]
            for at, kinds in sums
        ],
    }


def _span(first: float | None, last: float | None, offset: float) -> list[float] | None:
    return None if first is None or last is None else [_time(first - offset), _time(last - offset)]


def _runs(interleaving: Interleaving, offset: float) -> list[list[float]]:
    return [
        [_time(run.start - offset), _time(run.end - offset), run.stream, run.size]
        for run in interleaving.runs
    ]


def _packets(packets: Packets, offset: float) -> dict[str, Any]:
    histogram: dict[int, int] = {}
    for size, count in packets.sizes.items():
        slot = size // _SIZE_STEP * _SIZE_STEP
        histogram[slot] = histogram.get(slot, 0) + count
    return {
        "details": [
            [_time(packet.time - offset), packet.type, packet.number, packet.size, packet.note]
            for packet in packets.details
        ],
        "complete": len(packets.details) == packets.count,
        "sizes": sorted(histogram.items()),
        "step": _SIZE_STEP,
    }
