"""Compression: what is compressed and how, and what stays as it is."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config.filterlimits import COMPRESSING_STREAMS
from quicedge.http.encodings import choose
from quicedge.http.message import Response
from quicedge.telemetry.outcomes import Outcome
from tests.support.filtered import Client, World

PAGE = b"<p>the same again</p>\n" * 400
HTML = {b"content-type": b"text/html; charset=utf-8"}


def gunzip(data: bytes) -> bytes:
    return zlib.decompress(data, 31)


DECODERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"gzip": gunzip,
    b"br": brotli.decompress,
    b"zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


def world(settings: str = "{}") -> World:
    return World(f"[[routes]]\nupstream = 'app'\nfilters = [{{ compress = {settings} }}]")


def ask(here: World, accepts: bytes = b"gzip, br, zstd", **options: object) -> Client:
    return here.send(b"/", (b"accept-encoding", accepts), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("coding", DECODERS)
async def test_a_response_is_compressed_as_the_client_likes_it(coding: bytes) -> None:
    here = world()
    client = ask(here, coding)
    fields = {b"etag": b'"1"', b"accept-ranges": b"bytes", b"content-digest": b"sha-256=:x:"}
    here.origin.respond(200, {**HTML, **fields}, PAGE, PAGE)
    assert client.value(b"content-encoding") == coding
    assert DECODERS[coding](client.body) == PAGE + PAGE
    assert client.ended
    assert len(client.body) < len(PAGE) / 10
    assert client.value(b"content-length") is None
    assert client.value(b"vary") == b"accept-encoding"
    assert client.value(b"etag") == b'W/"1"'
    assert client.value(b"accept-ranges") is None
    assert client.value(b"content-digest") is None


AS_IT_IS: dict[str, tuple[int, dict[bytes, bytes], bytes]] = {
    "encoded": (200, {**HTML, b"content-encoding": b"br"}, PAGE),
    "an image": (200, {b"content-type": b"image/png"}, PAGE),
    "no type": (200, {}, PAGE),
    "short": (200, HTML, b"short"),
    "not to be transformed": (200, {**HTML, b"cache-control": b"public, no-transform"}, PAGE),
    "a range": (206, {**HTML, b"content-range": b"bytes 0-9/90"}, PAGE),
    "not modified": (304, {**HTML, b"etag": b'"1"'}, b""),
}


@pytest.mark.parametrize("name", AS_IT_IS)
async def test_what_gains_nothing_or_must_not_change_stays_as_it_is(name: str) -> None:
    status, fields, body = AS_IT_IS[name]
    here = world()
    client = ask(here)
    here.origin.respond(status, fields, body)
    assert client.body == body
    for field in fields:
        assert client.value(field) == fields[field]
    assert client.value(b"content-encoding") == fields.get(b"content-encoding")


async def test_a_client_that_has_the_compressed_response_keeps_its_weak_validator() -> None:
    for known, tag, vary in (
        (b'"0", W/"1"', b'W/"1"', b"accept-encoding"),
        (b'"1"', b'"1"', None),
        (b"*", b'"1"', None),
    ):
        here = world()
        client = here.send(b"/", (b"accept-encoding", b"gzip"), (b"if-none-match", known))
        here.origin.respond(304, {b"etag": b'"1"'})
        assert (client.status, client.value(b"etag"), client.value(b"vary")) == (304, tag, vary)


async def test_all_lines_of_a_field_count() -> None:
    here = world()
    client = ask(here)
    lines = [*HTML.items(), (b"cache-control", b"no-transform"), (b"cache-control", b"private")]
    here.origin.handler.response(Response(200, lines, b"1.1"))
    assert client.value(b"content-encoding") is None


async def test_a_client_that_accepts_none_is_told_that_others_may() -> None:
    here = world()
    client = ask(here, b"identity, compress")
    here.origin.respond(200, {**HTML, b"vary": b"cookie"}, PAGE)
    assert client.body == PAGE
    assert client.values(b"vary") == [b"cookie", b"accept-encoding"]
    assert client.value(b"content-length") == b"%d" % len(PAGE)


async def test_secrets_are_not_compressed_when_told() -> None:
    here = world("{ except_with = ['Cookie'] }")
    client = here.send(b"/", (b"accept-encoding", b"br"), (b"cookie", b"session=1"))
    here.origin.respond(200, HTML, PAGE)
    assert client.body == PAGE
    client = ask(here)
    here.origin.respond(200, HTML, PAGE)
    assert client.value(b"content-encoding") == b"zstd"


@pytest.mark.parametrize("coding", DECODERS)
async def test_an_event_can_be_read_as_soon_as_it_is_sent(coding: bytes) -> None:
    decoders: dict[bytes, Callable[[bytes], bytes]] = {
        b"gzip": zlib.decompressobj(31).decompress,
        b"br": brotli.Decompressor().process,
        b"zstd": zstandard.ZstdDecompressor().decompressobj().decompress,
    }
    here = world()
    client = ask(here, coding)
    here.origin.respond(200, {b"content-type": b"text/event-stream"}, declared=False, end=False)
    for number in range(3):
        event = b"data: %d\n\n" % number
        here.origin.handler.data(event)
        assert decoders[coding](client.writes[-1]) == event
        assert len(client.writes) == number + 1


async def test_a_head_request_gets_the_fields_of_the_compressed_response() -> None:
    here = world()
    client = ask(here, method=b"HEAD")
    here.origin.respond(200, {**HTML, b"content-length": b"9000"}, declared=False)
    assert client.value(b"content-encoding") == b"zstd"
    assert client.value(b"content-length") is None
    assert client.body == b""


async def test_a_reply_of_another_filter_is_compressed() -> None:
    body = "x" * 3000
    here = World(
        f"[[routes]]\n[[filters]]\ncompress = {{}}\n[[filters]]\nrespond = {{ body = '{body}' }}"
    )
    client = ask(here, b"gzip")
    assert gunzip(client.body) == body.encode()
    assert client.ended


async def test_the_number_of_compressed_streams_is_bounded_and_given_back() -> None:
    here = world()
    running = []
    for _ in range(COMPRESSING_STREAMS):
        client = ask(here, b"gzip")
        here.origin.respond(200, HTML, PAGE, declared=False, end=False)
        running.append(client)
    coded = [client for client in running if client.value(b"content-encoding")]
    assert COMPRESSING_STREAMS / 2 < len(coded) < COMPRESSING_STREAMS, "some is left for others"
    for client in running:
        assert client.exchange is not None
        client.exchange.connection_lost(Outcome.CLIENT_GONE)
    client = ask(here, b"gzip")
    here.origin.respond(200, HTML, PAGE)
    assert client.value(b"content-encoding") == b"gzip"


@pytest.mark.parametrize(
    ("value", "chosen"),
    [
        (b"", None),
        (b"gzip", b"gzip"),
        (b"x-gzip", b"gzip"),
        (b"gzip, deflate, br, zstd", b"zstd"),
        (b"gzip;q=1.0, zstd;q=0.5", b"gzip"),
        (b"gzip;q=0, br;q=0.001", b"br"),
        (b"*", b"zstd"),
        (b"*;q=0.5, gzip", b"gzip"),
        (b"zstd;q=0, *", b"br"),
        (b"*;q=0", None),
        (b"GZIP ; Q=0.7", b"gzip"),
        (b"gzip;q=nonsense", None),
        (b"identity;q=1", None),
    ],
)
def test_the_coding_is_negotiated(value: bytes, chosen: bytes | None) -> None:
    assert choose(value, (b"zstd", b"br", b"gzip")) == chosen


@given(st.binary(max_size=60))
def test_any_value_gives_an_offered_coding_or_none(value: bytes) -> None:
    assert choose(value, (b"br", b"gzip")) in (None, b"br", b"gzip")


@given(st.lists(st.binary(max_size=3000), max_size=6), st.sampled_from(list(DECODERS)))
async def test_whatever_the_pieces_the_content_is_the_same(
    pieces: list[bytes], coding: bytes
) -> None:
    here = world("{ min_size = 0 }")
    client = ask(here, coding)
    here.origin.respond(200, HTML, *pieces)
    assert DECODERS[coding](client.body) == b"".join(pieces)
