"""The operator's limits at a running edge, with clients that overdo it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import H3Connection
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent

from quicedge.config.limits import H3_OVERHEAD_BURST
from quicedge.http.errors import H3ErrorCode
from tests.support.edge import RunningEdge, edge
from tests.support.h3client import h3_client
from tests.support.origin import demo_origin
from tests.support.peers import gtlsclient
from tests.support.raworigin import raw_origin
from tests.support.sessions import frame, priority_update
from tests.support.sessions import head as encoded


class Client(QuicConnectionProtocol):
    """A stock aioquic client that can misbehave."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.quic = self._quic
        self.h3 = H3Connection(self.quic)
        self.ended: asyncio.Future[ConnectionTerminated] = self._loop.create_future()
        self.received: dict[int, bytes] = {}

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionTerminated) and not self.ended.done():
            self.ended.set_result(event)
        for item in self.h3.handle_event(event):
            data = getattr(item, "data", None) or repr(getattr(item, "headers", "")).encode()
            self.received[item.stream_id] = self.received.get(item.stream_id, b"") + data

    def ask(self, path: bytes, method: bytes = b"GET", end: bool = True) -> int:
        stream_id = self._quic.get_next_available_stream_id()
        self.h3.send_headers(
            stream_id,
            [(b":method", method), (b":scheme", b"https"), (b":authority", b"localhost"),
             (b":path", path)],
            end_stream=end,
        )  # fmt: skip
        return stream_id

    def may_open(self) -> bool:
        """Whether the server has granted another stream; aioquic resets ungranted ones too."""
        opened = self._quic._local_next_stream_id_bidi // 4
        return opened < self._quic._remote_max_streams_bidi

    async def until(self, text: bytes, stream_id: int) -> None:
        while text not in self.received.get(stream_id, b""):
            await asyncio.sleep(0.02)


@asynccontextmanager
async def connected(running: RunningEdge) -> AsyncIterator[Client]:
    configuration = QuicConfiguration(
        alpn_protocols=["h3"], verify_mode=ssl.CERT_NONE, server_name="localhost"
    )
    async with connect(
        "127.0.0.1", running.port, configuration=configuration, create_protocol=Client
    ) as client:
        assert isinstance(client, Client)
        yield client


def head(running: RunningEdge, path: str) -> str:
    """What `quicedge get -v` says of an exchange."""
    return running.get(path, "-v").stderr.decode()


def refused(running: RunningEdge) -> dict[str, int]:
    workers = running.admin("/api/v1/status")["workers"]
    counts: dict[str, int] = workers[0]["stats"]["requests_refused"]
    return {reason: count for reason, count in counts.items() if count}


def test_rates_are_answered_429_and_counted(tmp_path: Path) -> None:
    extra = '[limits]\nrequests = [{ rate = "3/hour" }]'
    with demo_origin() as origin, edge(tmp_path, origin, extra=extra) as running:
        statuses = [head(running, "/echo") for _ in range(5)]
        assert ["429" in status for status in statuses] == [False] * 3 + [True] * 2, statuses
        assert refused(running) == {"rate_limited": 2}
        assert "rate_limited" in running.log()


def test_a_denied_network_gets_no_answer(tmp_path: Path) -> None:
    extra = '[limits]\ndeny = ["127.0.0.0/8"]'
    with demo_origin() as origin, edge(tmp_path, origin, extra=extra) as running:
        assert running.get("/echo", "--connect-timeout", "1").returncode != 0
        stats = running.admin("/api/v1/status")["workers"][0]["stats"]
        assert stats["datagrams_dropped"]["dropped_denied"] >= 1
        assert stats["connections_total"] == 0


def test_long_paths_are_answered_414(tmp_path: Path) -> None:
    extra = "[limits]\nmax_uri = 100"
    with demo_origin() as origin, edge(tmp_path, origin, extra=extra) as running:
        assert "414" in head(running, "/" + "a" * 101)
        assert refused(running) == {"uri_too_long": 1}


