"""The configuration as the edge uses it: every key of `quicedge.toml`, its type and its default.

Durations are seconds and sizes are bytes here; the loader accepts `"30s"`, `"500ms"`, `"16KB"`
as well as plain numbers for fields annotated `Seconds` and `Bytes`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from quicedge.config import limits, tracelimits

Seconds = Annotated[float, Meta(gt=0, le=limits.MAX_DURATION, extra={"unit": "seconds"})]
Bytes = Annotated[int, Meta(ge=0, le=limits.MAX_VARINT, extra={"unit": "bytes"})]
Window = Annotated[int, Meta(ge=1024, le=limits.MAX_VARINT, extra={"unit": "bytes"})]
"""A flow-control window; HTTP/3 needs 1024 bytes on its own streams (RFC 9114 section 6.2)."""
Count = Annotated[int, Meta(ge=1, le=(1 << 31) - 1)]

RENAMED_KEYS = {"pass_on": "forwarding"}
"""Former keys, by their path, and what they are called now."""


class _Section(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A table of the configuration file; unknown keys are errors."""


class Certificate(_Section, frozen=True):
    """One certificate chain (PEM, leaf first) and its private key (PEM)."""

    cert: str
    key: str
    default: bool = False
    """Served when no certificate covers the server name; else the first one is."""


class Tls(_Section, frozen=True):
    certificates: list[Certificate] = field(default_factory=list)
    """Empty: a development certificate is generated under `certs/`."""
    keylog: str | None = None
    """NSS key log file (debugging only); the SSLKEYLOGFILE variable is honoured too."""
    shared_keys: str | None = None
    """File of keys for session tickets and tokens that all hosts of a fleet have; mode 600."""


class Quic(_Section, frozen=True):
    versions: list[Literal["v1", "v2"]] = field(default_factory=lambda: ["v1", "v2"])
    """Offered versions, preferred first."""
    retry: Literal["off", "always", "auto"] = "auto"
    """Address validation by Retry (RFC 9000 section 8.1.2); `auto`: above `retry_threshold`."""
    retry_threshold: Count = limits.RETRY_THRESHOLD
    max_half_open: Count = limits.MAX_HALF_OPEN
    """Handshakes in progress, per worker; further Initial packets are dropped."""
    early_data: bool = False
    """0-RTT: safe requests of returning clients start before the handshake ends (RFC 8470)."""
    idle_timeout: Seconds = limits.IDLE_TIMEOUT
    handshake_timeout: Seconds = limits.HANDSHAKE_TIMEOUT
    congestion_control: Literal["reno", "cubic", "bbr"] = "cubic"
    max_data: Window = limits.CONNECTION_WINDOW
    """Connection flow-control window (initial_max_data), bytes the origin has not taken yet."""
    max_stream_data: Window = limits.STREAM_WINDOW
    max_streams: Count = limits.MAX_STREAMS_BIDI
    """Concurrent requests a connection."""
    max_datagram_size: Annotated[int, Meta(ge=1200, le=65527)] = limits.MAX_DATAGRAM_SIZE
    """UDP payload bytes sent at most (20 less over IPv6); discovery starts at 1200."""
    preferred_address: list[str] = field(default_factory=list)
    """Addresses, one a family, that clients move to after the handshake; among `listen`."""


class Http3(_Section, frozen=True):
    qpack_max_table_capacity: Annotated[
        int, Meta(ge=0, le=(1 << 30) - 1, extra={"unit": "bytes"})
    ] = 0
    """QPACK dynamic table (RFC 9204); 0 switches it off."""
    qpack_blocked_streams: Annotated[int, Meta(ge=0, le=65535)] = 0
    max_field_section_size: Annotated[
        int, Meta(ge=512, le=limits.MAX_VARINT, extra={"unit": "bytes"})
    ] = limits.MAX_FIELD_SECTION_SIZE
    """Of a request; a short one has some 300, each field counting 32 more than its text."""
    max_fields: Annotated[int, Meta(ge=8, le=65535)] = limits.MAX_FIELDS


class RequestRate(_Section, frozen=True):
    """Requests beyond a rate are answered 429."""

    rate: str
    """`100/second`, `1000 per 10 minutes`; so many may come at once."""
    by: str = "address"
    """Whose requests count together: `address`, `prefix` (/24 or /56) or `header:NAME`."""


