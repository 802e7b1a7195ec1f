"""HTTP/2 origins that misbehave, behind a running edge: what the client, the log and the edge's
own books then say. `tests/unit/upstream` has every way there is; these are the kinds of outcome."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
from hpack import Decoder

from quicedge.cli.client import Answer, Client, FetchError
from tests.support.edge import RunningEdge, edge
from tests.support.faults import Faults, faults, holdings, origin_connections
from tests.support.hostile_h2 import RawH2, block_of, data, goaway, head, ping, reset, window
from tests.support.origins import origin
from tests.support.peers import wait_until

UPSTREAM = """
protocol = "h2"
retries = 3
first_byte_timeout = "500ms"
idle_timeout = "500ms"
keepalive_timeout = "300ms"
"""
AT_A_TIME = 5
RETRIES = 3
refused: Counter[str] = Counter()


async def answer(peer: RawH2, stream_id: int, path: str) -> bool:
    """Misbehave as the path says; False to close the connection."""
    content = (b"content-length", b"100000")
    within = head(stream_id, content) + data(stream_id, b"x" * 1000)
    match path:
        case "/reset":
            await peer.send(reset(stream_id, 2))
        case "/reset-within":
            await peer.send(within, reset(stream_id, 2))
        case "/refused" if refused[path] < RETRIES:  # which may all be those of one request
            refused[path] += 1
            await peer.send(reset(stream_id, 7))
        case "/goaway" if not refused[path]:
            refused[path] += 1
            await peer.send(goaway(0))
        case "/malformed":
            await peer.send(head(stream_id, (b"Upper", b"case"), end=True))
        case "/malformed-within":
            await peer.send(head(stream_id, (b"content-length", b"5")), data(stream_id, b"123456"))
        case "/broken":
            await peer.send(window(0, 0))
        case "/broken-within":
            await peer.send(within, b"\xff" * 100)
        case "/bomb":
            await peer.send(block_of(stream_id, b"\x88\x40\x01a\x7f\x81\x1e" + b"b" * 16000))
        case "/pings":
            await peer.send(ping() * 5000)
        case "/hang":
            pass
        case "/hang-within":
            await peer.send(within)
        case "/close":
            return False
        case "/close-within":
            await peer.send(within)
            return False
        case _:
            await peer.send(head(stream_id), data(stream_id, b"fine", end=True))
    return True


async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    peer, decoder = RawH2(reader, writer), Decoder()
    await peer.open()
    while True:
        frame = await peer.frame()
        if frame.kind == 1:
            path = dict(decoder.decode(frame.payload))[":path"]
            if not await answer(peer, frame.stream_id, path):
                return


@contextmanager
def in_thread(serve: Callable[[asyncio.Future[str]], Awaitable[None]]) -> Iterator[str]:
    """Run a server in a loop of its own; yields what it says once it is there."""
    loop = asyncio.new_event_loop()
    said: asyncio.Future[str] = loop.create_future()
    task = loop.create_task(serve(said))  # type: ignore[arg-type]
    thread = threading.Thread(target=loop.run_until_complete, args=(task,), daemon=True)
    thread.start()
    wait_until(said.done, "the origin")
    try:
        yield said.result()
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)
        loop.close()


async def serve(said: asyncio.Future[str]) -> None:
    try:
        async with origin(script) as server:
            said.set_result(server.url)
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        pass


@pytest.fixture(scope="module")
def switches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    with faults(tmp_path_factory.mktemp("switches")) as made:
        yield made


@pytest.fixture(scope="module")
def running(switches: Faults, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    with (
        in_thread(serve) as url,
        edge(tmp_path_factory.mktemp("edge"), url, upstream_extra=UPSTREAM) as started,
    ):
        yield started


@pytest.fixture(scope="module")
def before(running: RunningEdge, switches: Faults) -> dict[str, int]:
    """What a quiet edge holds that has served a request."""
    assert asyncio.run(get(running, "/fine"))[1] == b"fine"
    wait_until(lambda: origin_connections(running) == 0, "the keep-alive timeout")
    wait_until(lambda: holdings(running, switches)["connections"] == 0, "quiet")
    return holdings(running, switches)


async def connect(running: RunningEdge) -> Client:
    return await Client.connect("localhost", running.port, ca_file=str(running.certificate.ca))


async def fetch(client: Client, path: str) -> tuple[Answer | FetchError, bytes]:
    body = bytearray()
    try:
        answer = await client.fetch("GET", "localhost", path, on_body=body.extend, timeout=10)
    except FetchError as error:
        return error, bytes(body)
    return answer, bytes(body)


async def get(running: RunningEdge, path: str) -> tuple[Answer | FetchError, bytes]:
    client = await connect(running)
    try:
        return await fetch(client, path)
    finally:
        await client.close()


@pytest.mark.parametrize(
    ("path", "status", "outcome"),
    [
        ("/fine", 200, "complete"),
        ("/refused", 200, "complete"),
        ("/goaway", 200, "complete"),
        ("/reset", 502, "origin_reset"),
        ("/reset-within", None, "origin_reset"),
        ("/malformed", 502, "origin_protocol"),
        ("/malformed-within", None, "origin_protocol"),
        ("/broken", 502, "origin_protocol"),
        ("/broken-within", None, "origin_protocol"),
        ("/bomb", 502, "origin_protocol"),
        ("/pings", 502, "origin_protocol"),
        ("/hang", 504, "origin_first_byte_timeout"),
        ("/hang-within", None, "origin_idle_timeout"),
        ("/close", 502, "origin_reset"),
        ("/close-within", None, "origin_reset"),
    ],
)
async def test_each_misbehaviour_has_its_outcome(
    running: RunningEdge,
    switches: Faults,
    before: dict[str, int],
    path: str,
    status: int | None,
    outcome: str,
) -> None:
    witness = await connect(running)
    await fetch(witness, "/fine")
    results = await asyncio.gather(*(get(running, path) for _ in range(AT_A_TIME)))
    for result, body in results:
        if isinstance(result, FetchError):
            assert status is None
            assert "reset" in str(result)
        else:
            # Of those that shared a connection which ended, some had no response yet.
            assert result.status == (502 if status is None else status)
            assert (body == b"fine") is (status == 200)
    if status is None:
        assert any(isinstance(result, FetchError) for result, _ in results)
    # Neither a client's connection nor the pool has suffered.
    assert (await fetch(witness, path))[1] in (b"fine", *(body for _, body in results))
    assert (await fetch(witness, "/fine"))[1] == b"fine"
    await witness.close()

    def outcomes() -> list[str]:
        return [record["outcome"] for record in running.access() if record["path"] == path]

    wait_until(lambda: len(outcomes()) >= AT_A_TIME + 1, "the access log")
    assert set(outcomes()) == {outcome}

    def is_back() -> bool:
        return all(held <= before[name] for name, held in holdings(running, switches).items())

    wait_until(is_back, f"{before}, but: {holdings(running, switches)}")
