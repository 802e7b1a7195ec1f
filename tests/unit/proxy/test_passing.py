"""What is passed on: the W3C's grammar, forged fields, and sound values."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.proxy.passing import Transport, server_timing, trace_context, transport_fields

TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"
GOOD = b"00-" + TRACE + b"-00f067aa0ba902b7-01"
FRESH = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-00")


@pytest.mark.parametrize("parent", [GOOD, b"01" + GOOD[2:], b"cc" + GOOD[2:] + b"-more"])
def test_a_valid_trace_is_continued_as_it_is(parent: bytes) -> None:
    fields = [(b"traceparent", parent), (b"tracestate", b"a=b"), (b"x", b"y")]
    found = trace_context(fields)
    assert found.fields == [(b"traceparent", parent), (b"tracestate", b"a=b")]
    assert found.trace_id == TRACE.decode()


@pytest.mark.parametrize(
    "parents",
    [
        [],
        [GOOD, GOOD],
        [b"ff" + GOOD[2:]],
        [GOOD + b"-more"],
        [GOOD.upper()],
        [b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01"],
        [b"00-" + TRACE + b"-" + b"0" * 16 + b"-01"],
        [GOOD[:-1]],
        [b"nonsense"],
    ],
)
def test_what_is_no_trace_begins_one(parents: list[bytes]) -> None:
    fields = [*((b"traceparent", parent) for parent in parents), (b"tracestate", b"a=b")]
    ((name, value),) = trace_context(fields).fields
    assert name == b"traceparent"
    assert FRESH.fullmatch(value)
    assert trace_context(fields).fields[0][1] != value, "every request its own"


@given(st.binary(max_size=80))
def test_any_octets_give_a_valid_trace(parent: bytes) -> None:
    assert re.fullmatch(r"[0-9a-f]{32}", trace_context([(b"traceparent", parent)]).trace_id)


def test_the_transport_in_fields() -> None:
    fields = dict(transport_fields(Transport("v1", 0.0123, 0.01, 0.002, 14720, False)))
    assert fields == {
        b"x-quic-version": b"v1",
        b"x-quic-rtt-ms": b"12.300",
        b"x-quic-min-rtt-ms": b"10.000",
        b"x-quic-loss": b"0.0020",
        b"x-quic-congestion-window": b"14720",
        b"x-quic-0rtt": b"0",
    }
    unknown = dict(transport_fields(Transport("v2", None, None, 0.0, 12000, True)))
    assert b"x-quic-rtt-ms" not in unknown
    assert unknown[b"x-quic-0rtt"] == b"1"


def test_server_timing_in_milliseconds() -> None:
    value = server_timing(0.25, 0.001, 0.02)
    assert value == b'edge;dur=1.0, origin;dur=250.0, quic;desc="smoothed RTT";dur=20.0'
    assert server_timing(None, 0.0, None) == b"edge;dur=0.0"