class Limits(_Section, frozen=True):
    """What clients may do; counts are per worker."""

    allow: list[str] = field(default_factory=list)
    """Addresses and networks that may connect; empty: all that are not denied."""
    deny: list[str] = field(default_factory=list)
    """Addresses and networks that may not; the longest match of both lists decides."""
    max_connections: Count = limits.MAX_CONNECTIONS
    """Further clients are told CONNECTION_REFUSED."""
    max_connections_per_address: Count | None = limits.MAX_CONNECTIONS_PER_ADDRESS
    max_connections_per_prefix: Count | None = limits.MAX_CONNECTIONS_PER_PREFIX
    """Of one IPv4 /24 or IPv6 /56."""
    max_half_open_per_prefix: Count = limits.MAX_HALF_OPEN_PER_PREFIX
    """Handshakes in progress of one network; its further clients must prove their address."""
    handshakes_per_second: Annotated[float, Meta(gt=0)] | None = None
    handshakes_per_second_per_prefix: Annotated[float, Meta(gt=0)] | None = None
    requests: list[RequestRate] = field(default_factory=list)
    """Request rates, of all routes together."""
    redis: str | None = None
    """`redis://host:port/db` where the workers of a fleet add rates up and note which tickets
    were used for early data; none: each alone."""
    max_uri: Count = limits.MAX_URI
    """Bytes of path and query (414 beyond)."""
    header_timeout: Seconds = limits.HEADER_TIMEOUT
    """For a request's head (408 beyond)."""
    body_timeout: Seconds = limits.BODY_TIMEOUT
    """In which a request's content must come at 4 bytes per second, unless the origin holds it
    back (408 beyond)."""
    response_timeout: Seconds = limits.RESPONSE_TIMEOUT
    """Without a client taking anything of a response (reset beyond)."""
    memory: Annotated[int, Meta(gt=0, extra={"unit": "bytes"})] | None = None
    """Memory of a worker beyond which it takes nothing new (503); none: its part of six tenths of
    what the machine, or the control group, has."""
    response_memory: Annotated[int, Meta(gt=0, extra={"unit": "bytes"})] = limits.RESPONSE_MEMORY
    """Memory of a worker for responses on their way, shared out fairly among clients."""


class Upstream(_Section, frozen=True):
    """A named group of origin servers, or a directory of files."""

    servers: list[str] = field(default_factory=list)
    """`http://host:port`, `https://host`, `unix:/path` (HTTP over a unix socket)."""
    root: str | None = None
    """Directory whose files are served, in place of servers (GET and HEAD; no dot files)."""
    protocol: Literal["auto", "http/1.1", "h2"] = "auto"
    """auto: ALPN on https, HTTP/1.1 on http; `h2` on http is prior knowledge (h2c)."""
    balance: Literal["round_robin", "least_requests", "client_address"] = "round_robin"
    """How requests are shared out; `client_address`: each client stays with its server."""
    health_path: str | None = None
    """Path asked for on each server; one that does not answer 2xx or 3xx gets no requests."""
    health_interval: Seconds = limits.UPSTREAM_HEALTH_INTERVAL
    connect_timeout: Seconds = limits.UPSTREAM_CONNECT_TIMEOUT
    first_byte_timeout: Seconds = limits.UPSTREAM_FIRST_BYTE_TIMEOUT
    """From the end of the request to the response head."""
    idle_timeout: Seconds = limits.UPSTREAM_IDLE_TIMEOUT
    """Between two pieces of a response."""
    keepalive_timeout: Seconds = limits.UPSTREAM_KEEPALIVE_TIMEOUT
    max_connections: Count = limits.UPSTREAM_MAX_CONNECTIONS
    """HTTP/1.1 connections a server, per worker; further requests wait."""
    retries: Annotated[int, Meta(ge=0, le=100)] = limits.UPSTREAM_RETRIES
    tls_verify: bool = True
    tls_ca: str | None = None
    """PEM bundle that https origins are verified against; the system's when absent."""
    tls_server_name: str | None = None
    """SNI and name verified; the server's host when absent."""


class Route(_Section, frozen=True):
    """Requests for `host` below `path` go to `upstream`; the longest path wins."""

    upstream: str
    host: str = "*"
    """Exact name, `*.example.com`, or `*`."""
    path: str = "/"
    max_body: Bytes | None = None
    """Request body limit (413 beyond); None: no limit."""
    max_uri: Count | None = None
    """Bytes of path and query, in place of that of `[limits]`."""
    requests: list[RequestRate] = field(default_factory=list)
    """Request rates of this route, beside those of `[limits]`."""


