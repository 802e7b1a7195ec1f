"""Which stalled streams end when their client holds its share of the memory."""

from __future__ import annotations

from quicedge.downstream.response_account import ResponseAccount
from quicedge.proxy.response_memory import ResponseMemory
from tests.support.sessions import Client

MB = 1024 * 1024


def test_no_more_stalled_streams_are_reset_than_memory_needs() -> None:
    client = Client()
    session, connection = client.session, client.connection
    streams = [client.ask() for _ in range(3)]
    session.memory = ResponseAccount(ResponseMemory(4 * MB, lambda call: call()), session.share)
    connection.streams.unsent_total = 3 * MB
    reset_stream = connection.reset_stream

    def reset(stream_id: int, code: int) -> None:
        reset_stream(stream_id, code)
        connection.streams.unsent_total -= MB

    connection.reset_stream = reset  # type: ignore[method-assign]
    for stream_id in streams:
        exchange = session.streams[stream_id].exchange
        assert exchange is not None
        exchange.set_stalled(True)
    session.settle_memory()
    assert session.memory.is_short
    assert session.reset_stalled() == 1
    assert len(connection.resets) == 1
    assert session.reset_stalled() == 0, "it holds less than its share now"
