"""Filters: phases, added fields, and reserved fields of clients."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config.schema import Config, Forwarding
from quicedge.http.message import Request, Response
from quicedge.proxy.client import Transport
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters import Filter, FilterChain, build_filters
from quicedge.proxy.filters.alt_svc import AltSvc
from quicedge.proxy.filters.server_timing import server_timing
from quicedge.proxy.filters.transport_fields import transport_fields
from quicedge.proxy.spans import SpanRecorder
from quicedge.proxy.trace_context import trace_context
from quicedge.telemetry.protocols import TransportKind
from tests.support.client_info import StubClient

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


NEW_QUIC = Transport(TransportKind.QUIC, "c", "v2", None, None, 12000, 0, 0, 0, True)
TCP = Transport(TransportKind.TCP, "c", None, 0.02, 0.01, 14480, 0, 500, 1, False)
NO_FACTS = Transport(TransportKind.TCP, "c", None, None, None, None, None, None, None, False)


def test_the_transport_in_fields() -> None:
    assert dict(transport_fields(StubClient().transport)) == {
        b"x-transport-protocol": b"quic",
        b"x-transport-rtt-ms": b"12.300",
        b"x-transport-min-rtt-ms": b"10.000",
        b"x-transport-loss": b"0.0020",
        b"x-transport-congestion-window": b"14720",
        b"x-quic-version": b"v1",
        b"x-quic-0rtt": b"0",
    }
    unknown = dict(transport_fields(NEW_QUIC))
    assert b"x-transport-rtt-ms" not in unknown
    assert unknown[b"x-quic-0rtt"] == b"1"


def test_a_tcp_connection_in_fields() -> None:
    assert dict(transport_fields(TCP)) == {
        b"x-transport-protocol": b"tcp",
        b"x-transport-rtt-ms": b"20.000",
        b"x-transport-min-rtt-ms": b"10.000",
        b"x-transport-loss": b"0.0020",
        b"x-transport-congestion-window": b"14480",
    }
    assert transport_fields(NO_FACTS) == [(b"x-transport-protocol", b"tcp")]


def test_server_timing_in_milliseconds() -> None:
    value = server_timing(0.25, 0.001, StubClient().transport)
    assert value == b'edge;dur=1.0, origin;dur=250.0, rtt;desc="QUIC";dur=12.3'
    assert server_timing(None, 0.0, TCP) == b'edge;dur=0.0, rtt;desc="TCP";dur=20.0'
    assert server_timing(None, 0.0, NO_FACTS) == b"edge;dur=0.0"


# --- phases -------------------------------------------------------------------------------------


def exchange(client: StubClient, *fields: tuple[bytes, bytes]) -> Exchange:
    """An exchange that goes nowhere."""
    request = Request(b"GET", b"https", b"a.test", b"/", list(fields), ended=True)
    return Exchange(
        request, None, None, client, FilterChain(),  # type: ignore[arg-type]
        clock=lambda: 1.0, on_done=lambda exchange: None,
    )  # fmt: skip


class Marking(Filter):
    """Notes what it is asked for."""

    def __init__(self, name: bytes, calls: list[bytes]) -> None:
        self._name = name
        self._calls = calls

    def on_request(self, request: Request, exchange: Exchange) -> Request:
        self._calls.append(self._name)
        return request


def test_a_chain_calls_only_the_phases_that_filters_have_in_their_order() -> None:
    calls: list[bytes] = []
    chain = FilterChain([Marking(b"one", calls), Filter(), Marking(b"two", calls)])
    about = exchange(StubClient())
    assert chain.on_request(about.request, about) is about.request
    response = Response(200)
    assert chain.on_response(response, about) is response
    chain.on_accept(about)
    chain.on_done(about)
    assert calls == [b"one", b"two"]


def chain_of(**options: bool) -> FilterChain:
    config = Config(forwarding=Forwarding(**options))
    return build_filters(config, SpanRecorder(config.otel, lambda: 0.0), lambda: b"now")


def test_a_configured_filter_drops_a_clients_own_fields() -> None:
    chain = chain_of(transport_headers=True, trace_context=True)
    forged = [
        (b"x-quic-version", b"v9"),
        (b"x-quic-rtt-ms", b"1"),
        (b"traceparent", b"nonsense"),
        (b"accept", b"*/*"),
    ]
    about = exchange(StubClient(), *forged)
    chain.on_accept(about)
    fields = chain.on_request(about.request, about).fields
    assert [v for n, v in fields if n == b"x-quic-version"] == [b"v1"]
    assert b"x-quic-rtt-ms" not in dict(fields), "the name that former releases sent"
    assert about.trace is not None
    (parent,) = [v for n, v in fields if n == b"traceparent"]
    assert about.trace.trace_id.encode() in parent
    assert (b"accept", b"*/*") in fields
    assert [v for n, v in fields if n == b"x-forwarded-for"] == [b"192.0.2.1"]


def test_without_the_filter_its_fields_are_ordinary() -> None:
    about = exchange(StubClient(), (b"x-quic-version", b"v9"), (b"traceparent", b"nonsense"))
    fields = chain_of().on_request(about.request, about).fields
    assert (b"x-quic-version", b"v9") in fields
    assert (b"traceparent", b"nonsense") in fields


def test_early_data_is_marked_and_an_unproven_address_is_unknown() -> None:
    about = exchange(StubClient(address=None, early_data=True))
    fields = dict(chain_of().on_request(about.request, about).fields)
    assert fields[b"early-data"] == b"1"
    assert fields[b"x-forwarded-for"] == b"unknown"


def test_each_client_is_described_as_itself_whoever_came_before() -> None:
    chain = chain_of()
    clients = [
        (StubClient(("192.0.2.1", 50000)), b"192.0.2.1"),
        (StubClient(("192.0.2.1", 50001)), b"192.0.2.1"),
        (StubClient(("fe80::1%eth0", 50000)), b"fe80::1"),
        (StubClient(address=None), b"unknown"),
        (StubClient(("192.0.2.1", 50000)), b"192.0.2.1"),
        (StubClient(("192.0.2.1", 50000), http_version=b"2"), b"192.0.2.1"),
        (StubClient(("192.0.2.1", 50000), early_data=True), b"192.0.2.1"),
    ]
    for client, shown in clients * 2:
        about = exchange(client)
        fields = dict(chain.on_request(about.request, about).fields)
        assert fields[b"x-forwarded-for"] == shown
        assert fields[b"via"] == client.http_version + b" quicedge"
        assert (b"early-data" in fields) == client.early_data


def alt_svc_of(response: Response, client: StubClient) -> list[bytes]:
    item = AltSvc()
    fields = item.on_response(response, exchange(client)).fields
    return [value for name, value in fields if name == b"alt-svc"]


class Told:
    """A listener that has something to tell, or nothing."""

    def __init__(self, value: bytes | None) -> None:
        self.value = value
        self.addresses: list[bytes] = []

    def value_for(self, address: bytes) -> bytes | None:
        self.addresses.append(address)
        return self.value


def test_alt_svc_is_what_the_listener_advertises() -> None:
    theirs = Response(200, [(b"alt-svc", b'h3=":8443"')], b"1.1")
    told = Told(b'h3=":4433"; ma=60')
    client = StubClient(alt_svc=told)
    assert alt_svc_of(theirs, client) == [told.value]
    assert told.addresses == [client.share.address]


def test_an_origins_alt_svc_is_dropped_where_the_edge_has_none() -> None:
    """It names a port of the origin, which clients of the edge do not reach."""
    theirs = Response(200, [(b"alt-svc", b'h3=":8443"')], b"1.1")
    assert alt_svc_of(theirs, StubClient(alt_svc=Told(None))) == []
    assert alt_svc_of(theirs, StubClient(alt_svc=None)) == []


def test_server_timing_is_added_to_responses_of_origins_only() -> None:
    chain = chain_of(server_timing=True)
    about = exchange(StubClient())
    assert b"server-timing" not in dict(chain.on_response(Response(404), about).fields)
    about.first_byte_at = 1.25
    value = dict(chain.on_response(Response(200, [], b"1.1"), about).fields)[b"server-timing"]
    assert value == b'edge;dur=0.0, origin;dur=250.0, rtt;desc="QUIC";dur=12.3'
