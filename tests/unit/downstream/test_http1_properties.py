"""The HTTP/1.1 session under any order of events: client, origin, transport, clock and worker."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from quicedge.config.schema import Limits
from quicedge.http.errors import OriginFailure
from quicedge.http.message import Response
from quicedge.telemetry.outcomes import Outcome
from quicedge.upstream.base import UpstreamError
from tests.support.h1client import H1Client, chunked, get, post
from tests.support.sessions import OriginRequest

REQUESTS = [
    get("/get"),
    get("/head", method="HEAD"),
    get("/close", "Connection: close"),
    get("/old", version="1.0"),
    get("/old", "Connection: keep-alive", version="1.0"),
    post(b"x" * 300),
    post(b"y" * 100_000),
    chunked(b"one", b"two" * 2000, trailers="x-sum: 1\r\n"),
    get("/expect", "Content-Length: 3", "Expect: 100-continue", method="POST") + b"abc",
    b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    get("/", "Transfer-Encoding: chunked", method="POST") + b"5\r\nhelloX",
]
EVENTS = (
    "send", "send half", "send half", "origin head", "origin head with length", "origin data",
    "origin data", "origin end", "origin end", "origin fails", "origin pauses", "origin resumes",
    "client stops reading", "client reads", "second", "minute", "memory is short",
    "memory is free", "end", "drain", "refuse",
)  # fmt: skip


class Run:
    """One connection, its stream of request bytes, and what the origin has begun."""

    def __init__(self, stream: bytes) -> None:
        self.client = H1Client()
        self.left = stream
        self.lengths: dict[int, int] = {}
        """Bytes that answers with a length still owe, by request."""
        self.begun: set[int] = set()
        self.capacity = self.client.edge.policy.response_memory.pool.capacity
        self.has_ended = False

    def do(self, event: str) -> None:
        client = self.client
        session = client.session
        if event.startswith("send"):
            size = len(self.left) if event == "send" else (len(self.left) + 1) // 2
            data, self.left = self.left[:size], self.left[size:]
            if data and not client.is_over and not self.has_ended:
                client.send(data)
        elif event.startswith("origin") or event == "refuse":
            for index, request in enumerate(client.origin):
                if request.handler.outcome is None and not request.aborted:
                    self._answer(event, index, request)
        elif event == "client stops reading":
            client.transport.stuck = True
        elif event == "client reads":
            client.transport.stuck = False
            if not client.is_over:
                client.transport.take()
        elif event in ("second", "minute"):
            for _ in range(1 if event == "second" else 61):
                client.edge.clock += 1
                client.loop.advance(1)
                if session.is_busy:
                    session.timeouts.check(session, Limits(), client.edge.clock)
                    session.release_reservations()
                    session.check_held(client.edge.clock)
                else:
                    session.check_idle(client.edge.clock, 60)
                if session.going_away:
                    session.close_if_drained()
        elif event.startswith("memory"):
            short = event == "memory is short"
            client.edge.policy.response_memory.pool.capacity = 0 if short else self.capacity
            if not short:
                session.memory_is_free()
        elif event == "end" and not self.has_ended and not client.is_over:
            self.has_ended = True
            if not client.end():
                assert client.is_over
        elif event == "drain":
            session.announce_drain()
            session.drain()
        client.loop.run()

    def _answer(self, event: str, index: int, request: OriginRequest) -> None:
        exchange = request.handler
        if event == "origin fails":
            exchange.failed(UpstreamError(OriginFailure.RESET))
        elif event == "origin pauses":
            exchange.pause_request()
        elif event == "origin resumes":
            exchange.resume_request()
        elif event == "refuse":
            exchange.refuse(403, Outcome.DENIED)
        elif index not in self.begun:
            if event.startswith("origin head"):
                self.begun.add(index)
                has_length = event.endswith("length")
                self.lengths[index] = 20_000 if has_length else -1
                fields = [(b"content-length", b"20000")] if has_length else []
                exchange.response(Response(200, fields))
        elif event == "origin data":
            size = 10_000 if self.lengths[index] < 0 else min(10_000, self.lengths[index])
            if self.lengths[index] > 0:
                self.lengths[index] -= size
            if size:
                exchange.data(bytes(size))
        elif event == "origin end":
            if self.lengths[index] > 0:
                exchange.data(bytes(self.lengths[index]))
            exchange.end(())

    def finish(self) -> None:
        client = self.client
        client.lose()
        assert client.ended_sessions == [client.session]
        for request in client.origin:
            assert request.handler.outcome is not None
            assert request.handler.ended_at is not None
            assert request.aborted or request.handler.outcome is not Outcome.CLIENT_ABORTED
        assert client.session.memory.account.held == 0
        assert client.session.unread_bytes == 0


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=5),
    st.lists(st.sampled_from(EVENTS), max_size=60),
)
def test_whatever_happens_every_exchange_ends_once_and_nothing_is_left(
    requests: list[bytes], events: list[str]
) -> None:
    run = Run(b"".join(requests))
    for event in events:
        run.do(event)
        # Never two at a time, and never more than what was sent.
        running = [r for r in run.client.origin if r.handler.outcome is None]
        assert len(running) <= 1
        assert len(run.client.origin) <= len(requests)
    run.finish()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(REQUESTS[:2] + REQUESTS[5:9]), min_size=1, max_size=6),
    st.lists(st.sampled_from(EVENTS[:3]), max_size=6),
)
def test_honest_requests_are_all_answered_in_order(requests: list[bytes], cuts: list[str]) -> None:
    run = Run(b"".join(requests))
    for event in [*cuts, "send"]:
        run.do(event)
    for _ in requests:
        run.do("origin head")
        run.do("origin data")
        run.do("origin end")
    assert len(run.client.origin) == len(requests)
    assert all(request.ended for request in run.client.origin)
    assert [r.handler.outcome for r in run.client.origin] == [Outcome.COMPLETE] * len(requests)
    assert not run.client.is_over
    run.finish()
