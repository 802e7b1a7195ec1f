"""Configuration schema: every key of `quicedge.toml` with its type and default.

Durations are in seconds and sizes in bytes; for fields annotated `Seconds` and `Bytes` the loader
accepts `"30s"`, `"500ms"`, `"16KB"` as well as plain numbers.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Annotated, Literal

from msgspec import Meta, field

from quicedge.config import limits, tracelimits
from quicedge.config.filters import FilterEntry
from quicedge.config.groups import USUAL_GROUPS, KeyExchangeGroup
from quicedge.config.section import Bytes, Count, Seconds
from quicedge.config.section import Section as _Section

Window = Annotated[int, Meta(ge=1024, le=limits.MAX_VARINT, extra={"unit": "bytes"})]
"""A flow-control window; HTTP/3 requires 1024 bytes on its own streams (RFC 9114 section 6.2)."""
ListenerProtocol = Literal["h3", "h2", "http/1.1"]
"""An application protocol by its ALPN name; HTTP/3 is on QUIC, the others on TLS over TCP."""


class Retry(StrEnum):
    """When clients are sent a Retry."""

    OFF = "off"
    ALWAYS = "always"
    AUTO = "auto"


class OriginProtocol(StrEnum):
    """What an upstream's servers speak."""

    AUTO = "auto"
    HTTP_1_1 = "http/1.1"
    H2 = "h2"


class ProxyVersion(IntEnum):
    """Of the PROXY protocol."""

    V1 = 1
    V2 = 2


class Balance(StrEnum):
    """How requests are distributed over an upstream's servers."""

    ROUND_ROBIN = "round_robin"
    LEAST_REQUESTS = "least_requests"
    CLIENT_ADDRESS = "client_address"
    TWO_CHOICES = "two_choices"
    LATENCY = "latency"
    HASH = "hash"


class SplitBy(StrEnum):
    """What tells one client of a split from another; `header` and `cookie` with a name."""

    CLIENT = "client"
    PATH = "path"
    TARGET = "target"
    HEADER = "header"
    COOKIE = "cookie"
    REQUEST = "request"
    """Nothing: every request on its own."""


class TlsPolicy(StrEnum):
    """Versions and ciphers of TLS on TCP, by the names of Mozilla's guidelines."""

    MODERN = "modern"
    """TLS 1.3 alone."""
    INTERMEDIATE = "intermediate"
    """TLS 1.2 as well, with forward secrecy and AEAD."""


class LogFormat(StrEnum):
    """How log records are written."""

    JSON = "json"
    CONSOLE = "console"


RENAMED_KEYS = {"pass_on": "forwarding"}
"""Renamed keys: the old path and the new name."""


class Certificate(_Section, frozen=True):
    """One certificate chain (PEM, leaf first) and its private key (PEM), or several by `*`."""

    cert: str
    key: str
    default: bool = False
    """Served when no certificate covers the server name; otherwise the first one is."""


class AcmeIssuer(_Section, frozen=True):
    """An issuer of several; each is tried when those before it failed."""

    directory: str
    """URL of the ACME directory."""
    ca: str | None = None
    """PEM bundle that the issuer's own certificate is verified against; default: public ones."""
    eab_key_id: str | None = None
    """External account binding, as the issuer hands it out."""
    eab_hmac_key_file: str | None = None
    """File with its key in base64url; mode 600."""
    profile: str | None = None
    """Overrides `profile`."""


class OnDemand(_Section, frozen=True):
    """Certificates for names that clients ask for, if a URL allows it."""

    ask: str
    """Asked with `?domain=NAME` before each order; an answer of 200 allows it."""
    rate: str = "20/minute"
    """New names; the count is also the burst size."""


