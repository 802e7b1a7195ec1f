"""What limited sending on TCP, from the kernel's clocks."""

from __future__ import annotations

from quicedge.tcp.info import TcpInfo
from quicedge.tcp.limits import limited_seconds, main_limit
from quicedge.telemetry.stats import TcpLimit

NOTHING = TcpInfo(*[0] * 32)


def info(busy: float, window: float = 0, buffer: float = 0) -> TcpInfo:
    return NOTHING._replace(
        busy_time=int(busy * 1e6), rwnd_limited=int(window * 1e6), sndbuf_limited=int(buffer * 1e6)
    )


def test_time_is_divided_by_what_limited_sending() -> None:
    spent = limited_seconds(info(5, window=1, buffer=1.5), age=20)
    assert list(spent.items()) == [
        (TcpLimit.IDLE, 15),
        (TcpLimit.PATH, 2.5),
        (TcpLimit.SEND_BUFFER, 1.5),
        (TcpLimit.RECEIVE_WINDOW, 1),
    ]


def test_the_main_limit_is_the_longest_that_is_not_idleness() -> None:
    assert main_limit(limited_seconds(info(5, window=4), age=100)) is TcpLimit.RECEIVE_WINDOW
    assert main_limit(limited_seconds(info(0), age=100)) is None


def test_an_old_kernel_reports_no_limits() -> None:
    assert limited_seconds(NOTHING, age=10) == {}
    assert main_limit({}) is None
