"""What HTTP demands of an intermediary, seen from both ends of a running edge."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from h2.events import StreamEnded

from quicedge.http.dates import parse_date
from quicedge.http.errors import H3ErrorCode
from tests.support.edge import RunningEdge, edge
from tests.support.h3client import h3_client
from tests.support.origins import H2Peer
from tests.support.origins import origin as scripted_origin
from tests.support.peers import wait_until
from tests.support.raworigin import OK, RawOrigin, raw_origin

DATED = b"Sun, 06 Nov 1994 08:49:37 GMT"
ANSWERS = {
    b"/dated": b"HTTP/1.1 200 OK\r\ndate: " + DATED + b"\r\ncontent-length: 0\r\n\r\n",
    b"/via": b"HTTP/1.1 200 OK\r\nvia: 1.0 alpha\r\nvia: 1.1 beta\r\ncontent-length: 0\r\n\r\n",
    b"/old": b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nold",
    b"/nothing": b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
    b"/trailers": (
        b"HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n"
        b"2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n"
    ),
    b"/working": b"HTTP/1.1 102 Processing\r\n\r\n" * 40 + OK,
    b"/flooding": b"HTTP/1.1 102 Processing\r\n\r\n" * 400 + OK,
    b"/long-value": b"HTTP/1.1 200 OK\r\na: " + b"b" * 70_000 + b"\r\ncontent-length: 0\r\n\r\n",
    b"/long-name": b"HTTP/1.1 200 OK\r\n" + b"a" * 70_000 + b": b\r\ncontent-length: 0\r\n\r\n",
    b"/silent": b"",
    b"/broken-off": b"",
    b"/hints": (b"HTTP/1.1 103 Early Hints\r\nlink: " + b"x" * 50_000 + b"\r\n\r\n") * 60,
    b"*": b"HTTP/1.1 204 No Content\r\nallow: GET\r\n\r\n",
    b"/malformed": b"HTTP/1.1 200 OK\r\nX Frame: DENY\r\ncontent-length: 0\r\n\r\n",
}


@pytest.fixture(scope="module")
def origin() -> Iterator[RawOrigin]:
    with raw_origin(ANSWERS) as running:
        yield running


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, origin: RawOrigin) -> Iterator[RunningEdge]:
    directory = tmp_path_factory.mktemp("edge")
    (directory / "www" / "docs").mkdir(parents=True)
    (directory / "www" / "docs" / "index.html").write_text("hello")
    routes = f"""