class Acme(_Section, frozen=True):
    """Certificates ordered and renewed by ACME, for the hosts of the routes."""

    email: str | None = None
    """Contact of the account."""
    agree_to_terms: bool = False
    """The operator accepts the issuers' terms of service; required."""
    hosts: list[str] = field(default_factory=list)
    """Names to have certificates for, besides the hosts of the routes."""
    staging: bool = False
    """Order from Let's Encrypt's staging environment, whose certificates no client trusts."""
    directory: str | None = None
    """URL of another ACME directory than Let's Encrypt's."""
    ca: str | None = None
    """PEM bundle that the certificate of `directory` is verified against; default: public ones."""
    eab_key_id: str | None = None
    """External account binding with `directory`."""
    eab_hmac_key_file: str | None = None
    """File with its key in base64url; mode 600."""
    profile: str | None = None
    """Certificate profile of the issuer, such as `shortlived`."""
    issuers: list[AcmeIssuer] = field(default_factory=list)
    """Several issuers in place of `directory`, most preferred first."""
    challenges: list[Literal["http-01", "tls-alpn-01"]] = field(
        default_factory=lambda: ["http-01", "tls-alpn-01"]
    )
    """Challenges to use, in this order, each after a failure of the one before; unused with
    `dns_command`."""
    dns_command: list[str] = field(default_factory=list)
    """Program and arguments that publish TXT records (DNS-01), called with `add NAME VALUE` or
    `remove NAME VALUE`."""
    key_type: Literal["p256", "p384", "rsa2048", "rsa4096"] = "p256"
    storage: str | None = None
    """Directory, or `redis://host:port/db`, that a fleet keeps accounts and certificates in;
    default: `acme` in `state_directory`, for this host alone."""
    on_demand: OnDemand | None = None


class ClientAuthMode(StrEnum):
    """What a client without a certificate gets."""

    REQUEST = "request"
    """It is served all the same."""
    REQUIRE = "require"
    """Its handshake is refused."""


class ClientAuth(_Section, frozen=True):
    """Certificates that clients prove who they are with."""

    client_ca: str
    """PEM bundle of the authorities that issue them."""
    hosts: list[str] = field(default_factory=lambda: ["*"])
    """Server names: exact ones, `*.example.com`, or `*`; the nearest one counts, as for routes."""
    mode: ClientAuthMode = ClientAuthMode.REQUIRE
    crl: list[str] = field(default_factory=list)
    """PEM files of revocation lists, at least one of each authority."""


class Tls(_Section, frozen=True):
    acme: Acme | None = None
    """Order certificates by ACME."""
    certificates: list[Certificate] = field(default_factory=list)
    """When empty and without `acme`, a development certificate is generated under `certs/`."""
    certificate_directories: list[str] = field(default_factory=list)
    """Directories of certificates: `NAME.pem` or `NAME.crt` with `NAME.key`, `tls.crt` with
    `tls.key`, `fullchain.pem` with `privkey.pem`, there or one level below."""
    client_auth: list[ClientAuth] = field(default_factory=list)
    """Hosts that ask clients for certificates."""
    groups: list[KeyExchangeGroup] = field(default_factory=lambda: list(USUAL_GROUPS))
    """Key exchange groups, in order of preference."""
    policy: TlsPolicy = TlsPolicy.INTERMEDIATE
    """What clients on TCP must have; QUIC always has TLS 1.3."""
    require_server_name: bool = False
    """Refuse clients that name no host (SNI), or one that no certificate covers."""
    keylog: str | None = None
    """NSS key log file (debugging only); the SSLKEYLOGFILE variable is honoured as well."""
    shared_keys: str | None = None
    """Session ticket and token keys shared by all hosts of a fleet: a file of them (mode 600), or a
    directory or `redis://host:port/db` in which they rotate by themselves."""


class Quic(_Section, frozen=True):
    versions: list[Literal["v1", "v2"]] = field(default_factory=lambda: ["v1", "v2"])
    """Offered versions, in order of preference."""
    retry: Retry = Retry.AUTO
    """Address validation by Retry (RFC 9000 section 8.1.2); `auto` means above
    `retry_threshold`."""
    retry_threshold: Count = limits.RETRY_THRESHOLD
    max_half_open: Count = limits.MAX_HALF_OPEN
    """Handshakes in progress per worker; further Initial packets are dropped."""
    early_data: bool = False
    """0-RTT: safe requests of returning clients start before the handshake ends (RFC 8470)."""
    idle_timeout: Seconds = limits.IDLE_TIMEOUT
    handshake_timeout: Seconds = limits.HANDSHAKE_TIMEOUT
    congestion_control: Literal["reno", "cubic", "bbr"] = "cubic"
    max_data: Window = limits.CONNECTION_WINDOW
    """Connection flow-control window (initial_max_data): bytes not yet taken by the origin."""
    max_stream_data: Window = limits.STREAM_WINDOW
    max_streams: Count = limits.MAX_STREAMS_BIDI
    """Concurrent requests per connection."""
    max_datagram_size: Annotated[int, Meta(ge=1200, le=65527)] = limits.MAX_DATAGRAM_SIZE
    """Maximum UDP payload in bytes (20 less over IPv6); discovery starts at 1200."""
    preferred_address: list[str] = field(default_factory=list)
    """Addresses that clients migrate to after the handshake, at most one per family; each must be
    in `listen`."""


