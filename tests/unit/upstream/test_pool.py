"""The connection pool: limits, queueing, dead connections, retries, timeouts, shutdown."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import msgspec
import pytest

from quicedge.config import limits
from quicedge.config.schema import OriginServer, Route
from quicedge.shares import Client
from quicedge.upstream.group import Upstream
from quicedge.upstream.limited import LimitedUpstream, overrides_of
from quicedge.upstream.selection import Selection
from quicedge.upstream.server import Server
from tests.support.origins import (
    OK,
    TIMEOUT,
    H2Peer,
    Recorder,
    Script,
    config_of,
    eventually,
    fetch,
    holding,
    origin,
    read_head,
    request,
    says,
    send,
    upstream,
)
from tests.support.peers import free_port


def refused() -> str:
    """The URL of a port that refuses connections."""
    return f"http://127.0.0.1:{free_port()}"


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


# --- waiting ------------------------------------------------------------------------------------


async def test_requests_beyond_max_connections_wait_their_turn() -> None:
    go = asyncio.Event()
    async with origin(holding(go)) as server, upstream(server, max_connections=2) as group:
        sent = [send(group, request(path=f"/{n}")) for n in range(6)]
        await eventually(lambda: group.stats()[sent[0][0].server]["active"] == 2)
        assert group.stats()[sent[0][0].server]["waiting"] == 4
        go.set()
        for _, recorder in sent:
            assert (await recorder.over()).status == 200
        assert server.connections == 2
        assert sent[-1][0].queue_seconds > 0


async def test_no_request_waits_where_none_may() -> None:
    options = {"max_connections": 2, "max_waiting": 0}
    async with origin(silent) as server, upstream(server, **options) as group:
        running = [send(group, request()) for _ in range(2)]  # they wait for connections alone
        _, recorder = send(group, request())
        await recorder.over()
        assert recorder.kind == "overloaded"
        assert recorder.error is not None
        assert recorder.error.retry_after == 1
        await eventually(lambda: group.stats()[running[0][0].server]["active"] == 2)
        assert all(not recorder.is_over for _, recorder in running)
        running[0][0].abort()
        stream, recorder = send(group, request())
        await eventually(lambda: group.stats()[stream.server]["active"] == 2)
        assert not recorder.is_over


async def test_requests_are_limited_on_shared_connections_too() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        while True:
            await peer.request()

    options = {"protocol": "h2", "max_requests": 3, "max_waiting": 1}
    async with origin(script) as server, upstream(server, **options) as group:
        running = [send(group, request()) for _ in range(3)]
        name = running[0][0].server
        await eventually(lambda: group.stats()[name]["active"] == 3)
        waiting, _ = send(group, request())
        _, refused = send(group, request())
        assert (await refused.over()).kind == "overloaded"
        assert group.stats()[name]["waiting"] == 1
        running[0][0].abort()
        await eventually(lambda: group.stats()[name]["waiting"] == 0)
        assert group.stats()[name]["active"] == 3
        waiting.abort()


async def test_a_server_without_a_free_place_is_passed_over_for_another_of_its_tier() -> None:
    options = {"max_connections": 1, "max_waiting": 0}
    async with origin(silent) as first, origin(silent) as second, origin(silent) as spare:
        servers = [OriginServer(first.url), OriginServer(second.url, tier=0)]
        servers.append(OriginServer(spare.url, tier=1))
        config = msgspec.structs.replace(config_of(**options), servers=servers)
        group = Upstream("test", config)
        streams = [send(group, request())[0] for _ in range(2)]
        streams[0].abort()
        streams += [send(group, request())[0] for _ in range(2)]
        running = {stream.server for stream in streams[1:3]}
        assert running == {server.address.text for server in group.servers[:2]}
        _, recorder = send(group, request())
        assert (await recorder.over()).kind == "overloaded"
        await group.close()


async def test_not_every_server_of_a_full_upstream_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Server, "_start_connecting", lambda self: None)
    chosen: list[Server | None] = []
    choose = Selection.choose

    def counted(self: Selection, *arguments: Any) -> Server | None:
        chosen.append(choose(self, *arguments))
        return chosen[-1]

    count = 1200
    urls = (f"http://127.0.0.1:{20_000 + number}" for number in range(count))
    async with upstream(*urls, max_connections=1, max_waiting=0) as group:
        running = [send(group, request())[0] for _ in range(count)]
        assert len({stream.server for stream in running}) == count
        monkeypatch.setattr(Selection, "choose", counted)
        assert (await fetch(group, request())).kind == "overloaded"
        assert len(chosen) == 1
        running[7].abort()
        stream, _ = send(group, request())
        assert stream.server == running[7].server
        assert len(chosen) <= 3


async def test_too_many_waiting_requests_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UPSTREAM_MAX_WAITING", 2)
    async with origin(silent) as server, upstream(server, max_connections=1) as group:
        running = send(group, request())
        await eventually(lambda: group.stats()[running[0].server]["active"] == 1)
        waiting = [send(group, request()) for _ in range(2)]
        stream, recorder = send(group, request())
        assert recorder.events == []  # told later, not from within open
        assert (await recorder.over()).kind == "overloaded"
        waiting[0][0].abort()
        assert group.stats()[stream.server]["waiting"] == 1
        send(group, request())
        assert group.stats()[stream.server]["waiting"] == 2


async def test_a_burst_that_max_connections_allows_is_not_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of it waits at first: for connections."""
    monkeypatch.setattr(limits, "UPSTREAM_MAX_WAITING", 2)
    async with origin(says(OK)) as server, upstream(server, max_connections=30) as group:
        client = Client(b"\x0a\0\0\1", b"\x0a\0\0")
        sent = [send(group, request(path=f"/{n}"), client=client) for n in range(20)]
        for _, recorder in sent:
            assert (await recorder.over()).status == 200


