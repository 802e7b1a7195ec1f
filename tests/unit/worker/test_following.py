"""Following live connections: who asks no more costs nothing more."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from quicedge.config.schema import Qlog
from quicedge.config.tracelimits import (
    QLOG_FOLLOW_BUFFER,
    QLOG_FOLLOW_TIMEOUT,
    QLOG_MAX_FOLLOWERS,
)
from quicedge.telemetry.follower import Follower
from quicedge.worker.tracing import Tracer
from tests.support.quicpair import make_pair
from tests.support.simnet import Link, Pair


class World:
    """A tracer, and one connection on a virtual clock."""

    def __init__(self) -> None:
        self.pair: Pair = make_pair(Link(delay=0.02), Link(delay=0.02), seed=1)
        self.pair.run(lambda: self.connection.handshake_complete)
        self.session: Any = SimpleNamespace(connection=self.connection)
        self.now = self.pair.now
        self.tracer = Tracer(Qlog(), lambda: self.now)

    @property
    def connection(self) -> Any:
        return self.pair.server.connection

    def ask(self, name: str = "a", level: str = "base") -> Any:
        return self.tracer.follow([self.session], self.connection.id, name, level)


def names(lines: bytes) -> list[str]:
    return [json.loads(record).get("name", "header") for record in lines.split(b"\x1e")[1:]]


def test_each_follower_begins_with_what_was_agreed() -> None:
    world = World()
    beginning = ["header", "quic:connection_started", "quic:recovery_parameters_set"]
    first = names(world.ask("a").lines)
    assert first[:3] == beginning
    assert first.count("quic:parameters_set") == 2
    assert names(world.ask("a").lines) == [], "nothing twice"
    second = names(world.ask("b", "core").lines)
    assert second.count("quic:parameters_set") == 2
    assert names(world.ask("a").lines) == [], "what another one begins with is not ours"


def test_who_asks_no_more_is_forgotten_and_the_trace_with_the_last() -> None:
    world = World()
    world.ask("a")
    world.ask("b")
    world.now += QLOG_FOLLOW_TIMEOUT - 1
    world.ask("b")
    world.now += 2
    world.tracer.check()
    assert world.connection.trace is not None, "somebody still follows"
    world.now += QLOG_FOLLOW_TIMEOUT
    world.tracer.check()
    assert world.connection.trace is None


def test_the_last_events_are_kept_for_who_follows() -> None:
    world = World()
    world.ask()
    world.connection.close(error_code=0x100, reason_phrase="enough")
    world.connection.stop_trace()
    answer = world.ask()
    assert answer.ended
    gone = world.tracer.follow([], world.connection.id, "a", "base")
    assert not gone.found


def test_followers_are_bounded_and_so_is_what_waits_for_them() -> None:
    world = World()
    found = [world.ask(str(number)).found for number in range(QLOG_MAX_FOLLOWERS + 1)]
    assert found == [True] * QLOG_MAX_FOLLOWERS + [False]
    follower = Follower()
    line = b"x" * 1000
    taken = sum(follower.write(line) for _ in range(QLOG_FOLLOW_BUFFER // 1000 + 50))
    assert taken * 1000 <= QLOG_FOLLOW_BUFFER
    assert follower.dropped >= 49
    assert len(follower.take()) == taken * 1000
    assert follower.write(line), "there is room again"