class Http3(_Section, frozen=True):
    qpack_max_table_capacity: Annotated[
        int, Meta(ge=0, le=(1 << 30) - 1, extra={"unit": "bytes"})
    ] = 0
    """QPACK dynamic table (RFC 9204); 0 disables it."""
    qpack_blocked_streams: Annotated[int, Meta(ge=0, le=65535)] = 0
    max_field_section_size: Annotated[
        int, Meta(ge=512, le=limits.MAX_VARINT, extra={"unit": "bytes"})
    ] = limits.MAX_FIELD_SECTION_SIZE
    """For requests; a short one takes about 300 bytes, 32 of overhead per field included."""
    max_fields: Annotated[int, Meta(ge=8, le=65535)] = limits.MAX_FIELDS


class RequestRate(_Section, frozen=True):
    """Requests beyond a rate are answered 429."""

    rate: str
    """`100/second`, `1000 per 10 minutes`; the count is also the burst size."""
    by: str = "address"
    """Key that requests are counted by: `address`, `prefix` (/24 or /56) or `header:NAME`."""


class Limits(_Section, frozen=True):
    """Limits on clients; counts are per worker."""

    allow: list[str] = field(default_factory=list)
    """Addresses and networks that may connect; when empty, all that are not denied."""
    deny: list[str] = field(default_factory=list)
    """Addresses and networks that may not connect; the longest match of both lists wins."""
    max_connections: Count = limits.MAX_CONNECTIONS
    """Further clients receive CONNECTION_REFUSED."""
    max_connections_per_address: Count | None = limits.MAX_CONNECTIONS_PER_ADDRESS
    max_connections_per_prefix: Count | None = limits.MAX_CONNECTIONS_PER_PREFIX
    """Per IPv4 /24 or IPv6 /56."""
    max_half_open_per_prefix: Count = limits.MAX_HALF_OPEN_PER_PREFIX
    """Handshakes in progress per network; beyond it, its clients receive a Retry."""
    handshakes_per_second: Annotated[float, Meta(gt=0)] | None = None
    handshakes_per_second_per_prefix: Annotated[float, Meta(gt=0)] | None = None
    requests: list[RequestRate] = field(default_factory=list)
    """Request rates over all routes."""
    redis: str | None = None
    """`redis://host:port/db` through which a fleet shares request rates and used 0-RTT tickets;
    without it, each worker is on its own."""
    max_uri: Count = limits.MAX_URI
    """Bytes of path and query; beyond: 414."""
    handshake_timeout: Seconds = limits.HANDSHAKE_TIMEOUT
    """For TLS on TCP, from accepting a connection; that of QUIC is in `[quic]`."""
    header_timeout: Seconds = limits.HEADER_TIMEOUT
    """For the request head; beyond: 408."""
    body_timeout: Seconds = limits.BODY_TIMEOUT
    """Period over which request content must average 4 bytes per second, unless the origin
    applies backpressure; otherwise: 408."""
    response_timeout: Seconds = limits.RESPONSE_TIMEOUT
    """Without the client taking any of a response; beyond: stream reset."""
    keepalive_timeout: Seconds = limits.KEEPALIVE_TIMEOUT
    """Without a request on an HTTP/1.1 or HTTP/2 connection; beyond, it is closed."""
    memory: Annotated[int, Meta(gt=0, extra={"unit": "bytes"})] | None = None
    """Memory per worker above which new work is refused (503); by default the worker's share of 60%
    of the memory of the machine or control group."""
    response_memory: Annotated[int, Meta(gt=0, extra={"unit": "bytes"})] = limits.RESPONSE_MEMORY
    """Memory per worker for responses in flight, shared fairly among clients."""


