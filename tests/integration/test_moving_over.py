"""Clients move from TCP to QUIC because Alt-Svc says so, and stay where QUIC does not work."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quicedge.config.limits import ALT_SVC_ENOUGH
from tests.support.browser import chromium, trust
from tests.support.edge import RunningEdge, edge
from tests.support.origin import demo_origin
from tests.support.peers import wait_until

UNKNOWN_ROOT = "--origin-to-force-quic-on=localhost:1"
"""Chromium accepts a private authority for QUIC only on the hosts of this list, whose port here is
nobody's, so that no connection is forced. Without it, Chromium tries QUIC all the same, and refuses
the certificate."""

IPV4 = "--host-resolver-rules=MAP localhost 127.0.0.1"

STALL = 4.0
"""Seconds: less than Chromium waits for a QUIC handshake."""


@contextmanager
def silent_port() -> Iterator[socket.socket]:
    """A UDP port that swallows what it gets, as a firewall does."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as silent:
        silent.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        silent.bind(("::", 0))
        silent.setblocking(False)
        yield silent


def port_of(silent: socket.socket) -> int:
    return int(silent.getsockname()[1])


def withdrawing(silent: socket.socket) -> str:
    """Advertise HTTP/3 where it is not, and find out soon."""
    return f'[alt_svc]\nport = {port_of(silent)}\npatience = "1s"'


def visit(running: RunningEdge, network: int) -> str | None:
    """The Alt-Svc that a client in a network of its own gets over TCP."""
    context = ssl.create_default_context(cafile=running.certificate.ca)
    client = http.client.HTTPSConnection(
        "localhost", running.port, timeout=30, context=context,
        source_address=(f"127.{network}.0.1", 0),
    )  # fmt: skip
    with contextlib.closing(client):
        client.request("GET", "/")
        answer = client.getresponse()
        answer.read()
        return answer.headers["alt-svc"]


async def test_chromium_moves_over_by_itself(tmp_path: Path) -> None:
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        trust(tmp_path / "home", running.certificate.ca)
        page = f"https://localhost:{running.port}/gallery"
        async with chromium(tmp_path / "home", UNKNOWN_ROOT) as tab:
            assert await tab.load(page) == "h2"
            async with asyncio.timeout(60):
                while await tab.load(f"{page}?again") != "h3":
                    pass
            tiles = "performance.getEntriesByType('resource').map(one => one.nextHopProtocol)"
            assert set(await tab.evaluate(tiles)) == {"h3"}
        wait_until(
            lambda: any(one["arrived"] for one in running.admin("/api/v1/status")["alt_svc"]),
            "the arrival of a client that got an advertisement",
        )
        protocols = [record["protocol"] for record in running.access()]
        assert protocols.index("h2") < protocols.index("h3")


async def test_chromium_stays_on_tcp_without_a_stall_where_udp_is_dropped(tmp_path: Path) -> None:
    with (
        silent_port() as silent,
        demo_origin() as origin,
        edge(tmp_path, origin, extra=withdrawing(silent)) as running,
    ):
        trust(tmp_path / "home", running.certificate.ca)
        page = f"https://localhost:{running.port}/echo"
        async with chromium(tmp_path / "home", UNKNOWN_ROOT, IPV4) as tab:
            assert await tab.load(page) == "h2"
            for number in range(10):
                begun = time.monotonic()
                assert await tab.load(f"{page}?{number}") == "h2"
                assert time.monotonic() - begun < STALL
            assert silent.recv(2048), "it tried"
            for network in range(1, ALT_SVC_ENOUGH + 1):
                await asyncio.to_thread(visit, running, network)
            said = "fetch('/echo').then(answer => answer.headers.get('alt-svc'))"
            async with asyncio.timeout(60):
                while await tab.evaluate(said) != "clear":
                    await asyncio.sleep(0.2)
            assert await tab.load(page) == "h2"


def test_http3_is_withdrawn_when_no_client_arrives_and_restored_by_an_arrival(
    tmp_path: Path,
) -> None:
    with (
        silent_port() as silent,
        demo_origin() as origin,
        edge(tmp_path, origin, extra=withdrawing(silent)) as running,
    ):
        listener = f"127.0.0.1:{running.port}"
        advertised = f'h3=":{port_of(silent)}"; ma=86400'

        def status() -> dict[str, Any]:
            found: list[dict[str, Any]] = running.admin("/api/v1/status")["alt_svc"]
            return next(one for one in found if one["listener"] == listener)

        def metric(name: str) -> float:
            (line,) = (
                line
                for line in running.metrics().splitlines()
                if line.startswith(f"quicedge_alt_svc_{name}{{")
                and f'listener="{listener}"' in line
            )
            return float(line.split()[-1])

        for network in range(1, ALT_SVC_ENOUGH):
            assert visit(running, network) == advertised
        wait_until(lambda: status()["missed"] == ALT_SVC_ENOUGH - 1, "all but one to be missed")
        assert status()["state"] == "on", "one network less than needed"
        assert metric("advertised") == 1
        assert visit(running, ALT_SVC_ENOUGH) == advertised
        wait_until(lambda: status()["state"] == "withdrawn", "the withdrawal")
        wait_until(lambda: visit(running, 1) == "clear", "the workers to know")
        assert status()["reason"] == "no UDP datagram arrives"
        assert metric("advertised") == 0
        assert metric("withdrawals_total") == 1
        (line,) = (line for line in running.log().splitlines() if "alt-svc withdrawn" in line)
        record = json.loads(line)
        assert record["listener"] == listener
        assert record["networks"] == ALT_SVC_ENOUGH
        assert record["reason"] == "no UDP datagram arrives"
        # It arrives without an advertisement.
        resolve = ("--resolve", f"localhost:{running.port}:127.0.0.1")
        assert running.get("/", *resolve).returncode == 0
        wait_until(lambda: status()["state"] == "on", "the restoration")
        wait_until(lambda: visit(running, 1) == advertised, "the workers to know")
        assert metric("advertised") == 1
        assert "alt-svc restored" in running.log()
