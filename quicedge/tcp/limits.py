"""What limited sending on a TCP connection, as far as the kernel reports it."""

from __future__ import annotations

from quicedge.tcp.info import TcpInfo
from quicedge.telemetry.stats import TcpLimit


def limited_seconds(info: TcpInfo, age: float | None = None) -> dict[TcpLimit, float]:
    """Seconds by limit, longest first; with the connection's `age` also those in which it was idle.

    Empty where the kernel does not report it (before Linux 4.10).
    """
    busy = info.busy_seconds
    if busy is None:
        return {}
    window = info.receive_window_limited_seconds or 0.0
    buffer = info.send_buffer_limited_seconds or 0.0
    spent = {
        TcpLimit.RECEIVE_WINDOW: window,
        TcpLimit.SEND_BUFFER: buffer,
        TcpLimit.PATH: busy - window - buffer,
    }
    if age is not None:
        spent[TcpLimit.IDLE] = age - busy
    known = {limit: seconds for limit, seconds in spent.items() if seconds > 0}
    return dict(sorted(known.items(), key=lambda item: -item[1]))


def main_limit(spent: dict[TcpLimit, float]) -> TcpLimit | None:
    """What limited most of the time that was not idle; None where all of it was."""
    return next((limit for limit in spent if limit is not TcpLimit.IDLE), None)
