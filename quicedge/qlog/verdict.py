"""The verdict: why was the connection slow?"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from quicedge.qlog.blocked_time import Limit
from quicedge.qlog.connection import Connection
from quicedge.qlog.event import Direction
from quicedge.qlog.units import milliseconds, percent, rate, size

_NOTABLE = 0.1
"""Minimum fraction of the time for a limit to be reported."""
_LOSSY = 0.005
"""Loss rate that hurts a loss-based congestion controller."""
_QUEUE_FACTOR, _QUEUE_LEAST = 2.0, 20.0
"""There is a queue if the RTT exceeds the minimum by this factor and by these milliseconds."""
_QUEUE_SAMPLES, _QUEUE_SHARE = 20, 0.25
"""Minimum number of samples, and the fraction of them that must show it; less may be a single
delay of the path or of an acknowledgement."""
_FINE_CODES = (0, 0x100)
"""NO_ERROR of QUIC and H3_NO_ERROR."""
_SLOW_HANDSHAKE, _SLOW_LEAST = 3.5, 30.0
"""Round trips (a handshake with Retry takes two, one with Version Negotiation three), and
milliseconds below which a handshake is never slow."""


class Rating(StrEnum):
    """How serious a finding is, the worst first."""

    BAD = "bad"
    NOTABLE = "notable"
    FINE = "fine"


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence, and how serious it is."""

    level: Rating
    sentence: str


def headline(connection: Connection) -> str:
    """What was transferred, how fast, and what limited it most."""
    span = connection.data.get(connection.direction)
    if span is None:
        return f"No stream data in {milliseconds(connection.duration)}."
    time = span[1] - span[0]
    sentence = (
        f"{size(span[2])} {connection.direction} in {milliseconds(time)} ({rate(span[2], time)})"
    )
    totals = {Limit(state): spent for state, spent in connection.limits.totals.items()}
    idle = totals.pop(Limit.IDLE, 0.0)
    busy = sum(totals.values())
    if busy <= 0:
        return f"{sentence}; {PHRASES[Limit.IDLE]}." if idle else f"{sentence}."
    state = max(totals, key=lambda state: totals[state])
    when = "of the time" if idle < busy / 100 else "of the time that was not idle"
    return f"{sentence}; {percent(totals[state], busy)} {when} {PHRASES[state]}."


PHRASES = {
    Limit.HANDSHAKE: "went into the handshake",
    Limit.LOSS_RECOVERY: "probe timeouts expired unanswered",
    Limit.CONGESTION: "the congestion window was full",
    Limit.PACING: "packets were paced at the rate of the congestion window",
    Limit.CONNECTION: "the receiver's flow control for the connection held it back",
    Limit.STREAM: "the receiver's flow control for streams held it back",
    Limit.APPLICATION: "the application had nothing more to send",
    Limit.RECEIVING: "data was arriving",
    Limit.RECEIVE_WINDOW: "this side's flow control held the peer back",
    Limit.PEER: "it waited for the peer",
    Limit.IDLE: "the connection was idle",
}


def findings(connection: Connection) -> list[Finding]:
    """The findings, worst first."""
    found = [*_limits(connection), *_path(connection), *_handshake(connection), *_end(connection)]
    order = list(Rating)
    return sorted(found, key=lambda finding: order.index(finding.level))


def _limits(connection: Connection) -> list[Finding]:
    found = []
    totals = connection.limits.totals
    whole = sum(totals.values())

    def share(*states: Limit) -> float:
        return sum(totals.get(state, 0.0) for state in states) / whole if whole > 0 else 0.0

    def spent(*states: Limit) -> str:
        time = sum(totals.get(state, 0.0) for state in states)
        return f"{milliseconds(time)} ({percent(time, whole)})"

    if share(Limit.CONNECTION, Limit.STREAM) > _NOTABLE:
        found.append(
            Finding(
                Rating.BAD,
                f"Flow control stalled the transfer for {spent(Limit.CONNECTION, Limit.STREAM)}:"
                " the peer's windows are too small for this path, or it reads too slowly.",
            )
        )
    if share(Limit.RECEIVE_WINDOW) > _NOTABLE:
        found.append(
            Finding(
                Rating.BAD,
                f"Flow control stalled the transfer for {spent(Limit.RECEIVE_WINDOW)}: this side's"
                " windows are too small for this path, or the data is read too slowly.",
            )
        )
    if share(Limit.LOSS_RECOVERY) > _NOTABLE / 4:
        found.append(
            Finding(
                Rating.BAD,
                f"{spent(Limit.LOSS_RECOVERY)} passed in which {connection.recovery.probe_timeouts}"
                " probe timeouts expired unanswered: the last packets of a burst, or all of them,"
                " got lost.",
            )
        )
    if share(Limit.CONGESTION) > _NOTABLE:
        cause = ""
        recovery = connection.recovery
        if recovery.window_cuts:
            cause = f"; {recovery.window_cuts} cuts kept it at {size(recovery.window_min)} to"
            cause += f" {size(recovery.window_max)}"
        found.append(
            Finding(
                Rating.NOTABLE,
                f"The congestion window was full for {spent(Limit.CONGESTION)}: the network, as the"
                f" congestion controller sees it, set the pace{cause}.",
            )
        )
    if share(Limit.PACING) > _NOTABLE:
        found.append(
            Finding(
                Rating.FINE,
                f"Packets were paced for {spent(Limit.PACING)}: the rate was one congestion window"
                " per round trip.",
            )
        )
    if share(Limit.APPLICATION) > _NOTABLE:
        found.append(
            Finding(
                Rating.NOTABLE,
                f"The sender had window and credit left for {spent(Limit.APPLICATION)}, but"
                " nothing to send: look at the application or the origin.",
            )
        )
    if share(Limit.PEER) > _NOTABLE:
        found.append(
            Finding(
                Rating.NOTABLE,
                f"Nothing arrived on open streams for {spent(Limit.PEER)}: the peer was thinking,"
                " blocked, or its packets were lost.",
            )
        )
    return found