class Fleet(_Section, frozen=True):
    """Several hosts behind one address."""

    server_id: str | None = None
    """Of this host, in every connection ID (QUIC-LB): hexadecimal digits, `ordinal` or
    `address`; `ordinal:8` and `address:8` are 8 bytes long. Without it there is no fleet."""
    config_rotation: Annotated[int, Meta(ge=0, le=6)] = 0
    """Of server IDs in the clear; that of encrypted ones is in `connection_id_keys`."""
    nonce_length: Annotated[int, Meta(ge=limits.FLEET_NONCE, le=17)] = limits.FLEET_NONCE
    """Random bytes after the server ID."""
    connection_id_keys: str | None = None
    """File of the keys that encrypt server IDs, `ROTATION KEY` per line; the first one encrypts,
    all of them decrypt; mode 600."""
    secret_file: str | None = None
    """File of the secret that all hosts share, 64 hexadecimal digits; mode 600."""
    peers: list[str] = field(default_factory=list)
    """`host:port` of UDP listeners of the hosts; all addresses of a name, looked up again and
    again. Datagrams of their connections are forwarded to them."""


class Discover(StrEnum):
    """Which records of DNS name servers."""

    ADDRESSES = "addresses"
    """A and AAAA: each address is a server."""
    SRV = "srv"
    """Each target is a server, with its port, weight and priority (RFC 2782)."""


class OriginServer(_Section, frozen=True):
    """A server with settings of its own, or a name that stands for several."""

    url: str
    discover: Discover | None = None
    """Look the name up again and again, and use all servers that it stands for; by default it is
    the name of one, which is looked up for each connection."""
    weight: Annotated[int, Meta(ge=1, le=1000)] = 1
    """Share of requests in relation to the other servers."""
    tier: Annotated[int, Meta(ge=0, le=15)] = 0
    """Gets requests only if no server of a lower tier is up."""

    @property
    def text(self) -> str:
        """What it is, for people."""
        return self.url if self.discover is None else f"{self.discover} of {self.url}"


class Outliers(_Section, frozen=True):
    """Ejection of servers whose requests fail, for a while."""

    failures: Count = limits.OUTLIER_FAILURES
    """In a row: no response, or a status of `statuses`."""
    statuses: list[Annotated[int, Meta(ge=400, le=599)]] = field(
        default_factory=lambda: [502, 503, 504]
    )
    eject_for: Seconds = limits.OUTLIER_EJECTION
    """Times the number of ejections in a row."""
    max_ejected: Annotated[float, Meta(gt=0, le=1)] = 0.5
    """Share of the servers that may be ejected at once."""


class Hedge(_Section, frozen=True):
    """Send requests that take long to a second server."""

    after: Seconds | Literal["p90", "p95", "p99"] = "p95"
    """A time, or a quantile of the recent times to the response head."""
    max_share: Annotated[float, Meta(gt=0, le=1)] = limits.HEDGE_SHARE
    """Second attempts as a share of the requests."""


class CircuitBreaker(_Section, frozen=True):
    """Refuse requests while most of them fail."""

    failures: Annotated[float, Meta(gt=0, le=1)] = limits.BREAKER_FAILURES
    """Share of failed requests from which on the circuit opens."""
    window: Seconds = limits.BREAKER_WINDOW
    min_requests: Count = limits.BREAKER_MIN_REQUESTS
    """In the window; with fewer the circuit stays closed."""
    statuses: list[Annotated[int, Meta(ge=400, le=599)]] = field(
        default_factory=lambda: [502, 503, 504]
    )
    """Of responses that are failures, beside those without a response."""
    open_for: Seconds = limits.BREAKER_OPEN
    """Until some requests are let through as a trial, times the number of openings in a row."""
    probes: Count = limits.BREAKER_PROBES
    """Requests that must succeed until all pass again."""


