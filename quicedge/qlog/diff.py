"""Two traces side by side: both ends of one connection, or two runs of the same transfer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from quicedge.qlog.align import clock_offset
from quicedge.qlog.blocked_time import Limit
from quicedge.qlog.connection import Connection
from quicedge.qlog.event import Direction, Vantage
from quicedge.qlog.summary import summary
from quicedge.qlog.units import milliseconds, percent, safe, size


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of both traces; None is unknown."""

    name: str
    first: Any
    second: Any
    show: Callable[[Any], str]

    @property
    def change(self) -> str:
        """The change from the first to the second."""
        if (
            self.show is str
            or isinstance(self.first, str)
            or self.first is None
            or self.second is None
            or self.first == self.second
        ):
            return ""
        if not self.first:
            return "new"
        ratio = self.second / self.first
        return f"×{ratio:.2f}" if ratio >= 2 or ratio <= 0.5 else f"{100 * (ratio - 1):+.1f} %"


def _bits(value: float) -> str:
    return f"{value / 1e6:.3g} Mbit/s"


def _count(value: float) -> str:
    return f"{value:.0f}"


def same_connection(first: Connection, second: Connection) -> bool:
    """Whether the two are the two ends of one connection."""
    return bool(first.identifier) and (
        first.identifier == second.identifier
        and {first.vantage, second.vantage} == {Vantage.CLIENT, Vantage.SERVER}
    )


def compare(first: Connection, second: Connection) -> list[Row]:
    """The figures of both, in the order of the statistics page."""
    return list(_rows(summary(first), summary(second)))


def _rows(first: dict[str, Any], second: dict[str, Any]) -> Iterator[Row]:
    def row(name: str, path: str, show: Callable[[Any], str]) -> Row:
        return Row(name, _at(first, path), _at(second, path), show)

    yield row("trace", "label", str)
    yield row("connection", "connection", str)
    yield row("events", "events", _count)
    yield row("duration", "duration", milliseconds)
    yield row("handshake complete", "handshake.complete", milliseconds)
    yield row("handshake confirmed", "handshake.confirmed", milliseconds)
    for name in ("min", "smoothed", "p50", "p95", "max"):
        yield row(f"RTT {name}", f"rtt.{name}", milliseconds)
    for way in Direction:
        yield row(f"packets {way}", f"{way}.packets", _count)
        yield row(f"bytes {way}", f"{way}.bytes", size)
        yield row(f"stream bytes {way}", f"{way}.stream_bytes", size)
        yield row(f"goodput {way}", f"{way}.goodput", _bits)
        yield row(f"packet size {way} (median)", f"{way}.size_p50", size)
    yield row("retransmitted", "sent.retransmitted", size)
    yield row("packets lost", "loss.lost", _count)
    yield row("spurious losses", "loss.spurious", _count)
    yield row("never received", "loss.never_received", _count)
    yield row("probe timeouts", "loss.probe_timeouts", _count)
    yield row("window at most", "congestion.window_max", size)
    yield row("window cuts", "congestion.window_cuts", _count)
    yield row("in flight at most", "congestion.max_bytes_in_flight", size)
    states = [*first["limited_by"], *second["limited_by"]]
    for state in dict.fromkeys(states):
        yield Row(
            f"limited by: {Limit(state).label}",
            first["limited_by"].get(state, 0.0),
            second["limited_by"].get(state, 0.0),
            milliseconds,
        )
    yield row("streams", "streams", _count)


def _at(facts: dict[str, Any], path: str) -> Any:
    value: Any = facts
    for name in path.split("."):
        value = value[name]
    return value


def ends(first: Connection, second: Connection) -> list[str]:
    """Findings that require both ends: what the network lost in each direction."""
    if first.begins_late or second.begins_late:
        return ["A trace begins in mid-connection: what the network lost cannot be counted."]
    offset = clock_offset(first, second)
    return [_way(first, second, offset), _way(second, first, None if offset is None else -offset)]


def _way(sender: Connection, receiver: Connection, offset: float | None) -> str:
    """One direction; `offset` converts receiver times to the sender's clock by subtraction."""
    description = f"{sender.label} → {receiver.label}: {sender.sent.count} packets sent, "
    later = 0
    if offset is not None:
        # Packets that would have arrived after the receiver closed do not count as lost (RFC 9000
        # section 10.2: a closing or draining endpoint does not process packets).
        close = receiver.close
        end = receiver.end if close is None else close["time"]
        later = sender.sent.after(end - offset - (sender.recovery.min_rtt or 0.0) / 2)
    if later:
        description += f"{later} of them after the receiver's end, "
    due = sender.sent.count - later
    lost = max(0, due - receiver.received.count)
    return (
        f"{description}{receiver.received.count} arrived; {lost} lost or dropped on the way "
        f"({percent(lost, due)}); the sender declared {sender.lost} lost."
    )


def page(first: Connection, second: Connection, names: tuple[str, str]) -> RenderableType:
    """The comparison for a terminal."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("")
    table.add_column(Text(safe(names[0])), justify="right")
    table.add_column(Text(safe(names[1])), justify="right")
    table.add_column("change", justify="right", style="yellow")
    for row in compare(first, second):
        first_shown, second_shown = (
            Text("–" if value is None else safe(row.show(value)))
            for value in (row.first, row.second)
        )
        table.add_row(row.name, first_shown, second_shown, row.change)
    parts: list[RenderableType] = [table, Text()]
    if same_connection(first, second):
        parts.append(Text("Both ends of one connection:", style="bold"))
        parts += [Text(f"  {safe(sentence)}") for sentence in ends(first, second)]
    else:
        for name, connection in zip(names, (first, second), strict=True):
            facts = summary(connection)
            parts.append(Text(f"{safe(name)}: {safe(facts['headline'])}"))
            parts += [Text(f"  {safe(item['sentence'])}") for item in facts["findings"]]
    return Group(*parts)