async def test_rapid_reset_ends_the_connection_and_spares_the_others(tmp_path: Path) -> None:
    """CVE-2023-44487: requests opened and cancelled at once, as fast as can be."""
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        async with connected(running) as client:
            for _ in range(2000):
                while not client.ended.done() and not client.may_open():
                    await asyncio.sleep(0.001)
                if client.ended.done():
                    break
                stream_id = client.ask(b"/delay?seconds=5")
                client.quic.reset_stream(stream_id, 0x10C)
                client.quic.stop_stream(stream_id, 0x10C)
                client.transmit()
                await asyncio.sleep(0)
            event = await asyncio.wait_for(client.ended, 10)
        assert event.error_code == 0x107, event  # H3_EXCESSIVE_LOAD
        assert await asyncio.to_thread(lambda: running.get("/echo").returncode) == 0
        assert (await asyncio.to_thread(refused, running))["abuse"] == 1


async def test_resets_that_the_edge_is_made_to_send_end_the_connection(tmp_path: Path) -> None:
    """MadeYouReset (CVE-2025-8671): every request has more content than it said."""
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        async with connected(running) as client:
            for _ in range(2000):
                if client.ended.done():
                    break
                stream_id = client.quic.get_next_available_stream_id()
                fields = [(b":method", b"POST"), (b":scheme", b"https"), (b":path", b"/echo"),
                          (b":authority", b"localhost"), (b"content-length", b"1")]  # fmt: skip
                client.h3.send_headers(stream_id, fields)
                client.h3.send_data(stream_id, b"two", end_stream=False)
                client.transmit()
                await asyncio.sleep(0)
            event = await asyncio.wait_for(client.ended, 10)
        assert event.error_code == 0x107, event  # H3_EXCESSIVE_LOAD
        assert (await asyncio.to_thread(refused, running))["abuse"] == 1


async def test_leaving_a_page_is_no_abuse(tmp_path: Path) -> None:
    """All requests that a client may have, broken off at once."""
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        async with connected(running) as client:
            streams = [client.ask(b"/delay?seconds=5") for _ in range(120)]
            for stream_id in streams:
                client.quic.reset_stream(stream_id, 0x10C)
                client.quic.stop_stream(stream_id, 0x10C)
            again = client.ask(b"/echo")
            client.transmit()
            await asyncio.wait_for(client.until(b"200", again), 5)
            assert not client.ended.done()


