"""The states of a connection, and that the first reason for its end counts."""

from __future__ import annotations

from quicedge.quic.connection.closing import State
from quicedge.quic.connection.lifecycle import Lifecycle
from quicedge.quic.ending import Ending
from quicedge.quic.events import ConnectionTerminated

DEADLINE = 7.0


def reason(code: int) -> ConnectionTerminated:
    return ConnectionTerminated(error_code=code, frame_type=None, reason_phrase="")


def test_a_local_close_is_due_until_it_was_sent() -> None:
    life = Lifecycle()
    assert life.is_alive
    life.close(reason(1))
    assert not life.is_alive
    assert life.is_close_due
    assert life.state is State.FIRST_FLIGHT  # until CONNECTION_CLOSE was sent
    life.begin_closing([b"close"], DEADLINE)
    assert not life.is_close_due
    assert (life.state, life.deadline) == (State.CLOSING, DEADLINE)


def test_the_first_reason_counts() -> None:
    life = Lifecycle()
    first = reason(1)
    life.close(first)
    life.close(reason(2))
    life.drain(reason(3), Ending.PEER_CLOSE, DEADLINE)
    assert life.terminate(reason(4), Ending.IDLE_TIMEOUT) is first
    assert life.event is first
    assert life.ending is Ending.LOCAL_CLOSE
    assert (life.state, life.deadline) == (State.TERMINATED, None)


def test_draining_sends_nothing() -> None:
    life = Lifecycle()
    life.drain(reason(3), Ending.PEER_CLOSE, DEADLINE)
    assert not life.is_alive
    assert not life.is_close_due
    assert (life.state, life.deadline) == (State.DRAINING, DEADLINE)
    life.receive_late()
    assert life.take_closing() == ([], None)


def test_late_datagrams_are_answered_ever_more_rarely_until_the_end() -> None:
    life = Lifecycle()
    life.close(reason(1))
    life.begin_closing([b"close"], DEADLINE)
    assert life.take_closing() == ([], None)
    answered = []
    for number in range(1, 10):
        life.receive_late()
        if life.take_closing() == ([b"close"], None):
            answered.append(number)
    assert answered == [1, 2, 4, 8]
    for _ in range(7):
        life.receive_late()
    life.terminate(reason(1), Ending.LOCAL_CLOSE)
    assert life.take_closing() == ([], None)


def test_a_late_datagram_from_elsewhere_is_answered_there_as_far_as_its_size_allows() -> None:
    life = Lifecycle()
    life.close(reason(1))
    life.begin_closing([b"first", b"second"], DEADLINE)
    life.receive_late("elsewhere", 2)
    assert life.take_closing() == ([b"first"], "elsewhere")
    life.receive_late("elsewhere", 40)
    assert life.take_closing() == ([b"first", b"second"], "elsewhere")
    life.receive_late("elsewhere", 40)
    assert life.take_closing() == ([], None)


def test_a_connection_may_end_at_once() -> None:
    life = Lifecycle()
    event = reason(0)
    assert life.terminate(event, Ending.IDLE_TIMEOUT) is event
    assert not life.is_alive
    assert life.ending is Ending.IDLE_TIMEOUT
