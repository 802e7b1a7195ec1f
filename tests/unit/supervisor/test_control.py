import asyncio
import socket
import struct
from collections.abc import AsyncIterator

import msgspec
import pytest

from quicedge.config.limits import CONTROL_MAX_PENDING, CONTROL_MESSAGE_MAX
from quicedge.config.schema import Config
from quicedge.telemetry.stats import (
    ConnectionPage,
    ConnectionQuery,
    ConnectionStats,
    WorkerStats,
    select,
)
from quicedge.worker.control import (
    ControlChannel,
    ControlError,
    DrainOrder,
    ListeningSocket,
    Settings,
    WorkerSpec,
    read_spec,
)


class Pair:
    """A supervisor's and a worker's end, both in this loop."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self.lost: list[str] = []
        self.release = asyncio.Event()
        ours, theirs = socket.socketpair()
        self.raw = ours
        self.supervisor = ControlChannel(
            ours,
            {"ready": lambda: self.heard.append("ready")},
            on_lost=lambda: self.lost.append("worker"),
        )
        self.worker = ControlChannel(
            theirs.detach(),
            {
                "connections": self.connections,
                "connection": lambda id: None,
                "stats": self.stats,
                "drain": self.heard.append,
                "prepare_settings": self.heard.append,
                "abort_settings": self.fail,
                "reopen_logs": self.wait,
            },
            on_lost=lambda: self.lost.append("supervisor"),
        )

    def connections(self, query: ConnectionQuery) -> ConnectionPage:
        row = ConnectionStats(id="ab", worker=0, time=1.0, smoothed_rtt=0.5)
        return select([row] * 3, query)

    async def stats(self) -> WorkerStats:
        await asyncio.sleep(0)
        return WorkerStats(slot=3, pid=99, datagrams_dropped={"unknown": 4})

    def fail(self) -> None:
        raise ValueError("no key")

    async def wait(self) -> None:
        await self.release.wait()


ORDER = DrainOrder(notice=0.5, seconds=1.5, long=2.0)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    pair = Pair()
    await pair.supervisor.start()
    await pair.worker.start()
    yield pair
    pair.supervisor.close()
    pair.worker.close()
    await asyncio.sleep(0)


async def test_typed_questions_and_answers(pair: Pair) -> None:
    page = await pair.supervisor.call("connections", ConnectionQuery(limit=2))
    assert isinstance(page, ConnectionPage)
    assert (page.total, len(page.connections)) == (3, 2)
    assert page.connections[0].smoothed_rtt == 0.5
    assert await pair.supervisor.call("connection", "ab") is None
    assert (await pair.supervisor.call("stats")).datagrams_dropped == {"unknown": 4}
    settings = Settings(config=Config(listen=["127.0.0.1:1"]))
    assert await pair.supervisor.call("prepare_settings", settings) is None
    await pair.supervisor.call("drain", ORDER)
    assert pair.heard == [settings, ORDER]


async def test_many_questions_at_once_keep_their_answers(pair: Pair) -> None:
    answers = await asyncio.gather(
        *(pair.supervisor.call("connections", ConnectionQuery(limit=n)) for n in range(4))
    )
    assert [len(page.connections) for page in answers] == [0, 1, 2, 3]


async def test_a_failing_handler_answers_with_an_error(pair: Pair) -> None:
    with pytest.raises(ControlError, match="abort_settings: ValueError: no key"):
        await pair.supervisor.call("abort_settings")
    assert (await pair.supervisor.call("stats")).slot == 3


async def test_what_is_not_answered_says_so(pair: Pair) -> None:
    with pytest.raises(ControlError, match="stats: no handler"):
        await pair.worker.call("stats")


async def test_a_wrong_parameter_is_refused(pair: Pair) -> None:
    with pytest.raises(ControlError, match="drain: ValidationError"):
        await pair.supervisor.call("drain", "soon")


async def test_a_late_answer_is_a_timeout_and_then_ignored(pair: Pair) -> None:
    with pytest.raises(ControlError, match=r"no answer within 0\.01 s"):
        await pair.supervisor.call("reopen_logs", timeout=0.01)
    pair.release.set()
    assert (await pair.supervisor.call("stats")).slot == 3


async def test_questions_in_progress_are_bounded(pair: Pair) -> None:
    waiting = [
        asyncio.create_task(pair.supervisor.call("reopen_logs")) for _ in range(CONTROL_MAX_PENDING)
    ]
    await asyncio.sleep(0)
    with pytest.raises(ControlError, match="already in progress"):
        await pair.supervisor.call("stats")
    pair.release.set()
    await asyncio.gather(*waiting)
    assert (await pair.supervisor.call("stats")).slot == 3


async def test_notices(pair: Pair) -> None:
    pair.worker.notify("ready")
    pair.worker.notify("drained")
    await pair.supervisor.call("stats")
    assert pair.heard == ["ready"]


async def test_when_the_other_side_goes_waiting_questions_fail(pair: Pair) -> None:
    question = asyncio.create_task(pair.supervisor.call("reopen_logs"))
    await asyncio.sleep(0)
    pair.worker.close()
    with pytest.raises(ControlError, match="gone"):
        await question
    with pytest.raises(ControlError, match="gone"):
        await pair.supervisor.call("stats")
    pair.supervisor.notify("drained")
    assert "worker" in pair.lost


@pytest.mark.parametrize(
    "garbage",
    [
        struct.pack("!I", CONTROL_MESSAGE_MAX + 1),
        struct.pack("!I", 3) + b"\xff\xff\xff",
        struct.pack("!I", 5) + msgspec.msgpack.encode(["ev", 1])[:5].ljust(5, b"\0"),
    ],
)
async def test_garbage_closes_the_channel(garbage: bytes) -> None:
    ours, theirs = socket.socketpair()
    lost = asyncio.Event()
    channel = ControlChannel(theirs, {}, on_lost=lost.set)
    await channel.start()
    ours.sendall(garbage)
    await asyncio.wait_for(lost.wait(), 5)
    ours.close()


async def test_messages_arrive_in_pieces() -> None:
    ours, theirs = socket.socketpair()
    heard: list[DrainOrder] = []
    got = asyncio.Event()
    worker = ControlChannel(theirs, {"drain": lambda order: (heard.append(order), got.set())})
    await worker.start()
    body = msgspec.msgpack.encode(["notice", "drain", ORDER])
    ours.setblocking(False)
    loop = asyncio.get_running_loop()
    for octet in struct.pack("!I", len(body)) + body:
        await loop.sock_sendall(ours, bytes([octet]))
        await asyncio.sleep(0)
    await asyncio.wait_for(got.wait(), 5)
    assert heard == [ORDER]
    worker.close()
    ours.close()


async def test_a_large_answer_is_refused_not_sent(pair: Pair, monkeypatch) -> None:
    monkeypatch.setattr("quicedge.worker.control.CONTROL_MESSAGE_MAX", 300)
    with pytest.raises(ControlError, match="exceeds 300"):
        await pair.supervisor.call("connections", ConnectionQuery(limit=3))
    assert (await pair.supervisor.call("connection", "ab")) is None


def test_only_known_methods_can_be_handled() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(ValueError, match="nonsense"):
        ControlChannel(ours, {"nonsense": print})


def test_a_specification_survives_the_socket() -> None:
    spec = WorkerSpec(
        slot=1, workers=2, settings=Settings(config=Config()), control_fd=5, secret=bytes(32),
        sockets=[ListeningSocket(7, "[::]:443")],
    )  # fmt: skip
    ours, theirs = socket.socketpair()
    body = msgspec.msgpack.encode(spec)
    ours.sendall(struct.pack("!I", len(body)) + body + b"more")
    assert read_spec(theirs.fileno()) == spec
    # What follows is the channel's to read.
    assert theirs.recv(10) == b"more"
    ours.close()
    with pytest.raises(ControlError, match="closed"):
        read_spec(theirs.fileno())
    theirs.close()