[upstreams.files]
root = "{directory}/www"
[[routes]]
host = "localhost"
path = "/docs"
upstream = "files"
[[routes]]
host = "127.0.0.1"
path = "/app"
upstream = "app"
[limits]
max_uri = 1000
"""
    with edge(directory, origin.url, extra=routes, hosts="localhost") as running:
        yield running


async def test_every_final_response_has_one_date(running: RunningEdge) -> None:
    async with h3_client(running.port) as client:
        for path in (b"/undated", b"/docs/index.html", b"/docs/none", b"/" + b"x" * 1000):
            answer = await client.ask(b"GET", path)
            (date,) = answer.values(b"date")
            assert parse_date(date, 0.0), path
        answer = await client.ask(b"GET", b"/u", authority=b"user@localhost")
        assert (answer.status, len(answer.values(b"date"))) == (400, 1)
        assert (await client.ask(b"GET", b"/dated")).values(b"date") == [DATED]


async def test_via_names_every_hop_both_ways(running: RunningEdge, origin: RawOrigin) -> None:
    async with h3_client(running.port) as client:
        answer = await client.ask(b"GET", b"/via", [(b"via", b"1.1 one"), (b"via", b"2 two")])
        assert origin.lines(b"/via", b"via") == [b"1.1 one, 2 two, 3 quicedge"]
        assert answer.values(b"via") == [b"1.0 alpha", b"1.1 beta", b"1.1 quicedge"]
        assert (await client.ask(b"GET", b"/old")).values(b"via") == [b"1.0 quicedge"]
        assert not (await client.ask(b"GET", b"/docs/")).values(b"via")


async def test_options_for_the_whole_server_goes_where_the_root_does(
    running: RunningEdge, origin: RawOrigin
) -> None:
    async with h3_client(running.port) as client:
        answer = await client.ask(b"OPTIONS", b"*")
    assert (answer.status, answer.values(b"allow")) == (204, [b"GET"])
    assert origin.head(b"*").startswith(b"OPTIONS * HTTP/1.1\r\n")


async def test_options_goes_as_far_as_max_forwards_lets_it(
    running: RunningEdge, origin: RawOrigin
) -> None:
    async with h3_client(running.port) as client:
        own = await client.ask(b"OPTIONS", b"/zero", [(b"max-forwards", b"0")])
        assert (own.status, bytes(own.body), own.values(b"via")) == (204, b"", [])
        await client.ask(b"OPTIONS", b"/five", [(b"max-forwards", b"5")])
        assert (await client.ask(b"OPTIONS", b"/x", [(b"max-forwards", b"?")])).status == 400
    assert origin.lines(b"/five", b"max-forwards") == [b"4"]
    assert not [head for head in origin.heads if b" /zero " in head]
    assert not [head for head in origin.heads if b" /x " in head]


async def test_trace_never_reaches_an_origin(running: RunningEdge, origin: RawOrigin) -> None:
    async with h3_client(running.port) as client:
        assert (await client.ask(b"TRACE", b"/trace")).status == 501
    assert not [head for head in origin.heads if b"/trace" in head]


async def test_no_answer_to_head_has_content(running: RunningEdge) -> None:
    many = [(b"x-%d" % i, b"y") for i in range(140)]
    large = [(b"x-%d" % i, b"y" * 4000) for i in range(20)]
    async with h3_client(running.port) as client:
        answers = [
            await client.ask(b"HEAD", b"/docs/none"),
            await client.ask(b"HEAD", b"/" + b"x" * 1000),
            await client.ask(b"HEAD", b"/", many),
            await client.ask(b"HEAD", b"/", large),
            await client.ask(b"HEAD", b"/", authority=b"user@localhost"),
            await client.ask(b"HEAD", b"/", authority=b"other.test"),
            await client.ask(b"HEAD", b"/none", authority=b"127.0.0.1"),
        ]
    assert [answer.status for answer in answers] == [404, 414, 431, 431, 400, 421, 404]
    assert not any(answer.body for answer in answers)


async def test_no_content_has_no_length(running: RunningEdge) -> None:
    async with h3_client(running.port) as client:
        answer = await client.ask(b"GET", b"/nothing")
    assert (answer.status, answer.values(b"content-length")) == (204, [])


async def test_a_directory_s_redirect_keeps_the_query(running: RunningEdge) -> None:
    async with h3_client(running.port) as client:
        answer = await client.ask(b"GET", b"/docs?v=1&x=%20y")
        assert (answer.status, answer.values(b"location")) == (301, [b"/docs/?v=1&x=%20y"])
        assert (await client.ask(b"GET", b"/docs")).values(b"location") == [b"/docs/"]


async def test_the_announcement_of_trailers_passes_both_ways(
    running: RunningEdge, origin: RawOrigin
) -> None:
    async with h3_client(running.port) as client:
        answer = await client.ask(b"GET", b"/trailers", [(b"trailer", b"x-mine")])
    assert answer.values(b"trailer") == [b"x-sum"]
    assert answer.trailers == [(b"x-sum", b"1")]
    assert origin.lines(b"/trailers", b"trailer") == [b"x-mine"]


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE", b"OPTIONS"])
async def test_a_request_whose_end_comes_later_has_no_body_at_the_origin(
    running: RunningEdge, origin: RawOrigin, method: bytes
) -> None:
    path = b"/later/" + method
    async with h3_client(running.port) as client:
        stream_id = client.open(method, path, end=False)
        await client.ping()  # the head is there, and nothing else
        client.send_fin(stream_id)
        assert (await client.answer(stream_id)).status == 200
    assert b"transfer-encoding" not in origin.head(path)


async def test_a_grpc_client_stream_may_be_slow_and_an_upload_may_not(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        stream_id = (await peer.wait(StreamEnded)).stream_id
        await peer.respond(stream_id, b"all")
        await reader.read()

    grpc = [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
    async with scripted_origin(serve) as slow:
        options = {"upstream_extra": 'protocol = "h2"', "extra": '[limits]\nbody_timeout = "1s"'}
        with edge(tmp_path, slow.url, **options) as running:
            async with h3_client(running.port) as client:
                stream = client.open(b"POST", b"/t.T/Collect", grpc, end=False)
                upload = client.open(b"POST", b"/upload", end=False)
                for _ in range(6):
                    client.send(stream, b"m")
                    if not client.answers[upload].over.is_set():
                        client.send(upload, b"u")
                    await asyncio.sleep(0.5)
                client.send(stream, b"m", end=True)
                answer = await client.answer(stream)
                assert (answer.status, bytes(answer.body)) == (200, b"all")
                assert (await client.answer(upload)).status == 408


async def test_interim_responses_are_bounded_by_rate_not_by_number(running: RunningEdge) -> None:
    async with h3_client(running.port) as client:
        answer = await client.ask(b"COPY", b"/working")
        assert (answer.status, answer.interim) == (200, [102] * 40)
        assert (await client.ask(b"COPY", b"/flooding")).status == 502


@pytest.mark.parametrize("path", [b"/long-value", b"/long-name"])
async def test_a_response_field_too_long_for_http3_is_answered_502(
    running: RunningEdge, path: bytes
) -> None:
    async with h3_client(running.port) as client:
        assert (await client.ask(b"GET", path)).status == 502
        assert (await client.ask(b"GET", b"/after")).status == 200
    assert "too long" in str(record_of(running, path=path.decode())["reason"])


async def test_only_the_edge_names_the_client_to_origins(
    running: RunningEdge, origin: RawOrigin
) -> None:
    forged = [
        b"forwarded", b"x-forwarded-for", b"x_forwarded_for", b"x-forwarded-port", b"x-real-ip",
        b"x-forwarded_prefix", b"true-client-ip", b"early_data", b"proxy",
    ]  # fmt: skip
    async with h3_client(running.port) as client:
        # In one datagram: the origin answers as soon as it has the head.
        stream_id = client.open(
            b"POST", b"/forged", [(name, b"forged") for name in forged], end=False, hold=True
        )
        client.h3.send_data(stream_id, b"x", end_stream=False)
        trailers = [(b"x-forwarded-for", b"forged"), (b"cookie", b"forged"), (b"x-sum", b"1")]
        client.h3.send_headers(stream_id, trailers, end_stream=True)
        client.transmit()
        assert (await client.answer(stream_id)).status == 200
        wait_until(lambda: bytes(origin.received).endswith(b"0\r\nx-sum: 1\r\n\r\n"), "its end")
    assert b"forged" not in origin.head(b"/forged").split(b"\r\n", 1)[1]
    assert b"forged" not in origin.received.rpartition(b"\r\n0\r\n")[2]
    assert origin.lines(b"/forged", b"x-forwarded-for") == [b"127.0.0.1"]


async def test_paths_are_routed_in_normal_form_and_forwarded_as_they_came(
    running: RunningEdge, origin: RawOrigin
) -> None:
    async with h3_client(running.port) as client:
        for path in (b"/docs/../small", b"/docs/%2e%2e/small?x"):
            assert (await client.ask(b"GET", path)).status == 200
            assert origin.head(path)
        for path in (b"/%64ocs/index.html", b"/x/../docs/index.html"):
            assert bytes((await client.ask(b"GET", path)).body) == b"hello"
        for path in (b"/docs/..%2fsmall", b"/docs/..;/small", b"/docs//../small"):
            assert (await client.ask(b"GET", path)).status == 400


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
        assert (await client.ask(b"GET", b"/many", many)).status == 431
        large = [(b"x-%d" % i, b"y" * 4000) for i in range(20)]
        assert (await client.ask(b"GET", b"/large", large)).status == 431
    record = record_of(running, path="/u", status=400, outcome="malformed", method="GET")
    assert record["reason"] == "the authority is missing or malformed"
    record = record_of(running, path="/many", status=431, outcome="malformed")
    assert record["reason"] == "field section too large"
    # It was never decoded: no more is known of it.
    record = record_of(running, path="", status=431, outcome="malformed")
    assert record["reason"] == "field section too large"


async def test_the_access_log_says_why_a_request_broke_off_after_its_head(
    running: RunningEdge,
) -> None:
    async with h3_client(running.port) as client:
        stream_id = client.open(b"POST", b"/broken-off", [(b"content-length", b"1")], end=False)
        client.send(stream_id, b"two")
        assert (await client.answer(stream_id)).reset == H3ErrorCode.MESSAGE_ERROR
    record = record_of(running, path="/broken-off")
    assert (record["outcome"], record["status"]) == ("malformed", None)
    assert record["reason"] == "content beyond content-length"


def test_counters_exist_at_zero_before_anything_is_counted(running: RunningEdge) -> None:
    url = f"http://127.0.0.1:{running.admin_port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    for series in (
        'quicedge_requests_refused_total{reason="rate_limited",worker="0"} 0.0',
        'quicedge_datagrams_dropped_total{reason="dropped_memory",worker="0"} 0.0',
        'quicedge_early_data_total{reason="used",worker="0"} 0.0',
        'quicedge_upstream_errors_total{kind="connect",upstream="app"} 0.0',
        'quicedge_route_outcomes_total{outcome="denied",route="localhost/"} 0.0',
    ):
        assert series in lines


async def test_interim_responses_wait_for_a_client_that_does_not_read(
    running: RunningEdge, origin: RawOrigin
) -> None:
    async with h3_client(running.port, max_stream_data=0) as client:
        client.open(b"GET", b"/hints")
        await asyncio.to_thread(
            wait_until, lambda: any(b"/hints" in head for head in origin.heads), "the request"
        )

        def buffered() -> int:
            found = running.admin("/api/v1/connections")["connections"]
            return max(connection["send_buffered"] for connection in found)

        before = 0
        while not (before > 100_000 and buffered() == before):
            before = buffered()
            await asyncio.sleep(0.3)
        assert before < 600_000, "of three million bytes"


async def test_the_log_says_why_a_connection_was_closed(running: RunningEdge) -> None:
    async with h3_client(running.port) as client:
        client.open(b"GET", b"/silent")
        await client.ping()
        control = client.control_stream
        client.quic.send_stream_data(control, b"\x04\x00")  # SETTINGS again
        client.transmit()
        await client.wait_closed()
    wait_until(lambda: "connection closed" in running.log(), "the log line")
    line = next(line for line in running.log().splitlines() if "connection closed" in line)
    assert "H3_FRAME_UNEXPECTED" in line
    assert "SETTINGS appears twice" in line
    record = record_of(running, path="/silent")
    assert (record["outcome"], record["status"]) == ("connection_closed", None)
    assert "SETTINGS appears twice" in str(record["reason"])
