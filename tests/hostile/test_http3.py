"""Clients that violate RFC 9114 and 9204 on a whole connection, and how it is closed.

The codec's own tests hold it to more; these see that the CONNECTION_CLOSE says the same.
"""

from __future__ import annotations

from typing import Any

import pylsqpack
import pytest

from quicedge.downstream.http3 import Http3Session
from quicedge.http.errors import H3ErrorCode as Code
from quicedge.http.frames import encode_frame as frame
from quicedge.http.frames import encode_settings
from tests.support.hostile import Hostile, varints
from tests.support.sessions import StubEdge
from tests.support.world import NOW

REQUEST, CONTROL, ENCODER, DECODER, EXTRA = 0, 2, 6, 10, 14
GET = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/")]
SETTINGS = b"\0" + frame(4, b"")


def headers(fields: list[tuple[bytes, bytes]]) -> bytes:
    return frame(1, pylsqpack.Encoder().encode(0, fields)[1])


def stream(stream_id: int, data: bytes, fin: bool = False) -> bytes:
    return varints(0x0A | fin, stream_id, len(data)) + data


def connect() -> Hostile:
    """A client of HTTP/3 whose requests nobody answers."""
    hostile = Hostile(alpn_protocols=["h3"])
    edge: Any = StubEdge(NOW, hostile.world.endpoint.wake)
    hostile.world.accept = lambda connection: Http3Session(connection, edge, edge)
    return hostile.connect()


RULES: dict[str, tuple[bytes, Code]] = {
    "no SETTINGS first": (stream(CONTROL, b"\0" + frame(7, b"\0")), Code.MISSING_SETTINGS),
    "SETTINGS twice": (stream(CONTROL, SETTINGS + frame(4, b"")), Code.FRAME_UNEXPECTED),
    "a setting twice": (
        stream(CONTROL, b"\0" + frame(4, bytes((6, 1, 6, 1)))), Code.SETTINGS_ERROR,
    ),
    **{
        f"setting {number} of HTTP/2": (
            stream(CONTROL, b"\0" + frame(4, encode_settings({number: 0}))), Code.SETTINGS_ERROR,
        )
        for number in (2, 3, 4, 5)
    },
    "SETTINGS on a request": (stream(REQUEST, frame(4, b"")), Code.FRAME_UNEXPECTED),
    "CANCEL_PUSH on a request": (stream(REQUEST, frame(3, b"\0")), Code.FRAME_UNEXPECTED),
    "GOAWAY on a request": (stream(REQUEST, frame(7, b"\0")), Code.FRAME_UNEXPECTED),
    "MAX_PUSH_ID on a request": (stream(REQUEST, frame(13, b"\0")), Code.FRAME_UNEXPECTED),
    "PUSH_PROMISE from a client": (stream(REQUEST, frame(5, b"\0")), Code.FRAME_UNEXPECTED),
    "DATA before HEADERS": (stream(REQUEST, frame(0, b"x")), Code.FRAME_UNEXPECTED),
    "HEADERS after trailers": (
        stream(REQUEST, headers(GET) + headers([(b"x", b"y")]) * 2), Code.FRAME_UNEXPECTED,
    ),
    **{
        f"frame {kind} of HTTP/2 on stream {on}": (
            stream(on, before + frame(kind, b"")), Code.FRAME_UNEXPECTED,
        )
        for kind in (2, 6, 8, 9)
        for on, before in ((REQUEST, b""), (CONTROL, SETTINGS))
    },
    "DATA on control": (stream(CONTROL, SETTINGS + frame(0, b"")), Code.FRAME_UNEXPECTED),
    "HEADERS on control": (stream(CONTROL, SETTINGS + headers(GET)), Code.FRAME_UNEXPECTED),
    "a frame past its stream's end": (
        stream(REQUEST, headers(GET) + b"\0\x05ab", True), Code.FRAME_ERROR,
    ),
    "MAX_PUSH_ID goes down": (
        stream(CONTROL, SETTINGS + frame(13, b"\x05") + frame(13, b"\x04")), Code.ID_ERROR,
    ),
    "GOAWAY goes up": (
        stream(CONTROL, SETTINGS + frame(7, b"\0") + frame(7, b"\x04")), Code.ID_ERROR,
    ),
    "a PRIORITY_UPDATE beyond the stream limit": (
        stream(CONTROL, SETTINGS + frame(0xF0700, varints(4 * 100) + b"u=1")), Code.ID_ERROR,
    ),
    "a PRIORITY_UPDATE of no request": (
        stream(CONTROL, SETTINGS + frame(0xF0700, varints(2) + b"u=1")), Code.ID_ERROR,
    ),
    "a push stream": (stream(EXTRA, b"\x01\0"), Code.STREAM_CREATION_ERROR),
    **{
        f"a second critical stream of type {kind}": (
            stream(CONTROL, bytes((kind,))) + stream(EXTRA, bytes((kind,))),
            Code.STREAM_CREATION_ERROR,
        )
        for kind in (0, 2, 3)
    },
    **{
        f"critical stream of type {kind} {how}": (
            stream(CONTROL, bytes((kind,))) + end, Code.CLOSED_CRITICAL_STREAM,
        )
        for kind in (0, 2, 3)
        for how, end in (
            ("ends", varints(0x0F, CONTROL, 1, 0)),
            ("is reset", varints(0x04, CONTROL, 0, 1)),
        )
    },
    "our control stream is stopped": (varints(0x05, 3, 0), Code.CLOSED_CRITICAL_STREAM),
    "an unknown static entry": (
        stream(REQUEST, frame(1, b"\0\0\xff\xff\x10")), Code.QPACK_DECOMPRESSION_FAILED,
    ),
    "a negative Base": (
        stream(REQUEST, frame(1, b"\0\x80\xd1")), Code.QPACK_DECOMPRESSION_FAILED,
    ),
    "an insertion into a table without capacity": (
        stream(ENCODER, b"\x02\x41a\x01b"), Code.QPACK_ENCODER_STREAM_ERROR,
    ),
    "a table beyond the limit": (
        stream(ENCODER, b"\x02\x3f\xe1\x1f"), Code.QPACK_ENCODER_STREAM_ERROR,
    ),
    "an insert count increment of 0": (
        stream(DECODER, b"\x03\x00"), Code.QPACK_DECODER_STREAM_ERROR,
    ),
    "an acknowledgment of no section": (
        stream(DECODER, b"\x03\x84"), Code.QPACK_DECODER_STREAM_ERROR,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("payload", "code"), RULES.values(), ids=RULES.keys())
def test_what_breaks_a_rule_ends_the_connection(payload: bytes, code: Code) -> None:
    assert connect().send(payload).verdict == code


def test_an_honest_request_ends_nothing() -> None:
    hostile = connect().send(stream(CONTROL, SETTINGS) + stream(REQUEST, headers(GET), True))
    assert hostile.verdict is None
    (connection,) = hostile.world.endpoint.connections
    assert connection.handler.requests == 1  # type: ignore[attr-defined]
