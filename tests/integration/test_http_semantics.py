"""What HTTP demands of an intermediary, seen from both ends of a running edge."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.edge import RunningEdge, edge
from tests.support.h3client import h3_client
from tests.support.peers import wait_until
from tests.support.raworigin import RawOrigin, raw_origin

ANSWERS = {
    b"/malformed": b"HTTP/1.1 200 OK\r\nX-Frame : DENY\r\ncontent-length: 0\r\n\r\n",
}


@pytest.fixture(scope="module")
def origin() -> Iterator[RawOrigin]:
    with raw_origin(ANSWERS) as running:
        yield running


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, origin: RawOrigin) -> Iterator[RunningEdge]:
    with edge(tmp_path_factory.mktemp("edge"), origin.url) as running:
        yield running


# --- what the operator learns --------------------------------------------------------------------


def record_of(running: RunningEdge, **members: object) -> dict[str, object]:
    """The last access-log record that has these members."""

    def found() -> list[dict[str, object]]:
        return [record for record in running.access() if members.items() <= record.items()]

    wait_until(lambda: bool(found()), f"the record of {members}")
    return found()[-1]


async def test_the_access_log_says_why_an_origin_s_answer_was_refused(running: RunningEdge) -> None:
    async with h3_client(running.port) as client:
        assert (await client.ask(b"GET", b"/malformed")).status == 502
    record = record_of(running, path="/malformed")
    assert (record["status"], record["outcome"]) == (502, "origin_protocol")
    assert "header token" in str(record["reason"])


async def test_the_access_log_says_why_a_request_was_refused(running: RunningEdge) -> None:
    async with h3_client(running.port) as client:
        refused = await client.ask(b"GET", b"/u", authority=b"user@localhost")
        assert refused.status == 400
        many = [(b"x-%d" % i, b"y") for i in range(140)]
        assert (await client.ask(b"GET", b"/f", many)).status == 431
    record = record_of(running, path="/u", status=400, outcome="malformed", method="GET")
    assert record["reason"] == "the authority is missing or malformed"
    # It was never decoded: no more is known of it.
    record = record_of(running, path="", status=431, outcome="malformed")
    assert record["reason"] == "field section too large"


async def test_the_log_says_why_a_connection_was_closed(running: RunningEdge) -> None:
    async with h3_client(running.port) as client:
        client.open(b"GET", b"/hang")
        control = client.h3._local_control_stream_id
        client._quic.send_stream_data(control, b"\x04\x00")  # SETTINGS again
        client.transmit()
        await client.wait_closed()
    wait_until(lambda: "connection closed" in running.log(), "the log line")
    line = next(line for line in running.log().splitlines() if "connection closed" in line)
    assert "H3_FRAME_UNEXPECTED" in line
    assert "SETTINGS appears twice" in line
