"""Health: servers that are down get no requests and recover; load balancing."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from structlog.testing import capture_logs

from quicedge.config import limits
from quicedge.http.errors import OriginFailure
from quicedge.upstream.base import UpstreamError
from quicedge.upstream.group import Upstream
from tests.support.origins import (
    OK,
    eventually,
    fetch,
    origin,
    read_head,
    request,
    says,
    send,
    upstream,
)
from tests.support.peers import free_port

BROKEN = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


async def told(group: Upstream, count: int, *fields: tuple[bytes, bytes]) -> Counter[str]:
    """Which servers `count` requests were sent to, one after the other."""
    servers = []
    for _ in range(count):
        stream, recorder = send(group, request("GET", "/", *fields))
        assert (await recorder.over()).status == 200
        servers.append(stream.server)
    return Counter(servers)


async def test_a_server_that_cannot_be_reached_costs_one_request_one_try() -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    async with origin(says(OK)) as server, upstream(gone, server) as group:
        with capture_logs() as logs:
            assert sum((await told(group, 8)).values()) == 8
        counters = {s.address.text: s.counters for s in group.servers}
        assert counters[gone.removeprefix("http://")].requests == 1
        assert [entry["event"] for entry in logs] == ["origin unreachable"]
        assert "Errno 111" in logs[0]["error"]


async def test_a_server_is_found_again_without_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UPSTREAM_RECHECK", 0.01)
    port = free_port()
    async with upstream(f"http://127.0.0.1:{port}") as group:
        (server,) = group.servers
        assert (await fetch(group, request())).kind == "connect"
        assert not server.health.is_up
        async with origin(says(OK), port=port):
            await eventually(lambda: server.health.is_up)
            assert server.counters.requests == 1
            assert (await told(group, 1)).total() == 1


async def test_when_no_server_is_up_all_are_tried() -> None:
    urls = [f"http://127.0.0.1:{free_port()}" for _ in range(2)]
    async with upstream(*urls, retries=1) as group:
        for _ in range(3):
            assert (await fetch(group, request())).kind == "connect"
        assert [server.counters.requests for server in group.servers] == [3, 3]


class Switch:
    """An origin whose health can be changed."""

    def __init__(self) -> None:
        self.answer = OK
        self.heads: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await read_head(reader)
            self.heads.append(head)
            if self.answer:
                writer.write(self.answer if head.startswith(b"GET /up ") else OK)


@pytest.mark.parametrize("broken", [BROKEN, b""])
async def test_a_server_that_fails_its_checks_gets_no_requests(broken: bytes) -> None:
    switch = Switch()
    async with (
        origin(switch) as sick,
        origin(says(OK, keep=True)) as well,
        upstream(sick, well, health_path="/up", health_interval=0.02) as group,
    ):
        health = group.servers[0].health
        await eventually(lambda: bool(switch.heads))
        assert switch.heads[0].startswith(b"GET /up HTTP/1.1\r\nhost: 127.0.0.1:")
        assert health.is_up
        switch.answer = broken
        with capture_logs() as logs:
            await eventually(lambda: not health.is_up)
            assert set(await told(group, 4)) == {group.servers[1].address.text}
            switch.answer = OK
            await eventually(lambda: health.is_up)
        assert [entry["event"] for entry in logs] == [
            "origin health check failed", "origin health check succeeded",
        ]  # fmt: skip
        assert len(await told(group, 4)) == 2


async def test_the_least_busy_server_is_chosen() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with (
        origin(silent) as slow,
        origin(says(OK)) as quick,
        upstream(slow, quick, balance="least_requests") as group,
    ):
        # The first two go to either; from then on the slow one is always busier.
        streams = [send(group, request())[0] for _ in range(2)]
        assert len({stream.server for stream in streams}) == 2
        await eventually(lambda: group.servers[1].running == 0)
        assert set(await told(group, 5)) == {group.servers[1].address.text}
        for stream in streams:
            stream.abort()
        assert [server.running for server in group.servers] == [0, 0]


async def test_clients_stay_with_their_server_and_move_when_it_is_gone() -> None:
    def client(n: int) -> tuple[bytes, bytes]:
        return (b"x-forwarded-for", b"192.0.2.%d" % n)

    async with (
        origin(says(OK)) as a,
        origin(says(OK)) as b,
        origin(says(OK)) as c,
        upstream(a, b, c, balance="client_address") as group,
    ):
        before = {n: set(await told(group, 2, client(n))) for n in range(30)}
        assert all(len(chosen) == 1 for chosen in before.values())
        lost = group.servers[0]
        lost.health.unreachable(UpstreamError(OriginFailure.CONNECT))
        for n, chosen in before.items():
            now = set(await told(group, 1, client(n)))
            assert (now == chosen) is (lost.address.text not in chosen)