async def test_waiting_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UPSTREAM_QUEUE_TIMEOUT", 0.01)
    options = {"max_connections": 1, "connect_timeout": 0.04}
    async with origin(silent) as server, upstream(server, **options) as group:
        send(group, request())
        await eventually(lambda: server.connections == 1)
        assert (await fetch(group, request())).kind == "overloaded"


async def test_a_connection_that_fails_makes_room_for_who_waits() -> None:
    answers = [b"garbage\r\n\r\n", OK]

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(answers.pop(0))
        await reader.read()

    async with origin(script) as server, upstream(server, max_connections=1) as group:
        first, second = send(group, request())[1], send(group, request())[1]
        assert (await first.over()).kind == "protocol"
        assert (await second.over()).status == 200


async def test_the_connection_used_last_is_used_first() -> None:
    go = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = b"%d" % server.connections
        while True:
            await read_head(reader)
            await go.wait()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(name) + name)

    async with origin(script) as server, upstream(server) as group:
        both = [send(group, request())[1] for _ in range(2)]
        await eventually(lambda: server.connections == 2)
        go.set()
        for recorder in both:
            await recorder.over()
        names = {bytes((await fetch(group, request())).body) for _ in range(5)}
        assert len(names) == 1


# --- retries ------------------------------------------------------------------------------------


