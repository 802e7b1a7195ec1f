"""The idle timeout (RFC 9000 section 10.1)."""

from __future__ import annotations

from quicedge.quic.connection.idle import IdleTimer


def test_it_runs_from_the_first_packet() -> None:
    timer = IdleTimer(30.0)
    assert timer.deadline(1.0) is None
    timer.on_received(100.0)
    assert timer.deadline(1.0) == 130.0


def test_the_smaller_timeout_of_both_ends_holds() -> None:
    timer = IdleTimer(30.0)
    timer.limit(20.0)
    timer.limit(40.0)
    timer.on_received(100.0)
    assert timer.deadline(1.0) == 120.0


def test_it_is_at_least_three_probe_timeouts() -> None:
    timer = IdleTimer(2.0)
    timer.on_received(100.0)
    assert timer.deadline(1.0) == 103.0
    timer.on_sent_eliciting(101.0)
    assert timer.deadline(4.0) == 113.0


def test_only_the_first_packet_sent_after_one_received_restarts_it() -> None:
    timer = IdleTimer(30.0)
    timer.on_received(100.0)
    timer.on_sent_eliciting(105.0)
    timer.on_sent_eliciting(110.0)
    assert timer.deadline(1.0) == 135.0
    timer.on_received(112.0)
    timer.on_sent_eliciting(113.0)
    assert timer.deadline(1.0) == 143.0