class Upstream(_Section, frozen=True):
    """A named group of origin servers, a directory of files, or an application."""

    servers: list[str | OriginServer] = field(default_factory=list)
    """`http://host:port`, `https://host`, `unix:/path` (HTTP over a unix socket)."""
    root: str | None = None
    """Directory of static files, instead of servers (GET and HEAD; no dot files)."""
    index: list[str] = field(default_factory=lambda: ["index.html"])
    """Files that are sent for a directory, the first that exists."""
    listing: bool = False
    """List directories without an index."""
    clean_urls: bool = False
    """`/about` is `about.html`, to which `/about.html` is redirected."""
    fallback: str | None = None
    """Path of the file for all pages that do not exist (single-page applications)."""
    not_found: str | None = None
    """Path of the page for what does not exist, with status 404."""
    precompressed: list[Literal["zstd", "br", "gzip"]] = field(default_factory=list)
    """Codings of compressed files beside the others (`.zst`, `.br`, `.gz`), the preferred first."""
    cache_control: dict[str, str] = field(default_factory=dict)
    """Cache-Control by pattern of paths (`*.html`, `/assets/**`); the first that matches."""
    mime_types: dict[str, str] = field(default_factory=dict)
    """Media types by extension, in addition to the usual ones."""
    asgi: str | None = None
    """ASGI application that each worker runs, instead of servers: `module:attribute`, or
    `module:factory()`."""
    wsgi: str | None = None
    """WSGI application, likewise; requires the extra `wsgi`."""
    app_directory: str | None = None
    """Where the application is imported from; default: the directory of the configuration."""
    root_path: str = ""
    """Path below which the application is mounted (`root_path` of its scope)."""
    startup_timeout: Seconds = limits.APP_STARTUP_TIMEOUT
    """Seconds that the startup of the application (lifespan) may take."""
    max_requests: Count | None = None
    """Requests that run at once per worker, on each server or in the application; further ones
    wait."""
    protocol: OriginProtocol = OriginProtocol.AUTO
    """`auto`: ALPN on https, HTTP/1.1 on http; `h2` on http means prior knowledge (h2c)."""
    balance: Balance = Balance.ROUND_ROBIN
    """Load balancing; with `client_address` each client stays with its server."""
    hash_by: str = "client"
    """Key of `balance = "hash"`: `client`, `path`, `target`, `header:NAME` or `cookie:NAME`."""
    sticky_cookie: str | None = None
    """Name of a cookie by which clients stay with their server, whatever `balance` says."""
    slow_start: Annotated[float, Meta(ge=0, le=limits.MAX_DURATION, extra={"unit": "seconds"})] = 0
    """Time in which a server that is up again comes to its full share of requests."""
    resolvers: list[str] = field(default_factory=list)
    """DNS servers, `address` or `address:port`, that names with `discover` are looked up at;
    default: the system's."""
    outliers: Outliers | None = None
    """Eject servers whose requests fail; none by default."""
    hedge: Hedge | None = None
    circuit_breaker: CircuitBreaker | None = None
    max_waiting: Annotated[int, Meta(ge=0, le=limits.UPSTREAM_MAX_WAITING)] | None = None
    """Requests per server and worker that wait for a place; beyond: 503 at once."""
    retry_budget: Annotated[float, Meta(ge=0, le=1)] = limits.RETRY_BUDGET
    """Retries as a share of the requests."""
    health_path: str | None = None
    """Health check path; a server that does not answer 2xx or 3xx gets no requests."""
    health_interval: Seconds = limits.UPSTREAM_HEALTH_INTERVAL
    connect_timeout: Seconds = limits.UPSTREAM_CONNECT_TIMEOUT
    first_byte_timeout: Seconds = limits.UPSTREAM_FIRST_BYTE_TIMEOUT
    """From the end of the request to the response head."""
    idle_timeout: Seconds = limits.UPSTREAM_IDLE_TIMEOUT
    """Between two reads of a response."""
    keepalive_timeout: Seconds = limits.UPSTREAM_KEEPALIVE_TIMEOUT
    max_connections: Count = limits.UPSTREAM_MAX_CONNECTIONS
    """HTTP/1.1 connections per server and worker; further requests wait."""
    retries: Annotated[int, Meta(ge=0, le=100)] = limits.UPSTREAM_RETRIES
    tls_verify: bool = True
    tls_ca: str | None = None
    """PEM bundle that https origins are verified against; default: the system's."""
    tls_server_name: str | None = None
    """SNI and the name to verify; default: the server's host."""
    proxy_protocol: ProxyVersion | None = None
    """Begin connections with a PROXY header of this version; only HTTP/1.1 without TLS.

    Each connection then carries the requests of one client address and port.
    """

    @property
    def is_application(self) -> bool:
        """Whether the worker runs the origin itself."""
        return self.asgi is not None or self.wsgi is not None

    @property
    def destination(self) -> str:
        """Where requests go, for people."""
        return self.root or self.asgi or self.wsgi or ", ".join(s.text for s in self.origins)

    @property
    def discovers(self) -> bool:
        """Whether servers are looked up in DNS."""
        return any(origin.discover is not None for origin in self.origins)

    @property
    def origins(self) -> list[OriginServer]:
        """The servers, with all their settings."""
        return [OriginServer(url=s) if isinstance(s, str) else s for s in self.servers]


