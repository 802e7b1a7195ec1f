"""What a client may do without use: honest ones live as long as they like, hostile ones do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from quicedge.config.limits import (
    ABANDONED_MIN_LIFETIME,
    ABANDONED_PAGES,
    DRAIN_NOTICE,
    H3_OVERHEAD_BURST,
    H3_OVERHEAD_PER_REQUEST,
    H3_OVERHEAD_RATE,
    MAX_STREAMS_BIDI,
)
from quicedge.http.errors import H3ErrorCode
from quicedge.http.frames import FrameType, encode_varint
from quicedge.telemetry.outcomes import Refusal
from tests.support.sessions import (
    CONTROL,
    POST,
    RESERVED,
    Client,
    frame,
    head,
    priority_update,
)

EXCESSIVE_LOAD = H3ErrorCode.EXCESSIVE_LOAD
GET_HEAD = head()
MANY = 100_000
ABANDONED_BURST = ABANDONED_PAGES * MAX_STREAMS_BIDI


# --- honest clients ---------------------------------------------------------------------------


def test_a_browser_that_lives_long_meets_no_limit() -> None:
    """A PRIORITY_UPDATE, a reserved frame and an empty DATA with each of 100 000 requests, 1000 per
    second: what Chromium and the h3 crate send."""
    client = Client()
    client.edge.answers_at_once = True
    request = GET_HEAD + frame(RESERVED, b"grease") + frame(0)
    for count in range(MANY):
        client.edge.clock += 0.001
        stream_id = client.open()
        client.send(CONTROL, priority_update(stream_id))
        client.send(stream_id, request, end=True)
        if not count % 1000:
            client.forget()
    assert client.session.requests == MANY
    assert not client.told_to_leave
    assert client.closed is None


@pytest.mark.parametrize(
    "overhead",
    [
        lambda client: client.send(CONTROL, priority_update(0)),
        lambda client: client.send(CONTROL, frame(RESERVED + 0x1F)),
        lambda client: client.send(CONTROL, frame(0x0D, b"\0")),
        lambda client: client.send(client.open() + 6, b"\x21grease", end=True),
    ],
    ids=["PRIORITY_UPDATE", "reserved frames", "MAX_PUSH_ID", "reserved streams"],
)
def test_overhead_at_a_moderate_rate_is_let_be_for_days(
    overhead: Callable[[Client], None],
) -> None:
    client = Client()
    for _ in range(20 * H3_OVERHEAD_BURST):
        client.edge.clock += 10
        overhead(client)
    assert not client.told_to_leave
    assert len(client.session.h3._streams) <= 1, "streams that are over are kept"  # type: ignore[union-attr]


def test_a_map_page_may_drop_its_slow_tiles_without_end() -> None:
    """40 tiles every 0.4 s, each given up before its answer; a POST runs all the while."""
    client = Client()
    post = client.ask(head(POST) + frame(0, b"x"))
    posted = client.edge.at_origin.pop()
    for _ in range(2_500):
        tiles = [client.ask() for _ in range(40)]
        client.edge.clock += 0.4
        for tile in tiles:
            client.cancel(tile)
        assert all(tile.aborted for tile in client.edge.at_origin)
        client.edge.at_origin.clear()
        client.forget()
        assert not client.told_to_leave
    posted.answer()
    assert post in client.connection.ended
    assert client.edge.refusals == {}


def test_cancelling_at_once_is_let_be_while_as_much_completes() -> None:
    client = Client()
    for _ in range(10 * ABANDONED_BURST):
        client.cancel(client.ask())
        client.ask()
        client.edge.at_origin[-1].answer()
        client.edge.at_origin.clear()
    assert not client.told_to_leave


def test_leaving_full_pages_in_a_row_is_let_be() -> None:
    client = Client()
    for _ in range(ABANDONED_PAGES):
        for stream_id in [client.ask() for _ in range(MAX_STREAMS_BIDI)]:
            client.cancel(stream_id)
    assert not client.told_to_leave


# --- the others -------------------------------------------------------------------------------


def malformed(client: Client) -> None:
    client.ask(head([(b":method", b"GET")]))


def too_long(client: Client) -> None:
    """MadeYouReset (CVE-2025-8671): more content than was announced."""
    client.ask(head([*POST, (b"content-length", b"1")]) + frame(0, b"two"))


ATTACKS: dict[str, Callable[[Client], None]] = {
    "rapid reset": lambda client: client.cancel(client.ask()),
    "malformed requests": malformed,
    "content beyond its length": too_long,
    "PRIORITY_UPDATE": lambda client: client.send(CONTROL, priority_update(0)),
    "reserved frames": lambda client: client.send(0, frame(RESERVED)),
    "empty DATA": lambda client: client.send(0, frame(0)),
    "reserved streams": lambda client: client.send(client.open() + 6, b"\x21", end=True),
    "MAX_PUSH_ID": lambda client: client.send(CONTROL, frame(0x0D, b"\0")),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_a_flood_is_sent_goaway_then_cut_off(attack: Callable[[Client], None]) -> None:
    client = Client()
    client.ask(end=False)
    bursts = [ABANDONED_BURST, H3_OVERHEAD_BURST]
    actions = 0
    while not client.told_to_leave:
        attack(client)
        actions += 1
        assert actions <= max(bursts) + H3_OVERHEAD_PER_REQUEST + 1
    assert client.closed is None
    assert client.edge.refusals == {Refusal.ABUSE: 1}
    at_origin = len(client.edge.at_origin)
    while client.closed is None:
        attack(client)
        actions += 1
        assert actions <= 2 * (max(bursts) + H3_OVERHEAD_PER_REQUEST) + 2
    assert client.closed[0] == EXCESSIVE_LOAD
    assert client.edge.refusals == {Refusal.ABUSE: 1}
    assert len(client.edge.at_origin) == at_origin, "requests after GOAWAY reached the origin"


def test_a_flood_is_met_by_rate_however_long_it_takes() -> None:
    client = Client()
    for _ in range(100_000):
        client.edge.clock += 1 / (2 * H3_OVERHEAD_RATE)
        client.send(CONTROL, priority_update(0))
        if client.told_to_leave:
            break
    assert client.told_to_leave


def test_what_runs_is_finished_before_the_connection_ends() -> None:
    """A POST is answered, a request after GOAWAY is rejected: neither comes twice to the origin."""
    client = Client()
    post = client.ask(head(POST) + frame(0, b"x"))
    posted = client.edge.at_origin.pop()
    while not client.told_to_leave:
        client.cancel(client.ask())
    late = client.ask(head(POST) + frame(0, b"y"))
    assert client.connection.resets[late] == H3ErrorCode.REQUEST_REJECTED
    goaway = frame(FrameType.GOAWAY, encode_varint(late))
    assert client.connection.control.endswith(goaway)
    client.edge.clock += 60
    client.session.close_if_drained()
    assert client.closed is None
    posted.answer(b"done")
    assert post in client.connection.ended
    client.session.after_transmit()
    assert client.closed == (EXCESSIVE_LOAD, "too many requests abandoned")
    assert client.edge.closed == ["too many requests abandoned"]


def test_a_client_with_nothing_running_has_the_time_to_see_goaway() -> None:
    client = Client()
    while not client.told_to_leave:
        client.send(CONTROL, priority_update(0))
    client.session.after_transmit()
    assert client.closed is None
    client.edge.clock += DRAIN_NOTICE
    client.session.close_if_drained()
    assert client.closed is not None
    assert client.closed[0] == EXCESSIVE_LOAD


def test_requests_given_up_late_do_not_count_those_given_up_at_once_do() -> None:
    for lifetime, is_closed in ((1.01 * ABANDONED_MIN_LIFETIME, False), (0.0, True)):
        client = Client()
        for _ in range(10 * ABANDONED_BURST // 100):
            streams = [client.ask() for _ in range(100)]
            client.edge.clock += lifetime
            for stream_id in streams:
                client.cancel(stream_id)
            client.edge.at_origin.clear()
            client.forget()
            if client.closed:
                break
        assert bool(client.closed) is is_closed
