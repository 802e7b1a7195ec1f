"""Why was it slow? The few sentences an engineer should read first."""

from __future__ import annotations

from dataclasses import dataclass

from quicedge.qlog.connection import Connection
from quicedge.qlog.limited import (
    APPLICATION,
    CONGESTION,
    FLOW_CONTROL,
    HANDSHAKE,
    IDLE,
    LOSS_TIMEOUT,
    PACING,
    PEER_SILENT,
    RECEIVING,
)
from quicedge.qlog.units import milliseconds, percent, rate, size

_NOTABLE = 0.1
"""Share of the time from which a limit is worth a sentence."""
_LOSSY = 0.005
"""Share of packets lost that hurts a loss-based congestion controller."""
_QUEUE_FACTOR, _QUEUE_LEAST = 2.0, 20.0
"""A queue is building where the RTT's 95th percentile is this many times, and milliseconds more
than, the least."""
_FINE_CODES = (0, 0x100)
"""NO_ERROR of QUIC and H3_NO_ERROR."""
_SLOW_HANDSHAKE, _SLOW_LEAST = 3.5, 30.0
"""Round trips (a handshake with Retry takes two, one with Version Negotiation three), and
milliseconds below which nobody minds."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence, and whether it is bad news."""

    level: str
    """`bad`, `notable` or `fine`."""
    sentence: str


def headline(connection: Connection) -> str:
    """What was transferred, how fast, and what held it back most."""
    span = connection.data.get(connection.direction)
    if span is None:
        return f"No stream data in {milliseconds(connection.duration)}."
    time = span[1] - span[0]
    told = f"{size(span[2])} {connection.direction} in {milliseconds(time)} ({rate(span[2], time)})"
    totals = connection.limits.totals
    whole = sum(totals.values())
    if whole <= 0:
        return told + "."
    state, spent = max(totals.items(), key=lambda item: item[1])
    return f"{told}; {percent(spent, whole)} of the time {_PHRASES.get(state, state)}."


_PHRASES = {
    HANDSHAKE: "went into the handshake",
    CONGESTION: "the congestion window was full",
    PACING: "packets were paced at the rate of the congestion window",
    FLOW_CONTROL: "the receiver's flow control held it back",
    LOSS_TIMEOUT: "it waited for probe timeouts",
    APPLICATION: "the application had nothing more to send",
    IDLE: "the connection was idle",
    RECEIVING: "data was arriving",
    PEER_SILENT: "it waited for the peer",
}


def findings(connection: Connection) -> list[Finding]:
    """What is worth knowing, worst first."""
    found = [*_limits(connection), *_path(connection), *_handshake(connection), *_end(connection)]
    order = {"bad": 0, "notable": 1, "fine": 2}
    return sorted(found, key=lambda finding: order[finding.level])


def _limits(connection: Connection) -> list[Finding]:
    found = []
    totals = connection.limits.totals
    whole = sum(totals.values())

    def share(state: str) -> float:
        return totals.get(state, 0.0) / whole if whole > 0 else 0.0

    def spent(state: str) -> str:
        return f"{milliseconds(totals[state])} ({percent(totals[state], whole)})"

    if share(FLOW_CONTROL) > _NOTABLE:
        where = "the peer's" if connection.direction == "sent" else "our"
        found.append(
            Finding(
                "bad",
                f"Flow control stalled the transfer for {spent(FLOW_CONTROL)}: {where} windows are"
                " too small for this path, or the data is read too slowly.",
            )
        )
    if share(LOSS_TIMEOUT) > _NOTABLE / 4:
        found.append(
            Finding(
                "bad",
                f"{spent(LOSS_TIMEOUT)} passed waiting for {connection.recovery.probe_timeouts}"
                " probe timeouts: the last packets of a burst, or all of them, got lost.",
            )
        )
    if share(CONGESTION) > _NOTABLE:
        cause = ""
        recovery = connection.recovery
        if recovery.window_cuts:
            cause = f"; {recovery.window_cuts} cuts kept it at {size(recovery.window_min)} to"
            cause += f" {size(recovery.window_max)}"
        found.append(
            Finding(
                "notable",
                f"The congestion window was full for {spent(CONGESTION)}: the network, as the"
                f" congestion controller sees it, set the pace{cause}.",
            )
        )
    if share(PACING) > _NOTABLE:
        found.append(
            Finding(
                "fine",
                f"Packets were paced for {spent(PACING)}: the rate was one congestion window a"
                " round trip.",
            )
        )
    if share(APPLICATION) > _NOTABLE:
        found.append(
            Finding(
                "notable",
                f"The sender had window and credit left for {spent(APPLICATION)}, but nothing to"
                " send: look at the application or the origin.",
            )
        )
    if share(PEER_SILENT) > _NOTABLE:
        found.append(
            Finding(
                "notable",
                f"Nothing arrived on open streams for {spent(PEER_SILENT)}: the peer was thinking,"
                " blocked, or its packets were lost.",
            )
        )
    return found


def _path(connection: Connection) -> list[Finding]:
    found = []
    sent = connection.sent.count
    if connection.direction == "received" and connection.missing:
        numbers = connection.received.count + connection.missing
        level = "bad" if connection.missing > numbers * _LOSSY else "fine"
        found.append(
            Finding(
                level,
                f"{connection.missing} packets ({percent(connection.missing, numbers)}) of the"
                " peer never arrived.",
            )
        )
    if connection.lost:
        level = "bad" if connection.lost > sent * _LOSSY else "fine"
        told = "" if connection.flight.lost else " (inferred from acknowledgements)"
        found.append(
            Finding(
                level,
                f"{connection.lost} of {sent} packets sent ({percent(connection.lost, sent)}) were"
                f" lost{told}.",
            )
        )
    if connection.spurious:
        found.append(
            Finding(
                "notable",
                f"{connection.spurious} packets declared lost were acknowledged later: reordering"
                " or a sudden delay, not loss.",
            )
        )
    least, high = connection.recovery.min_rtt, connection.recovery.rtt.quantile(0.95)
    if least and high and high > max(least * _QUEUE_FACTOR, least + _QUEUE_LEAST):
        found.append(
            Finding(
                "notable",
                f"The RTT rose from {milliseconds(least)} to {milliseconds(high)} (95th"
                " percentile): a queue builds up on the path.",
            )
        )
    return found


def _handshake(connection: Connection) -> list[Finding]:
    complete, least = connection.handshake_complete, connection.recovery.min_rtt
    start = connection.start or 0.0
    if complete is None:
        known = connection.sent.types or connection.received.types
        if known and "initial" in {*connection.sent.types, *connection.received.types}:
            return [Finding("bad", "The handshake was not completed.")]
        return []
    trips = (complete - start) / least if least else 0.0
    if trips > _SLOW_HANDSHAKE and complete - start > _SLOW_LEAST:
        return [
            Finding(
                "notable",
                f"The handshake took {milliseconds(complete - start)}, {trips:.1f} times the"
                " least RTT.",
            )
        ]
    return []


def _end(connection: Connection) -> list[Finding]:
    close = connection.close
    if close is None:
        return []
    code, error = close["code"], close["error"]
    harmless = error in ("no_error", "http_no_error", "") or (error == "unknown" and code is None)
    if code in _FINE_CODES or (code is None and harmless):
        return []
    shown = error if error and error != "unknown" else "" if code is None else f"{code:#x}"
    by = {"local": "by this side", "remote": "by the peer"}.get(close["by"], "")
    reason = f": “{close['reason']}”" if close["reason"] else ""
    return [Finding("bad", f"Closed {by} with error {shown}{reason}.".replace("  ", " "))]
