"""Flow-control credit for a request's content: every byte is returned once, when it may be."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters import FilterChain
from tests.support.client_info import StubClient
from tests.support.origins import request
from tests.unit.proxy.test_exchange_ends import Client


class Creditor(Client):
    """Counts the credit that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.credit = 0

    def consumed(self, nbytes: int) -> None:
        self.credit += nbytes


class Origin:
    """Its own stream; pauses or resumes the request within a write, as some transports do."""

    def __init__(self) -> None:
        self.within_write: list[str] = []
        self.exchange: Exchange

    def open(self, *_: Any) -> Any:
        return self

    def write(self, data: bytes) -> None:
        for call in self.within_write:
            getattr(self.exchange, call)()

    def end(self, trailers: Any = ()) -> None: ...

    def abort(self) -> None: ...


CALLS = st.lists(st.sampled_from(["pause_request", "resume_request"]), max_size=3)


@given(st.lists(st.tuples(CALLS, CALLS, st.integers(1, 1000)), max_size=10))
def test_all_bytes_are_credited_once_however_the_origin_pauses(
    steps: list[tuple[list[str], list[str], int]],
) -> None:
    client, origin = Creditor(), Origin()
    exchange = Exchange(
        request("POST", body=True),
        client,
        None,
        StubClient(),
        FilterChain(),
        clock=lambda: 0.0,
        on_done=lambda _: None,
    )
    origin.exchange = exchange
    exchange.start(origin)
    sent = 0
    for within, between, size in steps:
        origin.within_write = within
        exchange.request_data(bytes(size))
        sent += size
        assert client.credit <= sent
        for call in between:
            getattr(exchange, call)()
        if not exchange.request_paused:
            assert client.credit == sent
    exchange.resume_request()
    assert client.credit == sent