def answers_once(heads: list[bytes]) -> Script:
    """A script whose connections answer one request, and close when they have read another."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (OK, b""):
            heads.append(await read_head(reader))
            if b"chunked" in heads[-1]:
                await reader.readuntil(b"0\r\n\r\n")
            writer.write(answer)

    return script


@pytest.mark.parametrize(("method", "tried"), [("GET", True), ("PUT", True), ("POST", False)])
async def test_a_stale_connection_is_retried_when_idempotent(method: str, tried: bool) -> None:
    heads: list[bytes] = []
    async with origin(answers_once(heads)) as server, upstream(server) as group:
        await fetch(group, request())
        recorder = await fetch(group, request(method, body=method != "GET"), b"body")
        if tried:
            assert recorder.status == 200
            assert len(heads) == 3
            assert heads[1] == heads[2]
        else:
            assert recorder.kind == "reset"
            assert len(heads) == 2
        (stats,) = group.stats().values()
        assert (stats["failures"], stats["retries"]) == (1, int(tried))


async def test_an_origin_that_closes_idle_connections_without_a_word_meets_no_retry_budget() -> (
    None
):
    """Each request but the first finds a connection that is gone: nothing was asked twice."""
    heads: list[bytes] = []
    async with origin(answers_once(heads)) as server, upstream(server, retry_budget=0.0) as group:
        for _ in range(50):
            assert (await fetch(group, request())).status == 200


async def test_no_retry_without_leave() -> None:
    async with origin(answers_once([])) as server, upstream(server, retries=0) as group:
        await fetch(group, request())
        assert (await fetch(group, request())).kind == "reset"


async def test_no_retry_once_a_byte_of_the_response_came() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(OK)
        await read_head(reader)
        writer.write(b"H")

    async with origin(script) as server, upstream(server) as group:
        await fetch(group, request())
        assert (await fetch(group, request())).kind == "reset"
        assert server.connections == 1


async def test_no_retry_of_a_body_too_large_to_keep() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(OK)
        head = await read_head(reader)
        await reader.readexactly(int(head.split(b"content-length: ")[1]))

    async with origin(script) as server, upstream(server) as group:
        await fetch(group, request())
        small = limits.UPSTREAM_REPLAY_BODY
        recorder = await fetch(
            group, request("PUT", body=True, length=small + 1), b"x" * small, b"y"
        )
        assert recorder.kind == "reset"
        assert server.connections == 1


async def test_a_retry_sends_the_same_body_again() -> None:
    bodies: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await read_head(reader)
            if head.startswith(b"PUT"):
                bodies.append(await reader.readexactly(9))
                if len(bodies) == 1:
                    return
            writer.write(OK)

    async with origin(script) as server, upstream(server) as group:
        await fetch(group, request())
        recorder = Recorder()
        stream = group.open(request("PUT", body=True, length=9), recorder)
        before = group.stats()[stream.server]["bytes_sent"]
        stream.write(b"abc")
        await eventually(lambda: group.stats()[stream.server]["bytes_sent"] > before)
        stream.write(b"def")
        stream.write(b"ghi")
        stream.end()
        assert (await recorder.over()).status == 200
        assert bodies == [b"abcdefghi"] * 2


async def test_a_connection_closed_while_idle_is_not_used() -> None:
    close = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(OK)
        if server.connections == 1:
            await close.wait()
        else:
            await reader.read()

    async with origin(script) as server, upstream(server) as group:
        stream, recorder = send(group, request())
        await recorder.over()
        close.set()
        await eventually(lambda: not group.stats()[stream.server]["open"])
        assert (await fetch(group, request("POST"))).status == 200


async def test_a_close_the_loop_has_not_seen_is_found_before_a_post() -> None:
    """The race of `Connection: close`: the FIN is in the socket when the request comes."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    loop = asyncio.get_running_loop()
    listener.setblocking(False)

    async def answer(conn: socket.socket) -> None:
        await loop.sock_recv(conn, 65536)
        await loop.sock_sendall(conn, OK)

    with listener:
        async with asyncio.timeout(TIMEOUT), upstream(url) as group:
            first = send(group, request())[1]
            conn, _ = await loop.sock_accept(listener)
            with conn:
                await answer(conn)
                await first.over()
            # Closed just now; the loop has not polled since.
            post = send(group, request("POST"))[1]
            conn, _ = await loop.sock_accept(listener)
            with conn:
                await answer(conn)
                assert (await post.over()).status == 200
            (stats,) = group.stats().values()
            assert (stats["failures"], stats["retries"]) == (0, 0)


async def test_a_refused_connection_goes_to_the_next_server() -> None:
    async with origin(says(OK)) as server, upstream(refused(), server) as group:
        for _ in range(4):
            stream, recorder = send(group, request("POST", body=True), b"body")
            # The script answers after the head; the body is of no interest to it.
            assert (await recorder.over()).status == 200
            assert stream.server == server.url.removeprefix("http://")


async def test_when_no_server_takes_connections_the_last_reason_is_told() -> None:
    async with upstream(refused(), refused(), retries=5) as group:
        stream, recorder = send(group, request())
        assert recorder.events == []
        assert (await recorder.over()).kind == "connect"
        assert stream.server in str(recorder.error)
        assert sum(stats["failures"] for stats in group.stats().values()) == 2


async def test_all_that_wait_for_a_dead_server_fail() -> None:
    async with upstream(refused(), max_connections=1) as group:
        recorders = [send(group, request())[1] for _ in range(20)]
        for recorder in recorders:
            assert (await recorder.over()).kind == "connect"


