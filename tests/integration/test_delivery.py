"""An exchange ends when its last byte is acknowledged: what log, metrics and spans say of clients
that read slowly, vanish, cancel, or just read."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.edge import RunningEdge, edge
from tests.support.h3client import H3Client, h3_client
from tests.support.origin import demo_origin

WINDOW = 20_000
"""What a client lets the edge send on a stream before it has read anything."""
SIZE = 100_000
"""A response that fits into the edge's buffers, but not into the client's window."""
PATH = f"/download?size={SIZE}"
PAUSE = 1.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    """An edge that gives silent clients up after three seconds."""
    directory = tmp_path_factory.mktemp("delivery")
    options = '[quic]\nidle_timeout = "3s"'
    with demo_origin() as origin, edge(directory, origin, options=options) as found:
        yield found


async def eventually(condition: Callable[[], Any], what: str) -> Any:
    async with asyncio.timeout(20):
        while not (found := await asyncio.to_thread(condition)):
            await asyncio.sleep(0.02)
    assert found, what
    return found


async def records(running: RunningEdge, query: str, count: int = 1) -> list[dict[str, Any]]:
    """The records of requests with a query."""

    def written() -> list[dict[str, Any]]:
        found = [record for record in running.access() if record["path"] == f"{PATH}&{query}"]
        return found if len(found) >= count else []

    found: list[dict[str, Any]] = await eventually(written, "the access log")
    assert len(found) == count
    return found


@asynccontextmanager
async def stalled(running: RunningEdge, query: str) -> AsyncIterator[H3Client]:
    """A client that has begun to read a response and reads no further."""
    async with h3_client(running.port, max_stream_data=WINDOW) as client:
        client.open(b"GET", f"{PATH}&{query}".encode())
        async with asyncio.timeout(10):
            while not client.answers[0].body:
                await asyncio.sleep(0.001)
        client.stop_reading()
        yield client


def origin_requests(running: RunningEdge) -> int:
    stats = running.admin("/api/v1/status")["workers"][0]["stats"]
    (server,) = stats["servers"]["app"].values()
    return int(server["active"])


def metric(running: RunningEdge, name: str) -> float:
    url = f"http://127.0.0.1:{running.admin_port}/metrics"
    text = urllib.request.urlopen(url, timeout=10).read().decode()
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def test_a_response_read_to_its_end_is_complete(running: RunningEdge) -> None:
    async with h3_client(running.port) as client:
        assert len((await client.ask(b"GET", f"{PATH}&whole".encode())).body) == SIZE
        (seen,) = await records(running, "whole")
    assert (seen["outcome"], seen["bytes_sent"], seen["status"]) == ("complete", SIZE, 200)
    assert 0 < seen["first_byte_seconds"] <= seen["response_seconds"] <= seen["total_seconds"]


async def test_a_client_that_closes_on_the_last_byte_is_complete(running: RunningEdge) -> None:
    """`quicedge get` closes at once: the ACK of the last byte may never come."""
    for _ in range(3):
        got = await asyncio.to_thread(running.get, f"{PATH}&close")
        assert len(got.stdout) == SIZE
    seen = await records(running, "close", 3)
    assert [(r["outcome"], r["bytes_sent"]) for r in seen] == [("complete", SIZE)] * 3


async def test_a_slow_reader_shows_in_log_histogram_and_span_and_holds_no_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("opentelemetry.proto")
    from tests.support.collector import attributes, collector

    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    with collector() as got, demo_origin() as origin:
        extra = f'[otel]\nenabled = true\nendpoint = "{got.url}"\n'
        with edge(tmp_path, origin, extra=extra) as running:
            async with stalled(running, "slow") as client:
                started = time.monotonic()
                await eventually(lambda: origin_requests(running) == 0, "a free origin")
                assert not running.access(), "the response is not delivered yet"
                connections = await asyncio.to_thread(running.admin, "/api/v1/connections")
                assert connections["connections"][0]["requests_active"] == 1
                await asyncio.sleep(PAUSE - (time.monotonic() - started))
                client.resume_reading()
                assert len((await client.answer(0)).body) == SIZE
                (seen,) = await records(running, "slow")
            assert (seen["outcome"], seen["bytes_sent"]) == ("complete", SIZE)
            assert seen["total_seconds"] >= PAUSE
            assert seen["response_seconds"] < seen["total_seconds"] - PAUSE / 2
            label = '{route="*/"}'
            slow = f"quicedge_route_duration_seconds_sum{label}"
            await eventually(lambda: metric(running, slow) >= PAUSE, "the histogram")
            assert metric(running, f"quicedge_route_response_bytes_total{label}") == SIZE
            await eventually(lambda: len(got.spans) == 2, "spans")
        lasted = {
            span.kind: (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
            for span in got.spans
        }
        server = next(span for span in got.spans if span.kind == 2)
        assert lasted[2] >= PAUSE
        assert lasted[3] < PAUSE / 2, "the origin was not slow"
        assert attributes(server)["http.response.body.size"] == SIZE


async def test_a_killed_reader_is_gone_and_got_what_it_acknowledged(running: RunningEdge) -> None:
    async with stalled(running, "killed") as client:
        (seen,) = await records(running, "killed")
        taken = len(client.answers[0].body)
        # Nothing of it reaches the edge any more: it ends without a word.
        client._transport.close()
    assert (seen["outcome"], seen["reason"]) == ("client_gone", "idle timeout")
    assert seen["status"] == 200
    assert 0 <= seen["bytes_sent"] <= max(taken, WINDOW)
    assert seen["total_seconds"] >= 2.9
    outcomes = 'quicedge_route_outcomes_total{outcome="client_gone",route="*/"}'
    await eventually(lambda: metric(running, outcomes) >= 1, "the counter")


@pytest.mark.parametrize(("code", "reason"), [
    (0x100, "closed by the peer: H3_NO_ERROR"),
    (0x10C, "closed by the peer: H3_REQUEST_CANCELLED"),
])  # fmt: skip
async def test_a_client_that_closes_before_the_end_is_gone(
    running: RunningEdge, code: int, reason: str
) -> None:
    async with stalled(running, f"closes={code}") as client:
        client.quic.close(error_code=code)
        client.transmit()
        (seen,) = await records(running, f"closes={code}")
    assert (seen["outcome"], seen["reason"]) == ("client_gone", reason)
    assert seen["bytes_sent"] < SIZE


async def test_a_connection_that_the_edge_closes_is_not_the_clients_doing(
    running: RunningEdge,
) -> None:
    async with stalled(running, "operator"):
        rows = (await asyncio.to_thread(running.admin, "/api/v1/connections"))["connections"]
        (identity,) = [row["id"] for row in rows if row["requests_active"]]
        request = urllib.request.Request(
            f"http://127.0.0.1:{running.admin_port}/api/v1/connections/{identity}/close",
            data=b'{"reason": "enough"}', headers={"content-type": "application/json"},
        )  # fmt: skip
        await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=10).close())
        (seen,) = await records(running, "operator")
    assert (seen["outcome"], seen["reason"]) == ("connection_closed", "enough")
    assert seen["bytes_sent"] < SIZE


async def test_a_client_that_cancels_a_buffered_response_aborted_it(running: RunningEdge) -> None:
    async with stalled(running, "cancels") as client:
        client.quic.stop_stream(0, 0x10C)
        client.transmit()
        (seen,) = await records(running, "cancels")
    assert (seen["outcome"], seen["status"]) == ("client_aborted", 200)
    assert seen["bytes_sent"] < SIZE


async def test_a_refusal_keeps_its_reason_when_nobody_reads_it(running: RunningEdge) -> None:
    async with h3_client(running.port) as client:
        client.stop_reading()
        client.open(b"GET", f"{PATH}&refused".encode(), authority=b"elsewhere.example")
        (seen,) = await records(running, "refused")
    assert (seen["outcome"], seen["status"]) == ("misdirected", 421)


async def test_a_buffered_response_that_nobody_takes_times_out(tmp_path: Path) -> None:
    """The whole response is in the edge's buffers; PINGs keep the connection, not the response."""
    extra = '[limits]\nresponse_timeout = "1s"'
    with demo_origin() as origin, edge(tmp_path, origin, extra=extra) as running:
        async with h3_client(running.port, max_stream_data=WINDOW) as client:
            client.grant_no_more()
            stream_id = client.open(b"GET", f"{PATH}&timeout".encode())

            async def ping() -> None:
                while True:
                    await client.ping()
                    await asyncio.sleep(0.2)

            pinging = asyncio.ensure_future(ping())
            answer = await client.answer(stream_id)
            pinging.cancel()
            assert answer.reset == 0x10C
            (seen,) = await records(running, "timeout")
    assert seen["outcome"] == "response_timeout"
    # Framing takes a little of the window.
    assert WINDOW - 500 <= seen["bytes_sent"] <= WINDOW