def _path(connection: Connection) -> list[Finding]:
    found = []
    sent = connection.sent.count
    missing = connection.gaps.lost
    if connection.direction is Direction.RECEIVED and missing:
        numbers = connection.received.count + missing
        level = Rating.BAD if missing > numbers * _LOSSY else Rating.FINE
        found.append(
            Finding(
                level,
                f"{missing} packets ({percent(missing, numbers)}) of the peer never arrived.",
            )
        )
    if connection.lost:
        level = Rating.BAD if connection.lost > sent * _LOSSY else Rating.FINE
        source = "" if connection.flight.lost else " (inferred from acknowledgements)"
        found.append(
            Finding(
                level,
                f"{connection.lost} of {sent} packets sent ({percent(connection.lost, sent)}) were"
                f" lost{source}.",
            )
        )
    if connection.spurious:
        found.append(
            Finding(
                Rating.NOTABLE,
                f"{connection.spurious} packets declared lost were acknowledged later: reordering"
                " or a sudden delay, not loss.",
            )
        )
    least, rtt = connection.recovery.min_rtt, connection.recovery.rtt
    high = rtt.quantile(1 - _QUEUE_SHARE) if rtt.count >= _QUEUE_SAMPLES else None
    if least and high and high > max(least * _QUEUE_FACTOR, least + _QUEUE_LEAST):
        found.append(
            Finding(
                Rating.NOTABLE,
                f"The RTT rose from {milliseconds(least)} to {milliseconds(high)} and more in a"
                f" quarter of {rtt.count} samples: a queue builds up on the path.",
            )
        )
    return found


def _handshake(connection: Connection) -> list[Finding]:
    if connection.begins_late:
        return [Finding(Rating.FINE, "The trace begins in mid-connection, after the handshake.")]
    complete, least = connection.handshake_complete, connection.recovery.min_rtt
    start = connection.start or 0.0
    if complete is None:
        known = connection.sent.types or connection.received.types
        if known and "initial" in {*connection.sent.types, *connection.received.types}:
            return [Finding(Rating.BAD, "The handshake was not completed.")]
        return []
    trips = (complete - start) / least if least else 0.0
    if trips > _SLOW_HANDSHAKE and complete - start > _SLOW_LEAST:
        return [
            Finding(
                Rating.NOTABLE,
                f"The handshake took {milliseconds(complete - start)}, {trips:.1f} times the"
                " least RTT.",
            )
        ]
    return []


def _end(connection: Connection) -> list[Finding]:
    close = connection.close
    if close is None:
        return []
    if close["trigger"] == "idle_timeout":
        return [_timed_out(connection, close["time"])]
    code, error = close["code"], close["error"]
    harmless = error in ("no_error", "http_no_error", "") or (error == "unknown" and code is None)
    if code in _FINE_CODES or (code is None and harmless):
        return []
    shown = error if error and error != "unknown" else "" if code is None else f"{code:#x}"
    by = {"local": "by this side", "remote": "by the peer"}.get(close["by"], "")
    reason = f": “{close['reason']}”" if close["reason"] else ""
    return [Finding(Rating.BAD, f"Closed {by} with error {shown}{reason}.".replace("  ", " "))]


def _timed_out(connection: Connection, time: float) -> Finding:
    """The finding for an idle timeout (RFC 9000 section 10.1)."""
    sentence = "The idle timeout ended it"
    if connection.received.count:
        sentence += f": nothing arrived for {milliseconds(time - connection.received.last)}"
    unanswered = connection.sender.facts.pto_count
    if unanswered:
        return Finding(
            Rating.BAD, f"{sentence}, and {unanswered} probe timeouts expired unanswered."
        )
    return Finding(Rating.FINE, f"{sentence}.")
