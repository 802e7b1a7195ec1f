"""Servers in DNS, on whole edges: they change under load, and DNS fails."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.edge import REPOSITORY, RunningEdge, edge
from tests.support.origins import Origin, origin, read_head
from tests.support.zone import Zone, dns_zone

SERVICE = "_http._tcp.app.test"


async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Always with requests in flight, when servers change."""
    while True:
        await read_head(reader)
        await asyncio.sleep(0.02)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await writer.drain()


class Load:
    """Requests of several clients, one after the other each, until the end."""

    def __init__(self, running: RunningEdge) -> None:
        self.answered = 0
        self.lost: list[str] = []
        self._edge = running
        self._over = False

    async def client(self) -> None:
        tls = ssl.create_default_context(cafile=str(self._edge.certificate.ca))
        base = f"https://localhost:{self._edge.port}"
        async with httpx.AsyncClient(base_url=base, verify=tls, http2=True, timeout=60) as http:
            while not self._over:
                answer = await http.post("/", content=b"body")
                if answer.status_code == 200:
                    self.answered += 1
                else:
                    self.lost.append(f"{answer.status_code} {answer.text}")

    def end(self) -> None:
        self._over = True


@asynccontextmanager
async def load(running: RunningEdge, clients: int = 8) -> AsyncIterator[Load]:
    found = Load(running)
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(found.client())
        try:
            yield found
        finally:
            found.end()
    assert not found.lost


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.05)


def serve(zone: Zone, *origins: Origin) -> set[str]:
    """Let the service be these servers; returns their names in the admin API."""
    ports = [item.url.rpartition(":")[2] for item in origins]
    zone.names(SERVICE, *(f"0 1 {port} host.test." for port in ports), kind="SRV")
    return {f"127.0.0.1:{port}" for port in ports}


def upstream(running: RunningEdge) -> dict[str, Any]:
    found: dict[str, Any] = running.admin("/api/v1/upstreams")["app"]
    return found


def used_by_all(running: RunningEdge, servers: set[str], workers: int) -> bool:
    """Whether these are the servers of all workers, and nothing is left of others."""
    found = upstream(running)["servers"]
    up = {name: server["workers_up"] for name, server in found.items()}
    return up == dict.fromkeys(servers, workers)


async def test_no_request_is_lost_while_servers_change(tmp_path: Path) -> None:
    """Without retries. A server is ended as soon as no worker uses it for anything."""
    async with dns_zone() as zone, AsyncExitStack() as stack:
        zone.ttl = 0
        zone.names("host.test", "127.0.0.1")
        ends = [AsyncExitStack() for _ in range(4)]
        servers = [await end.enter_async_context(origin(slow)) for end in ends]
        for end in ends:
            stack.push_async_callback(end.aclose)
        named = serve(zone, servers[0])
        extra = (
            f'servers = [{{ url = "http://{SERVICE}", discover = "srv" }}]\n'
            f'resolvers = ["{zone.address}"]\nretries = 0\n'
        )
        with edge(tmp_path, "", upstream_extra=extra, options="workers = 2") as running:
            await until(lambda: used_by_all(running, named, 2))
            async with load(running) as requests:
                for kept in ((0, 1), (1, 2), (2,), (3, 2), (3,)):
                    named = serve(zone, *(servers[index] for index in kept))
                    before = requests.answered
                    await until(lambda: used_by_all(running, named, 2))  # noqa: B023
                    for index, end in enumerate(ends):
                        if index < min(kept):
                            await end.aclose()
                    await until(lambda: requests.answered > before + 50)  # noqa: B023
            (status,) = upstream(running)["discoveries"]
            assert (status["name"], status["servers"], status["problems"]) == (SERVICE, 1, [])


async def test_when_dns_fails_the_last_servers_stay_and_the_operator_is_told(
    tmp_path: Path,
) -> None:
    async with dns_zone() as zone, origin(slow) as server:
        zone.ttl = 0
        port = server.url.rpartition(":")[2]
        zone.names("app.test", "127.0.0.1")
        extra = (
            f'servers = [{{ url = "http://app.test:{port}", discover = "addresses" }}]\n'
            f'resolvers = ["{zone.address}"]\n'
        )
        with edge(tmp_path, "", upstream_extra=extra) as running:
            await until(lambda: used_by_all(running, {f"127.0.0.1:{port}"}, 1))
            async with load(running, clients=2) as requests:
                await until(lambda: requests.answered > 0)
                zone.records.clear()
                await until(lambda: upstream(running)["discoveries"][0]["failures"] >= 2)
                before = requests.answered
                await until(lambda: requests.answered > before + 10)
                (status,) = upstream(running)["discoveries"]
                assert status["problems"] == ["app.test has no address"]
                assert status["servers"] == 1
                assert status["age_seconds"] > 1
                metrics = await asyncio.to_thread(running.metrics)
                labels = 'name="app.test",upstream="app",worker="0"'
                assert f"quicedge_upstream_discovered_servers{{{labels}}} 1.0" in metrics
                assert f"quicedge_upstream_discovery_age_seconds{{{labels}}}" in metrics
                failed = 'name="app.test",result="failed",upstream="app"'
                assert f"quicedge_upstream_look_ups_total{{{failed}}}" in metrics
                zone.names("app.test", "127.0.0.1")
                await until(lambda: not upstream(running)["discoveries"][0]["problems"])
            told = "upstream's servers can"
            events = [json.loads(line).get("event", "") for line in running.log().splitlines()]
            assert [event for event in events if event.startswith(told)] == [
                "upstream's servers cannot be looked up",
                "upstream's servers can be looked up again",
            ]


async def test_quicedge_check_looks_servers_up(tmp_path: Path) -> None:
    async with dns_zone() as zone, origin(slow) as server:
        serve(zone, server)
        zone.names("host.test", "127.0.0.1")
        config = tmp_path / "quicedge.toml"
        config.write_text(f"""
listen = ["127.0.0.1:0"]
admin.enabled = false
[[routes]]
upstream = "app"
[upstreams.app]
servers = [
  {{ url = "http://{SERVICE}", discover = "srv" }},
  {{ url = "http://gone.test", discover = "addresses" }},
]
resolvers = ["{zone.address}"]
""")
        command = ["-m", "quicedge", "check", "--json", "--resolver", "127.0.0.1:9"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, "--config", str(config),
            stdout=subprocess.PIPE, cwd=REPOSITORY,
        )  # fmt: skip
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        found = {item["subject"]: (item["level"], item["message"]) for item in json.loads(output)}
        service = f"upstream app srv of http://{SERVICE}"
        address = server.url.removeprefix("http://")
        assert found[service] == ("ok", "1 server, to be looked up again in 60 s")
        assert found[f"{service} {address}"] == ("ok", "accepts connections")
        gone = found["upstream app addresses of http://gone.test"]
        assert gone == ("warning", "gone.test has no address")