class TlsFacts(_Section, frozen=True):
    """Conditions on the client's TLS connection."""

    versions: list[Literal["TLSv1.2", "TLSv1.3"]] = field(default_factory=list)
    server_names: list[str] = field(default_factory=list)
    """Names (SNI) that the client has connected to."""
    early_data: bool | None = None
    """Whether the request arrived in early data."""
    client_certificate: bool | None = None
    """Whether the client has proved who it is with a certificate."""
    client_subjects: list[str] = field(default_factory=list)
    """Subjects of its certificate (RFC 4514): `CN=device-7,O=Example`, or `~` and a regular
    expression."""
    client_names: list[str] = field(default_factory=list)
    """Alternative names of its certificate: DNS names, URIs, email addresses; likewise."""


class Split(_Section, frozen=True):
    """Shares of the traffic of a route between several upstreams."""

    shares: dict[str, Annotated[float, Meta(ge=0)]]
    """Weights by upstream. Clients that another one gains come from the first one."""
    by: str | None = None
    """`client`, `path`, `target`, `header:NAME`, `cookie:NAME`, or `request`; default: `client`,
    and with `sticky_cookie` `request`."""
    sticky_cookie: str | None = None
    """A cookie of this name keeps clients with their upstream."""
    seed: str = ""
    """Splits of the same seed have the same clients in common."""

    @property
    def key(self) -> str:
        """`by`, or its default."""
        if self.by is not None:
            return self.by
        return SplitBy.CLIENT if self.sticky_cookie is None else SplitBy.REQUEST

    @property
    def needs_address(self) -> bool:
        """Whether it asks for the client's address, which must be validated then."""
        kind = self.key.partition(":")[0]
        return kind in (SplitBy.CLIENT, SplitBy.HEADER, SplitBy.COOKIE)


class Route(_Section, frozen=True):
    """Requests for `host` under `path` go to `upstream`; the longest path wins."""

    upstream: str | None = None
    """Not required with `split`, or if a filter answers all requests."""
    split: Split | None = None
    """Several upstreams in place of one."""
    host: str | list[str] = "*"
    """Exact names, `*.example.com`, or `*`."""
    path: str = "/"
    """A prefix of whole segments."""
    path_exact: str | None = None
    """A whole path, in place of `path`; it precedes all prefixes."""
    path_regex: str | None = None
    """A regular expression (RE2) that matches somewhere in the path."""
    extensions: list[str] = field(default_factory=list)
    """Endings of the path behind a dot, in lower case: `png`, `tar.gz`."""
    methods: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    """Values of header fields: `*` any, `!` none, `~...` a regular expression, else the value."""
    query: dict[str, str] = field(default_factory=dict)
    """Values of parameters of the query, in the same notation."""
    cookies: dict[str, str] = field(default_factory=dict)
    """Values of cookies, in the same notation."""
    clients: list[str] = field(default_factory=list)
    """Addresses and networks of clients."""
    protocols: list[ListenerProtocol] = field(default_factory=list)
    tls: TlsFacts | None = None
    """Facts of the client's TLS connection."""
    max_body: Bytes | None = None
    """Request body limit; beyond: 413. None: no limit."""
    max_uri: Count | None = None
    """Bytes of path and query; overrides `[limits]`."""
    requests: list[RequestRate] = field(default_factory=list)
    """Request rates of this route, in addition to those of `[limits]`."""
    first_byte_timeout: Seconds | None = None
    """From the end of a request to the response head; overrides that of the upstream."""
    idle_timeout: Seconds | None = None
    """Between two reads of a response; overrides that of the upstream."""
    retries: Annotated[int, Meta(ge=0, le=100)] | None = None
    """Overrides those of the upstream."""
    hedge: Hedge | None = None
    """Overrides that of the upstream."""
    upgrade: list[str] = field(default_factory=lambda: ["websocket"])
    """Protocols that clients may switch to (Upgrade, extended CONNECT); empty: none."""
    tunnel_idle_timeout: Seconds = limits.TUNNEL_IDLE_TIMEOUT
    """Without a byte in either direction of a tunnel; then a WebSocket is closed with 1001."""
    max_tunnels: Count = limits.MAX_TUNNELS
    """Tunnels per worker, shared fairly among clients; beyond: 503."""
    filters: list[FilterEntry] = field(default_factory=list)
    """In the order in which requests pass them, after those of the top level."""

    @property
    def is_conditional(self) -> bool:
        """Whether more than host and path decide that a request belongs to the route."""
        return bool(
            self.path_regex is not None
            or self.extensions
            or self.methods
            or self.headers
            or self.query
            or self.cookies
            or self.clients
            or self.protocols
            or self.tls is not None
        )