async def test_a_name_that_does_not_resolve() -> None:
    async with upstream("http://nowhere.invalid:80") as group:
        assert (await fetch(group, request())).kind == "connect"


async def test_round_robin() -> None:
    async with origin(says(OK)) as one, origin(says(OK)) as two, upstream(one, two) as group:
        streams = [send(group, request()) for _ in range(4)]
        for _, recorder in streams:
            await recorder.over()
        names = [stream.server for stream, _ in streams]
        assert names[:2] == names[2:]
        assert len(set(names)) == 2


# --- timeouts -----------------------------------------------------------------------------------


async def test_connect_timeout() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(address)
            async with upstream(f"http://127.0.0.1:{address[1]}", connect_timeout=0.1) as group:
                assert (await fetch(group, request())).kind == "connect_timeout"
        finally:
            for filler in fillers:
                filler.close()


async def test_first_byte_timeout_runs_from_the_end_of_the_request() -> None:
    async with origin(silent) as server, upstream(server, first_byte_timeout=0.1) as group:
        recorder = Recorder()
        stream = group.open(request("POST", body=True), recorder)
        await asyncio.sleep(0.2)
        assert recorder.events == []
        stream.end()
        assert (await recorder.over()).kind == "first_byte_timeout"
        await eventually(lambda: not group.stats()[stream.server]["open"])


async def test_a_route_has_timeouts_and_retries_of_its_own() -> None:
    async with origin(silent) as server, upstream(server, first_byte_timeout=60) as group:
        route = Route(first_byte_timeout=0.1, retries=0)
        limited = LimitedUpstream(group, overrides_of(route))
        assert (limited.config.retries, limited.config.idle_timeout) == (0, 60)
        recorder = Recorder()
        limited.open(request(), recorder)
        assert (await recorder.over()).kind == "first_byte_timeout"


async def test_first_byte_timeout_is_not_retried() -> None:
    async with origin(silent) as server, upstream(server, first_byte_timeout=0.05) as group:
        assert (await fetch(group, request())).kind == "first_byte_timeout"
        assert server.connections == 1


async def test_idle_timeout_between_two_pieces() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
        for _ in range(4):
            writer.write(b"x")
            await asyncio.sleep(0.05)
        await reader.read()

    async with origin(script) as server, upstream(server, idle_timeout=0.15) as group:
        recorder = await fetch(group, request())
        assert (recorder.kind, bytes(recorder.body)) == ("idle_timeout", b"xxxx")


async def test_idle_timeout_for_an_origin_that_does_not_read() -> None:
    stop = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await stop.wait()

    async with origin(script) as server, upstream(server, idle_timeout=0.15) as group:
        recorder = Recorder()
        stream = group.open(request("POST", body=True), recorder)
        async with asyncio.timeout(TIMEOUT):
            while not recorder.is_over:
                if not recorder.request_paused:
                    stream.write(bytes(65536))
                await asyncio.sleep(0)
        assert recorder.kind == "idle_timeout"
        stop.set()


async def test_an_idle_connection_is_closed_after_keepalive_timeout() -> None:
    async with origin(says(OK)) as server, upstream(server, keepalive_timeout=0.1) as group:
        stream, recorder = send(group, request())
        await recorder.over()
        assert group.stats()[stream.server]["idle"] == 1
        await eventually(lambda: not group.stats()[stream.server]["open"])


# --- the body before there is a connection ------------------------------------------------------


