"""Request smuggling: what the origin saw of every known shape, and what the client got."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.edge import RunningEdge, edge
from tests.support.h1raw import RawClient, raw_client
from tests.support.recording_origin import RecordingOrigin, recording_origin
from tests.support.smuggling import SHAPES, Shape

PROBE = b"GET /probe HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def origin() -> Iterator[RecordingOrigin]:
    with recording_origin() as running:
        yield running


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, origin: RecordingOrigin
) -> Iterator[RunningEdge]:
    with edge(tmp_path_factory.mktemp("edge"), origin.url) as started:
        yield started


def statuses(client: RawClient) -> list[int]:
    """Of all responses until the connection ends."""
    found = []
    while True:
        try:
            found.append(client.reply().status)
        except EOFError:
            return found


def targets(origin: RecordingOrigin) -> list[bytes]:
    return [seen.line.split(b" ")[1] for seen in origin.requests]


@pytest.mark.parametrize("name", SHAPES)
def test_the_origin_sees_nothing_or_exactly_one_correct_request(
    running: RunningEdge, origin: RecordingOrigin, name: str
) -> None:
    shape: Shape = SHAPES[name]
    origin.forget()
    with raw_client(running) as client:
        # The probe is answered if, and only if, the connection is still in step.
        client.send(shape.data + (PROBE if shape.status == 200 else b""))
        got = statuses(client)
    if shape.status == 200:
        rest = [b"/smuggled", b"/probe"] if shape.then else [b"/probe"]
        assert targets(origin) == [b"/first", *rest]
        assert origin.requests[0].content == shape.content
        assert got == [200] * (1 + len(rest))
    else:
        assert got == [shape.status]
        assert targets(origin) == []
        assert b"/smuggled" not in origin.received
        assert origin.received.count(b"HTTP/1.1\r\n") <= 1
    for seen in origin.requests:
        assert len(seen.values(b"host")) == 1
        assert len(seen.values(b"content-length") + seen.values(b"transfer-encoding")) <= 1
        assert not seen.values(b"upgrade")
        assert not seen.values(b"keep-alive")


def test_the_next_client_of_an_origin_connection_gets_its_own_answer(
    running: RunningEdge, origin: RecordingOrigin
) -> None:
    """What an attacker left on an origin connection would be answered to somebody else."""
    for shape in SHAPES.values():
        with raw_client(running) as attacker:
            attacker.send(shape.data)
            attacker.head()
            with raw_client(running) as client:
                origin.forget()
                client.send(PROBE.replace(b"/probe", b"/victim"))
                assert client.reply().status == 200
                assert b"/victim" in targets(origin)
                assert origin.received.count(b"GET /victim") == 1