class AltSvc(_Section, frozen=True):
    enabled: bool = True
    max_age: Annotated[float, Meta(ge=1, le=limits.MAX_DURATION, extra={"unit": "seconds"})] = (
        limits.ALT_SVC_MAX_AGE
    )
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    """Advertised port; default: the listening port."""
    patience: Annotated[
        float,
        Meta(
            ge=limits.ALT_SVC_PATIENCE_MIN,
            le=limits.ALT_SVC_PATIENCE_MAX,
            extra={"unit": "seconds"},
        ),
    ] = limits.ALT_SVC_PATIENCE
    """How long a client has to arrive over QUIC, after the advertisement; then it is missing."""


class Log(_Section, frozen=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: LogFormat = LogFormat.CONSOLE
    file: str | None = None
    """Log file; default: standard error."""
    access: bool = True
    access_fields: list[str] = field(default_factory=list)
    """Members of access records, in this order; when empty, the default set."""
    access_file: str | None = None
    """Access log file; default: the same as the log."""


class Forwarding(_Section, frozen=True):
    """Fields that the edge adds to forwarded messages, and client fields that it lets through."""

    transport_headers: bool = False
    """Send `X-Transport-RTT-Ms` and others to origins; those of clients are dropped."""
    server_timing: bool = False
    """Send `Server-Timing` to clients: time in the edge, time of the origin, and the RTT."""
    underscores: bool = False
    """Origins distinguish `_` from `-` in field names: forward `x_forwarded_for` and the like."""
    client_certificate: Literal["off", "leaf", "chain"] = "off"
    """Send clients' verified certificates to origins: `Client-Cert`, with `chain` also
    `Client-Cert-Chain` (RFC 9440)."""
    trace_context: bool = False
    """Continue or start `traceparent` (W3C Trace Context) and log it as `trace_id`."""


class Otel(_Section, frozen=True):
    """OpenTelemetry spans via OTLP over HTTP; OTEL_* variables provide the defaults."""

    enabled: bool = False
    endpoint: str | None = None
    """Traces endpoint of the collector, with its path; default: the variables, then
    `http://localhost:4318/v1/traces`."""
    service_name: str | None = None
    """Default: OTEL_SERVICE_NAME, then `quicedge`."""
    sample_ratio: Annotated[float, Meta(ge=0, le=1)] | None = None
    """Share of traces that start here; traces started by a trusted client follow its sampling
    decision. Default: OTEL_TRACES_SAMPLER, then all."""
    timeout: Seconds | None = None
    """For one export with its retries; default: OTEL_EXPORTER_OTLP_TIMEOUT, then 10 seconds."""


class Qlog(_Section, frozen=True):
    """Traces of connections, one file each (qlog, JSON text sequences)."""

    directory: str | None = None
    """Directory of the traces; none are written without it, unless QLOGDIR is set."""
    level: Literal["core", "base", "extra"] = "base"
    rate: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """Share of new connections that are traced; all of them if only QLOGDIR is set."""
    addresses: list[str] = field(default_factory=list)
    """Clients that are always traced: addresses or networks (`192.0.2.0/24`)."""
    server_names: list[str] = field(default_factory=list)
    """Server names (SNI) whose connections are always traced."""
    max_file_size: Bytes = tracelimits.QLOG_MAX_FILE_SIZE
    """Maximum size of one trace; it ends there."""
    max_total_size: Bytes = tracelimits.QLOG_MAX_TOTAL_SIZE
    """Maximum size of all traces in the directory; the oldest are removed."""


class Admin(_Section, frozen=True):
    enabled: bool = True
    listen: str = "127.0.0.1:4480"
    """`host:port` or `unix:/path`; other than loopback addresses require a token."""
    token_file: str | None = None
    """File (mode 600) with the bearer token that requests must carry."""
    hosts: list[str] = field(default_factory=list)
    """Host names that the API is reached by, in addition to loopback ones."""


class Listen(_Section, frozen=True):
    """A listening address with settings of its own."""

    address: str
    """`host:port` or `[v6]:port`."""
    protocols: list[ListenerProtocol] | None = None
    """Overrides `protocols`."""
    proxy_protocol: list[str] | None = None
    """Networks of load balancers that begin each TCP connection with a PROXY header; only they may
    connect."""


class Redirect(_Section, frozen=True):
    """An address for plain HTTP with settings of its own."""

    address: str
    """`host:port` or `[v6]:port`."""
    proxy_protocol: list[str] | None = None
    """As `Listen.proxy_protocol`."""


class Config(_Section, frozen=True):
    listen: list[str | Listen] = field(default_factory=lambda: ["0.0.0.0:443", "[::]:443"])
    """Addresses, `host:port` or `[v6]:port`, each for UDP and TCP as `protocols` requires."""
    protocols: list[ListenerProtocol] = field(default_factory=lambda: ["h3", "h2", "http/1.1"])
    """Offered protocols, those on TCP in order of preference."""
    redirect_http: bool | list[str | Redirect] | None = None
    """Redirect plain HTTP to https, on port 80 of the listening addresses or on these addresses. By
    default where the edge listens on port 443, if port 80 is free."""
    workers: Annotated[int, Meta(ge=1, le=limits.MAX_WORKERS)] | Literal["auto"] = 1
    user: str | None = None
    """User that workers run as once the sockets are bound (name or number); requires root."""
    group: str | None = None
    """Group that workers run as; default: the primary group of `user`."""
    drain_lead: Annotated[float, Meta(ge=0, le=limits.MAX_DURATION, extra={"unit": "seconds"})] = 0
    """Before a shutdown refuses new connections, `/readyz` fails for this long."""
    drain_timeout: Seconds = limits.DRAIN_TIMEOUT
    """For requests in progress at a shutdown."""
    long_drain: Seconds | None = None
    """The same for requests without an end in sight: tunnels (WebSockets), event streams, and those
    that wait for their response. Default: `drain_timeout`."""
    upgrade_drain: Seconds = limits.UPGRADE_DRAIN
    """For requests in progress at workers that a reload or an upgrade has replaced."""
    state_directory: str | None = None
    """Directory of what must outlive the processes: secrets, certificates of ACME. Default:
    STATE_DIRECTORY, which systemd sets, or `/var/lib/quicedge` if it belongs to the edge."""
    pid_file: str | None = None
    """File that names the process to signal; an upgrade changes it."""
    control_socket: str | None = None
    """Unix socket for `quicedge reload`, `stop` and `status`. Default: `control.sock` in the
    runtime directory of systemd, else in `state_directory`, else in a directory of the user."""
    tls: Tls = field(default_factory=Tls)
    quic: Quic = field(default_factory=Quic)
    http3: Http3 = field(default_factory=Http3)
    limits: Limits = field(default_factory=Limits)
    fleet: Fleet = field(default_factory=Fleet)
    upstreams: dict[str, Upstream] = field(default_factory=dict)
    routes: list[Route] = field(default_factory=list)
    filters: list[FilterEntry] = field(default_factory=list)
    """Filters of all routes, before their own."""
    alt_svc: AltSvc = field(default_factory=AltSvc)
    log: Log = field(default_factory=Log)
    forwarding: Forwarding = field(default_factory=Forwarding)
    otel: Otel = field(default_factory=Otel)
    qlog: Qlog = field(default_factory=Qlog)
    admin: Admin = field(default_factory=Admin)