async def test_a_browser_that_lives_long_is_let_be(tmp_path: Path) -> None:
    """PRIORITY_UPDATE, a reserved frame and an empty DATA with each of more requests than could
    ever be without use: in a row, a POST among them, on one connection."""
    with raw_origin({}) as origin, edge(tmp_path, origin.url) as running:
        async with h3_client(running.port) as client:
            control = client.control_stream
            extras = frame(0x21, b"grease") + frame(0)
            for _ in range(2 * H3_OVERHEAD_BURST // 50):
                streams = [client.quic.get_next_available_stream_id() + 4 * n for n in range(50)]
                for stream_id in streams:
                    client.send_raw(control, priority_update(stream_id))
                    client.send_raw(stream_id, encoded() + extras, end=True)
                for stream_id in streams:
                    assert (await client.answer(stream_id)).status == 200
            answer = await client.ask(b"POST", b"/order", [(b"content-length", b"0")])
            assert answer.status == 200
            assert client.closed is None
        assert sum(head.startswith(b"POST") for head in origin.heads) == 1


async def test_what_runs_is_finished_before_a_client_is_sent_away(tmp_path: Path) -> None:
    """GOAWAY first: a POST in flight is answered, a later one is rejected unprocessed."""
    with (
        raw_origin({}, held=(b"/order",)) as origin,
        edge(tmp_path, origin.url) as running,
    ):
        async with h3_client(running.port) as client:
            no_content = [(b"content-length", b"0")]
            running_post = client.open(b"POST", b"/order", no_content)
            await client.until(lambda: bool(origin.heads))
            control = client.control_stream
            client.send_raw(control, priority_update(running_post) * (H3_OVERHEAD_BURST + 100))
            await client.until(lambda: client.told_to_leave)
            late_post = client.open(b"POST", b"/order", no_content)
            assert (await client.answer(late_post)).reset == H3ErrorCode.REQUEST_REJECTED
            origin.release()
            assert (await client.answer(running_post)).status == 200
            await client.until(lambda: client.closed is not None)
            assert client.closed is not None
            assert client.closed.error_code == H3ErrorCode.EXCESSIVE_LOAD
        assert sum(head.startswith(b"POST") for head in origin.heads) == 1
        assert (await asyncio.to_thread(refused, running))["abuse"] == 1


async def test_a_map_page_that_drops_its_tiles_is_let_be(tmp_path: Path) -> None:
    """60 slow tiles at a time, all dropped for the next 60; a POST meanwhile is done once."""
    with (
        raw_origin({}, held=(b"/order", b"/tile")) as origin,
        edge(tmp_path, origin.url) as running,
    ):
        async with h3_client(running.port) as client:
            post = client.open(b"POST", b"/order", [(b"content-length", b"0")])
            for _ in range(12):
                tiles = [client.open(b"GET", b"/tile") for _ in range(60)]
                await asyncio.sleep(0.2)
                for tile in tiles:
                    client.cancel(tile)
            assert (await client.ask(b"GET", b"/quick")).status == 200
            origin.release()
            assert (await client.answer(post)).status == 200
            assert client.closed is None
        assert sum(head.startswith(b"POST") for head in origin.heads) == 1
        assert not any((await asyncio.to_thread(refused, running)).values())


async def test_slow_heads_and_bodies_are_answered_408(tmp_path: Path) -> None:
    """CVE-2022-30591; PING keeps the connection, not the request."""
    extra = '[limits]\nheader_timeout = "1s"\nbody_timeout = "1s"'
    with demo_origin() as origin, edge(tmp_path, origin, extra=extra) as running:
        async with connected(running) as client:
            slow_head = client.quic.get_next_available_stream_id()
            client.quic.send_stream_data(slow_head, b"\x01\x40\x80")
            slow_body = client.ask(b"/upload", b"POST", end=False)

            async def ping() -> None:
                while True:
                    await client.ping()
                    await asyncio.sleep(0.2)

            pinging = asyncio.ensure_future(ping())
            await asyncio.wait_for(client.until(b"408", slow_head), 10)
            await asyncio.wait_for(client.until(b"408", slow_body), 10)
            pinging.cancel()
            stream_id = client.ask(b"/echo")
            client.transmit()
            await asyncio.wait_for(client.until(b"200", stream_id), 5)
        counts = await asyncio.to_thread(refused, running)
        assert counts["too_slow"] == 2


async def test_a_reader_that_takes_nothing_is_cut_off(tmp_path: Path) -> None:
    extra = '[limits]\nresponse_timeout = "1s"'
    with demo_origin() as origin, edge(tmp_path, origin, extra=extra) as running:
        configuration = QuicConfiguration(
            alpn_protocols=["h3"], verify_mode=ssl.CERT_NONE, server_name="localhost",
            max_stream_data=20_000,
        )  # fmt: skip
        async with connect(
            "127.0.0.1", running.port, configuration=configuration, create_protocol=Client
        ) as client:
            assert isinstance(client, Client)
            # A client that never raises its limits.
            client.quic._write_stream_limits = lambda **kwargs: None  # type: ignore[method-assign]
            client.quic._write_connection_limits = (  # type: ignore[method-assign]
                lambda **kwargs: None
            )
            client.ask(b"/download?size=10MB")
            client.transmit()
            for _ in range(100):
                await asyncio.sleep(0.1)
                await client.ping()
                counts = await asyncio.to_thread(refused, running)
                if counts.get("too_slow"):
                    break
            assert counts == {"too_slow": 1}


def test_without_memory_new_work_is_refused(tmp_path: Path) -> None:
    """A budget below what the worker has at its start: a client is not even let in."""
    extra = '[limits]\nmemory = "1MB"'
    with demo_origin() as origin, edge(tmp_path, origin, extra=extra) as running:
        from tests.support.peers import wait_until

        wait_until(lambda: "memory budget exceeded" in running.log(), "the first look")
        assert running.get("/echo", "--connect-timeout", "1").returncode != 0
        stats = running.admin("/api/v1/status")["workers"][0]["stats"]
        assert stats["datagrams_dropped"]["dropped_memory"] >= 1
        with socket.create_connection(("127.0.0.1", running.port), timeout=10) as client:
            client.sendall(b"\x16")
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        refused = 'quicedge_tcp_connections_refused_total{reason="memory",worker="0"} 1.0'
        assert refused in running.metrics()


@pytest.mark.parametrize("paths", [["/echo"] * 20])
def test_honest_clients_notice_nothing_of_the_default_limits(
    tmp_path: Path, paths: list[str]
) -> None:
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        done = gtlsclient(running.port, *paths, directory=tmp_path / "d")
        assert done.code == 0, done.output
        assert refused(running) == {}