class AltSvc(_Section, frozen=True):
    enabled: bool = True
    max_age: Annotated[float, Meta(ge=1, le=limits.MAX_DURATION, extra={"unit": "seconds"})] = (
        limits.ALT_SVC_MAX_AGE
    )
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    """Port announced; the listening port when absent."""


class Log(_Section, frozen=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "console"
    file: str | None = None
    """Log file; standard error when absent."""
    access: bool = True
    access_fields: list[str] = field(default_factory=list)
    """Members of access records, in this order; empty: the usual ones."""
    access_file: str | None = None
    """Access log file; the same place as the log when absent."""


class Forwarding(_Section, frozen=True):
    """Fields that the edge adds to forwarded messages, and client fields that it lets through."""

    transport_headers: bool = False
    """Origins get `X-Quic-RTT-Ms` and others; a client's own are dropped."""
    server_timing: bool = False
    """Clients get `Server-Timing`: time in the edge, of the origin, and the RTT."""
    underscores: bool = False
    """Origins tell `_` from `-` in field names: a client's `x_forwarded_for` and its like pass."""
    trace_context: bool = False
    """`traceparent` is continued or begun (W3C Trace Context), and logged as `trace_id`."""


class Otel(_Section, frozen=True):
    """OpenTelemetry spans, by OTLP over HTTP; OTEL_* variables stand in for what is not set."""

    enabled: bool = False
    endpoint: str | None = None
    """Where a collector takes traces, with the path; none: the variables, then
    `http://localhost:4318/v1/traces`."""
    service_name: str | None = None
    """none: OTEL_SERVICE_NAME, then `quicedge`."""
    sample_ratio: Annotated[float, Meta(ge=0, le=1)] | None = None
    """Share of the traces that begin here; one that a trusted client began is recorded as it is
    there. None: OTEL_TRACES_SAMPLER, then all."""
    timeout: Seconds | None = None
    """For one export with its retries; none: OTEL_EXPORTER_OTLP_TIMEOUT, then ten seconds."""


class Qlog(_Section, frozen=True):
    """Traces of connections, one file each (qlog, JSON text sequences)."""

    directory: str | None = None
    """Where traces go; none are written without it, unless the variable QLOGDIR names one."""
    level: Literal["core", "base", "extra"] = "base"
    rate: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """Share of new connections that are traced; QLOGDIR without more asks for all."""
    addresses: list[str] = field(default_factory=list)
    """Clients that are always traced: addresses or networks (`192.0.2.0/24`)."""
    server_names: list[str] = field(default_factory=list)
    """Server names (SNI) whose connections are always traced."""
    max_file_size: Bytes = tracelimits.QLOG_MAX_FILE_SIZE
    """A trace ends there."""
    max_total_size: Bytes = tracelimits.QLOG_MAX_TOTAL_SIZE
    """All traces of the directory; the oldest are removed."""


class Admin(_Section, frozen=True):
    enabled: bool = True
    listen: str = "127.0.0.1:4480"
    """`host:port` or `unix:/path`; beyond loopback a token is needed."""
    token_file: str | None = None
    """File of mode 600 with the bearer token that requests must bear."""
    hosts: list[str] = field(default_factory=list)
    """Names under which the API is reached, beside loopback ones."""


class Config(_Section, frozen=True):
    listen: list[str] = field(default_factory=lambda: ["0.0.0.0:443", "[::]:443"])
    """UDP addresses, `host:port` or `[v6]:port`."""
    workers: Annotated[int, Meta(ge=1, le=limits.MAX_WORKERS)] | Literal["auto"] = 1
    user: str | None = None
    """Whom workers become once the sockets are bound (a name or a number); needs root."""
    group: str | None = None
    """Their group; that of `user` when absent."""
    drain_timeout: Seconds = limits.DRAIN_TIMEOUT
    tls: Tls = field(default_factory=Tls)
    quic: Quic = field(default_factory=Quic)
    http3: Http3 = field(default_factory=Http3)
    limits: Limits = field(default_factory=Limits)
    upstreams: dict[str, Upstream] = field(default_factory=dict)
    routes: list[Route] = field(default_factory=list)
    alt_svc: AltSvc = field(default_factory=AltSvc)
    log: Log = field(default_factory=Log)
    forwarding: Forwarding = field(default_factory=Forwarding)
    otel: Otel = field(default_factory=Otel)
    qlog: Qlog = field(default_factory=Qlog)
    admin: Admin = field(default_factory=Admin)
