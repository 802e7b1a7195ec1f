"""Fair sharing of origin connections and queue places between clients."""

from __future__ import annotations

import asyncio

import pytest
from h2.events import RequestReceived, SettingsAcknowledged

from quicedge.config import limits
from quicedge.shares import Client
from tests.support.origins import (
    OK,
    H2Peer,
    eventually,
    fetch,
    origin,
    read_head,
    request,
    send,
    upstream,
)

GREEDY = Client(b"\xc0\x00\x02\x01", b"\xc0\x00\x02")
HONEST = Client(b"\xc6\x33\x64\x01", b"\xc6\x33\x64")


async def slow_or_quick(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers /quick at once, and begins an answer of many bytes to anything else."""
    while True:
        head = await read_head(reader)
        if b"/quick" in head:
            writer.write(OK)
        else:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nbegin")


async def test_a_client_that_reads_nothing_leaves_connections_to_others() -> None:
    async with origin(slow_or_quick) as server, upstream(server, max_connections=9) as group:
        held = [send(group, request(), client=GREEDY) for _ in range(40)]
        name = held[0][0].server
        await eventually(lambda: group.stats()[name]["active"] == 6)
        for _ in range(20):
            _, recorder = send(group, request(path="/quick"), client=HONEST)
            assert (await recorder.over()).status == 200
        assert group.stats()[name]["waiting"] == 34


async def test_one_client_alone_cannot_fill_the_waiting_places() -> None:
    async with origin(slow_or_quick) as server, upstream(server, max_connections=1) as group:
        running = send(group, request(), client=GREEDY)
        await eventually(lambda: group.stats()[running[0].server]["active"] == 1)
        quick = request(path="/quick")
        waiting = [send(group, quick, client=GREEDY) for _ in range(limits.UPSTREAM_MAX_WAITING)]
        refused = waiting[-1][1]
        assert (await refused.over()).kind == "overloaded"
        patient, recorder = send(group, quick, client=HONEST)
        running[0].abort()
        assert (await recorder.over()).status == 200
        assert patient.queue_seconds > 0


async def test_clients_take_turns_when_connections_are_scarce() -> None:
    finished: list[str] = []
    gates = [asyncio.Event()]

    async def one_at_a_time(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await read_head(reader)
            await gates[0].wait()
            finished.append(head.split()[1].decode())
            writer.write(OK)

    async with origin(one_at_a_time) as server, upstream(server, max_connections=1) as group:
        first = send(group, request(path="/first"), client=GREEDY)
        await eventually(lambda: group.stats()[first[0].server]["active"] == 1)
        crowd = [send(group, request(path="/crowd"), client=GREEDY)[1] for _ in range(20)]
        honest = [send(group, request(path="/honest"), client=HONEST)[1] for _ in range(3)]
        gates[0].set()
        for recorder in [*crowd, *honest]:
            await recorder.over()
        assert max(i for i, path in enumerate(finished) if path == "/honest") <= 6


async def test_a_stalled_request_gives_its_connection_to_one_that_waits() -> None:
    async with origin(slow_or_quick) as server, upstream(server, max_connections=1) as group:
        held = send(group, request(), client=GREEDY)
        await eventually(lambda: held[1].head is not None)
        held[0].stalled = True
        group.reclaim()
        assert held[1].error is None, "nobody waits: nothing is taken from anybody"
        _, recorder = send(group, request(path="/quick"), client=HONEST)
        group.reclaim()
        assert (await held[1].over()).kind == "stalled"
        assert (await recorder.over()).status == 200


async def test_a_request_that_makes_progress_keeps_its_connection() -> None:
    async with origin(slow_or_quick) as server, upstream(server, max_connections=1) as group:
        held = send(group, request(), client=GREEDY)
        await eventually(lambda: held[1].head is not None)
        waiting, recorder = send(group, request(path="/quick"), client=HONEST)
        group.reclaim()
        assert held[1].error is None
        held[0].abort()
        assert (await recorder.over()).status == 200
        assert waiting.queue_seconds > 0


async def test_only_as_many_stalled_requests_end_as_others_wait() -> None:
    async with origin(slow_or_quick) as server, upstream(server, max_connections=4) as group:
        crowd = [Client(bytes((192, 0, n, 1)), bytes((192, 0, n))) for n in range(4)]
        held = [send(group, request(), client=client) for client in crowd]
        for _, recorder in held:
            await eventually(lambda recorder=recorder: recorder.head is not None)
        for stream, _ in held:
            stream.stalled = True
        _, recorder = send(group, request(path="/quick"), client=HONEST)
        group.reclaim()
        assert (await recorder.over()).status == 200
        assert sum(r.error is not None for _, r in held) == 1


async def test_a_stalled_request_keeps_its_connection_from_clients_that_hold_more() -> None:
    """A phone in a tunnel loses nothing to a client that waits because it holds its share."""
    async with origin(slow_or_quick) as server, upstream(server, max_connections=9) as group:
        phone = send(group, request(), client=HONEST)
        await eventually(lambda: phone[1].head is not None)
        greedy = [send(group, request(), client=GREEDY) for _ in range(40)]
        name = phone[0].server
        await eventually(lambda: group.stats()[name]["active"] == 7)
        assert group.stats()[name]["waiting"] == 34
        phone[0].stalled = True
        group.reclaim()
        assert phone[1].error is None
        greedy[0][0].stalled = True
        group.reclaim()
        assert (await greedy[0][1].over()).kind == "stalled", "its own it may have"
        await eventually(lambda: server.connections == 9)  # none is under way
        assert phone[1].error is None


async def test_shares_are_those_of_the_streams_that_an_http2_origin_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "UPSTREAM_H2_CONNECTIONS", 1)

    async def silent_unless_quick(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        peer = H2Peer(reader, writer, _3=9)
        while True:
            event = await peer.wait(RequestReceived)
            assert event.stream_id is not None
            if (b":path", b"/quick") in (event.headers or ()):
                await peer.respond(event.stream_id, b"ok")

    quick = request(path="/quick")
    async with origin(silent_unless_quick) as server, upstream(server, protocol="h2") as group:
        await fetch(group, quick)  # SETTINGS are known from here on
        held = [send(group, request(), client=GREEDY) for _ in range(40)]
        name = held[0][0].server
        assert group.stats()[name]["active"] == 6
        for _ in range(20):
            _, recorder = send(group, quick, client=HONEST)
            assert (await recorder.over()).status == 200


async def test_an_http2_origin_that_allows_no_streams_may_allow_some_later() -> None:
    async def none_at_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer, _3=0 if server.connections == 1 else 9)
        if server.connections == 1:
            await peer.flush()
            await peer.wait(SettingsAcknowledged)
            return
        while True:
            await peer.respond(await peer.request(), b"ok")

    async with origin(none_at_first) as server, upstream(server, protocol="h2") as group:
        early = await fetch(group, request())  # sent before SETTINGS were known
        assert early.error is not None
        _, recorder = send(group, request(), client=GREEDY)
        assert (await recorder.over()).status == 200