async def test_a_body_waits_for_its_connection_within_bounds() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await read_head(reader)
            if b"PUT" in head:
                got.append(await reader.readexactly(size))
            else:
                await go.wait()
            writer.write(OK)

    got: list[bytes] = []
    go = asyncio.Event()
    size = 3 * limits.UPSTREAM_REPLAY_BODY
    async with origin(script) as server, upstream(server, max_connections=1) as group:
        first = send(group, request())[1]
        recorder = Recorder()
        stream = group.open(request("PUT", body=True, length=size), recorder)
        stream.write(b"a" * (size // 3 - 1))
        for _ in range(3):
            await asyncio.sleep(0)  # event loop iterations, in one of which it would be told
        assert not recorder.request_paused
        stream.write(b"b")
        assert recorder.events == []  # told later, not from within write
        await recorder.until(lambda: recorder.request_paused)
        stream.write(b"c" * (size // 3))  # was on its way
        go.set()
        await first.over()
        await recorder.until(lambda: not recorder.request_paused)
        stream.write(b"d" * (size // 3))
        stream.end()
        assert (await recorder.over()).status == 200
        third = size // 3
        assert got == [b"a" * (third - 1) + b"b" + b"c" * third + b"d" * third]


# --- the end --------------------------------------------------------------------------------------


async def test_close_with_grace_lets_running_requests_end() -> None:
    go = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await go.wait()
        writer.write(OK)
        await reader.read()

    async with origin(script) as server:
        group = Upstream("test", config_of(server))
        recorder = send(group, request())[1]
        await eventually(lambda: server.connections == 1)
        closing = asyncio.create_task(group.close(grace=5))
        await asyncio.sleep(0)  # it starts
        late = await fetch(group, request())
        assert late.kind == "no_server"
        go.set()
        await asyncio.wait_for(closing, 5)
        assert recorder.status == 200


async def test_close_without_grace_fails_what_runs_and_what_waits() -> None:
    async with origin(silent) as server:
        group = Upstream("test", config_of(server, max_connections=1))
        running, waiting = send(group, request())[1], send(group, request())[1]
        await eventually(lambda: server.connections == 1)
        await asyncio.wait_for(group.close(), 5)
        assert (running.kind, waiting.kind) == ("reset", "no_server")


async def test_retire_closes_idle_connections_and_leaves_running_ones() -> None:
    go = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        if b"/slow" in head:
            await go.wait()
        writer.write(OK)
        await reader.read()

    async with origin(script) as server:
        group = Upstream("test", config_of(server))
        slow = send(group, request(path="/slow"))[1]
        stream, fast = send(group, request())
        await fast.over()
        group.retire()
        await eventually(lambda: group.stats()[stream.server]["open"] == 1)
        go.set()
        assert (await slow.over()).status == 200
        await eventually(lambda: group.stats()[stream.server]["open"] == 0)


async def test_a_retired_upstream_serves_what_waits_or_is_on_its_way() -> None:
    go = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while b"/slow" in await read_head(reader):
            await go.wait()
            writer.write(OK)
        writer.write(OK)
        await reader.read()

    async with origin(script) as server:
        group = Upstream("test", config_of(server, max_connections=1))
        running = send(group, request(path="/slow"))[1]
        await eventually(lambda: server.connections == 1)
        waiting = send(group, request(path="/slow"))[1]
        group.retire()
        late = send(group, request())[1]
        go.set()
        for recorder in (running, waiting, late):
            assert (await recorder.over()).status == 200
        await eventually(lambda: not any(stats["open"] for stats in group.stats().values()))
        # As do those that come when it has no connection any more.
        after = send(group, request())[1]
        assert (await after.over()).status == 200
        await eventually(lambda: not any(stats["open"] for stats in group.stats().values()))
        await group.close()


async def test_close_while_connecting_leaves_nothing() -> None:
    async with origin(silent) as server:
        group = Upstream("test", config_of(server))
        recorder = send(group, request())[1]
        await asyncio.sleep(0)
        await asyncio.wait_for(group.close(), 5)
        assert recorder.kind == "no_server"


async def test_connection_attempts_that_have_not_begun_do_not_delay_the_end() -> None:
    async with origin(silent) as running:
        group = Upstream("test", config_of(running))
        _, recorder = send(group, request())
        # No iteration of the event loop in between: the attempt is cancelled before it begins.
        async with asyncio.timeout(limits.UPSTREAM_TERMINATE_TIMEOUT / 2):
            await group.close()
        await recorder.over()
        assert recorder.kind == "no_server"
        assert running.connections == 0


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a",
        "http://",
        "http://a/b",
        "http://a:b",
        "http://a:99999",
        "unix:a",
        "http://u@a",
        "",
    ],
)
async def test_a_bad_server_names_its_key(url: str) -> None:
    with pytest.raises(ValueError, match=r"upstreams\.shop\.servers"):
        Upstream("shop", config_of(url))


async def test_connect_is_not_forwarded() -> None:
    async with upstream(refused()) as group:
        assert (await fetch(group, request("CONNECT"))).kind == "no_server"
