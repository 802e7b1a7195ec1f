"""Outcomes of requests, as reported by the access log, metrics and spans."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final, TypeVar


class Outcome(StrEnum):
    COMPLETE = "complete"
    """The client acknowledged the whole response."""
    CLIENT_ABORTED = "client_aborted"
    """The client reset its request or stopped the response."""
    CLIENT_GONE = "client_gone"
    """The client's connection ended before the response was delivered."""
    CONNECTION_CLOSED = "connection_closed"
    """The edge closed the connection before the response was delivered."""
    REQUEST_TIMEOUT = "request_timeout"
    """The request content arrived too slowly."""
    RESPONSE_TIMEOUT = "response_timeout"
    """The client read the response too slowly."""
    MALFORMED = "malformed"
    """The request is malformed or too large to be parsed."""
    REQUEST_TOO_LARGE = "request_too_large"
    URI_TOO_LONG = "uri_too_long"
    RESPONSE_TOO_LARGE = "response_too_large"
    """The response head is larger than the client accepts or QPACK can encode."""
    MISDIRECTED = "misdirected"
    NO_ROUTE = "no_route"
    NOT_SERVED = "not_served"
    """A method that the edge does not support."""
    DENIED = "denied"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    FILTER_FAILED = "filter_failed"
    """A filter of the route raised an exception or took too long."""
    STALLED = "stalled"
    """The client made no progress while others waited for the resources it held."""
    TUNNEL_IDLE = "tunnel_idle"
    """A tunnel had no traffic for too long."""
    TUNNEL_DRAINED = "tunnel_drained"
    """The edge closed a tunnel because it shuts down."""
    # Of `http.errors.OriginFailure`.
    ORIGIN_CONNECT = "origin_connect"
    ORIGIN_CONNECT_TIMEOUT = "origin_connect_timeout"
    ORIGIN_TLS = "origin_tls"
    ORIGIN_FIRST_BYTE_TIMEOUT = "origin_first_byte_timeout"
    ORIGIN_IDLE_TIMEOUT = "origin_idle_timeout"
    ORIGIN_RESET = "origin_reset"
    ORIGIN_PROTOCOL = "origin_protocol"
    ORIGIN_REQUEST = "origin_request"
    ORIGIN_NO_SERVER = "origin_no_server"
    ORIGIN_OVERLOADED = "origin_overloaded"
    ORIGIN_CIRCUIT_OPEN = "origin_circuit_open"
    ORIGIN_NO_TUNNEL = "origin_no_tunnel"
    ORIGIN_APPLICATION = "origin_application"

    @property
    def origin_failure(self) -> str | None:
        """The kind of origin failure; None for other outcomes."""
        name = self.value
        return name.removeprefix(_ORIGIN) if name.startswith(_ORIGIN) else None

    @classmethod
    def of_origin(cls, kind: str) -> Outcome:
        """The outcome of an origin failure (`http.errors.OriginFailure`)."""
        return cls.STALLED if kind == cls.STALLED else cls(_ORIGIN + kind)


_ORIGIN: Final = "origin_"

ORIGIN_FAILURES: Final = tuple(kind for kind in (o.origin_failure for o in Outcome) if kind)
"""Every kind of origin failure, so that metric series exist before the first failure."""


class Refusal(StrEnum):
    """Limits that refuse requests, end streams or close connections, as counted."""

    DENIED = "denied"
    URI_TOO_LONG = "uri_too_long"
    OVERLOADED = "overloaded"
    RATE_LIMITED = "rate_limited"
    TUNNELS = "tunnels"
    """More tunnels than the route allows."""
    TOO_SLOW = "too_slow"
    STALLED = "stalled"
    """A stream reset because its client read nothing while holding its share of the memory."""
    SHED = "shed"
    """A connection closed because memory is exhausted."""
    ABUSE = "abuse"
    """A connection closed for abuse, gracefully or immediately."""


DATAGRAM_DROPS: Final = (
    "dropped_address_connections", "dropped_busy", "dropped_connections", "dropped_dcid_length",
    "dropped_denied",
    "dropped_draining", "dropped_empty", "dropped_half_open", "dropped_handshake_rate",
    "dropped_header", "dropped_memory", "dropped_prefix_connections",
    "dropped_prefix_half_open", "dropped_prefix_handshake_rate", "dropped_short",
    "dropped_server_id", "dropped_truncated", "dropped_undecryptable",
    "dropped_unknown_connection", "dropped_version", "fleet_dropped_hops", "fleet_dropped_peer",
    "fleet_dropped_rate", "fleet_dropped_send", "forward_dropped", "send_dropped_address_gone",
    "send_dropped_error",
    "send_dropped_not_permitted", "send_dropped_queue", "send_dropped_refused",
    "send_dropped_too_large", "send_dropped_unreachable",
)  # fmt: skip
"""Reasons for discarding datagrams."""


class FleetMessages(StrEnum):
    """What became of messages between the hosts of a fleet; the names of their counters."""

    FORWARDED = "fleet_forwarded"
    """To the owner of a connection."""
    RECEIVED = "fleet_received"
    """Datagrams of our connections that arrived at another host."""
    RELAYED = "fleet_relayed"
    """Answers, to the host that the client's datagrams arrive at."""
    RELAYS_SENT = "fleet_relays_sent"
    """Answers of another host, to the client."""
    REFUSED = "fleet_refused"
    """Not from a host of the fleet, replayed, or late."""


class EarlyDataVerdict(StrEnum):
    """What the anti-replay register says about the ticket of a connection with early data."""

    BUSY = "busy"
    """Not asked: too many questions are open."""
    FIRST = "first"
    """Not used before: its requests run at once."""
    UNKNOWN = "unknown"
    """The register did not answer."""
    USED = "used"


Name = TypeVar("Name", bound=str)


def from_zero(names: Iterable[str], counts: Mapping[Name, int]) -> dict[str, int]:
    """Counts by name, with 0 for missing names: the rate of a counter that only appears with its
    first event misses that event."""
    return {
        **dict.fromkeys(map(str, names), 0),
        **{str(name): count for name, count in counts.items()},
    }
