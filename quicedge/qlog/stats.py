"""The statistics page of a connection for terminals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from quicedge.qlog.analyse import Analysis
from quicedge.qlog.blocked_time import MEANINGS, Limit
from quicedge.qlog.connection import Connection
from quicedge.qlog.event import Direction
from quicedge.qlog.streams import OTHERS, Stream
from quicedge.qlog.summary import stream_rows, summary
from quicedge.qlog.units import milliseconds, percent, rate, safe, size
from quicedge.qlog.verdict import Rating

_BAR = 20
"""Width of a full bar in characters."""
_STREAMS = 20
"""Maximum number of streams shown, the largest first."""
_MARKS = {Rating.BAD: ("✗", "bold red"), Rating.NOTABLE: ("!", "yellow"), Rating.FINE: ("·", "dim")}
_VERSIONS = {"00000001": "QUIC v1", "1": "QUIC v1", "6b3343cf": "QUIC v2"}


def page(analysis: Analysis, connection: Connection) -> RenderableType:
    """The statistics of one connection of a file."""
    facts = summary(connection)
    parts: list[RenderableType] = [Text(safe(facts["headline"]), style="bold"), Text()]
    for finding in facts["findings"]:
        mark, style = _MARKS[finding["level"]]
        parts.append(Text.assemble((f"{mark} ", style), safe(finding["sentence"])))
    if facts["findings"]:
        parts.append(Text())
    parts.append(_table(connection, facts))
    parts += [Text(), _limits(facts)]
    if connection.streams.rows:
        parts += [Text(), _streams(connection)]
    return Group(*parts, *reading_notes(analysis))


def reading_notes(analysis: Analysis) -> list[RenderableType]:
    """Notes on problems in the file; empty if there are none."""
    notes: list[RenderableType] = []
    parse_errors = analysis.parse_errors
    if parse_errors.count:
        notes += [
            Text(),
            Text(f"The file has {parse_errors.count} parse error(s):", style="red"),
        ]
        notes += [Text(f"  {safe(place)}") for place in parse_errors.places[:10]]
        if parse_errors.count > 10:
            notes.append(Text(f"  … and {parse_errors.count - 10} more"))
    if analysis.bad_events:
        notes.append(Text(f"{analysis.bad_events} items were no events.", style="yellow"))
    if analysis.beyond_limit:
        notes.append(
            Text(f"{analysis.beyond_limit} events of further connections left out.", style="yellow")
        )
    notes += [Text(f"A trace is missing: {safe(error)}") for error in analysis.trace_errors]
    return notes


def _table(connection: Connection, facts: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, value in _rows(connection, facts):
        table.add_row(name, Text(safe(value)))
    return table


def _rows(connection: Connection, facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "trace", f"{facts['label']}, qlog {facts['qlog']}, {facts['events']} events"
    if facts["connection"]:
        yield "connection", facts["connection"]
    if facts["started"]:
        yield "started", facts["started"]
    version = str(facts["version"] or "")
    protocol = ", ".join(filter(None, (_VERSIONS.get(version, version), facts["alpn"] or "")))
    if protocol:
        yield "protocol", protocol
    handshake = facts["handshake"]
    description = f"complete after {milliseconds(handshake['complete'])}"
    if handshake["before_trace"]:
        description = "before the trace, which begins in mid-connection"
    elif handshake["complete"] is None:
        description = "not in the trace"
    if handshake["confirmed"] is not None:
        description += f", confirmed after {milliseconds(handshake['confirmed'])}"
    yield "handshake", description + (", with 0-RTT" if handshake["early_data"] else "")
    yield "duration", milliseconds(facts["duration"])
    rtt = facts["rtt"]
    if rtt["samples"]:
        yield (
            "RTT",
            f"min {milliseconds(rtt['min'])}, smoothed {milliseconds(rtt['smoothed'])}, "
            f"median {milliseconds(rtt['p50'])}, 95 % {milliseconds(rtt['p95'])}, "
            f"max {milliseconds(rtt['max'])} ({rtt['samples']} samples)",
        )
    for way in Direction:
        yield way, _way(connection, facts, way)
    loss = facts["loss"]
    sent = facts["sent"]["packets"]
    description = f"{loss['lost']} packets lost ({percent(loss['lost'], sent)})"
    if loss["inferred"]:
        description += " by inference"
    description += f", {loss['spurious']} spuriously"
    if loss["probe_timeouts"]:
        description += f", {loss['probe_timeouts']} probe timeouts"
    if loss["never_received"]:
        description += f"; {loss['never_received']} never received"
    skipped = loss["numbers_missing"] - loss["never_received"]
    if skipped:
        description += f"; {skipped} numbers missing without a hole in the data"
    if loss["reordered"]:
        description += f", {loss['reordered']} reordered"
    yield "loss", description
    if loss["dropped"]:
        yield "dropped", ", ".join(f"{count} {why}" for why, count in loss["dropped"].items())
    window = facts["congestion"]
    if window["window_last"] is not None:
        yield (
            "window",
            f"{size(window['window_min'])} to {size(window['window_max'])}, last "
            f"{size(window['window_last'])}, cut {window['window_cuts']} times; "
            f"at most {size(window['max_bytes_in_flight'])} in flight",
        )
    yield "close", _close(facts["close"])


def _way(connection: Connection, facts: dict[str, Any], way: Direction) -> str:
    packets = facts[way]
    description = f"{packets['packets']} packets, {size(packets['bytes'])}"
    if packets["stream_bytes"]:
        first, last, data = connection.data[way]
        description += f"; {size(packets['stream_bytes'])} of streams"
        if last > first:
            description += f" at {rate(data, last - first)}"
        if way is Direction.SENT and packets["retransmitted"]:
            description += f", {size(packets['retransmitted'])} again"
    if packets["size_max"]:
        description += f"; packets of {packets['size_p50']} B (median) to {packets['size_max']} B"
    return description


def _close(close: dict[str, Any] | None) -> str:
    if close is None:
        return "not in the trace"
    by = {"local": "by this side", "remote": "by the peer"}.get(close["by"], "")
    description = f"after {milliseconds(close['time'])} {by}".rstrip()
    error = close["error"] if close["error"] != "unknown" else ""
    if close["code"] is not None:
        error = f"{error} {close['code']:#x}".strip()
    for part in (error, close["trigger"], close["reason"]):
        if part:
            description += f", {part}"
    return description


def _limits(facts: dict[str, Any]) -> Table:
    limits = facts["limited_by"]
    whole = sum(limits.values())
    direction = "sending" if facts["direction"] is Direction.SENT else "receiving"
    table = Table(title=f"What limited it ({direction})", title_justify="left", box=None,
                  title_style="bold", padding=(0, 2, 0, 0), show_header=False)  # fmt: skip
    for state, spent in limits.items():
        bar = "█" * max(1, round(_BAR * spent / whole)) if spent and whole else ""
        table.add_row(
            Limit(state).label, Text(milliseconds(spent), justify="right"), percent(spent, whole),
            Text(f"{bar:<{_BAR}}", style="cyan"), Text(MEANINGS[Limit(state)], style="dim"),
        )  # fmt: skip
    return table


def _streams(connection: Connection) -> Table:
    rows = stream_rows(connection)
    largest = sorted(rows, key=lambda row: -(row.sent + row.received))[:_STREAMS]
    shown = [row for row in rows if row in largest]
    more = len(rows) - len(shown)
    title = f"Streams ({len(rows)})" if not more else f"Streams ({len(shown)} of {len(rows)})"
    table = Table(title=title, title_justify="left", title_style="bold", box=None,
                  padding=(0, 2, 0, 0), header_style="dim")  # fmt: skip
    for name in ("id", "opened", "first byte", "last byte", "sent", "received", "again"):
        table.add_column(name, justify="right")
    table.add_column("what", justify="left")
    for row in shown:
        ways = [t for t in (row.first_sent, row.first_received) if t is not None]
        first = row.first_sent if connection.direction is Direction.SENT else row.first_received
        ends = [t for t in (row.last_sent, row.last_received) if t is not None]
        table.add_row(
            "others" if row.id == OTHERS else str(row.id),
            milliseconds(row.opened),
            milliseconds(first if first is not None else min(ways, default=None)),
            milliseconds(max(ends, default=None)),
            size(row.sent), size(row.received), size(row.retransmitted or None),
            Text(safe(what(row))),
        )  # fmt: skip
    return table


def what(row: Stream) -> str:
    """The purpose of a stream, not escaped."""
    description = " ".join(filter(None, (row.method, row.path, row.status))) or row.kind
    if not description and row.id != OTHERS:
        description = "unidirectional" if row.id & 2 else "bidirectional"
    return f"{description} (reset {row.reset})" if row.reset else description
