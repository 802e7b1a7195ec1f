"""Every limit, timeout, buffer and rate of the edge: a name, a unit, why.

Sections follow the packages. Operators change the ones that `schema.py` names as
defaults; the rest are fixed.
"""

from typing import Final

# --- shares -----------------------------------------------------------------------------------

SHARE_OF_ADDRESS: Final = 2
"""Times what is free of a scarce thing that one address may hold (`shares.pool`): alone it gets two
thirds; after four that take all they may, one part in eighty-one is still free."""

SHARE_OF_PREFIX: Final = 4
"""The same for one network, an IPv4 /24 or an IPv6 /56: alone it gets four fifths."""

STALLED_AFTER: Final = 5.0
"""Seconds without progress after which a request may lose what others wait for: several round trips
and probe timeouts of a bad mobile path."""

STALLED_BYTES: Final = 1024
"""Bytes in that time that count as progress: a twelfth of what a client at 20 kbit/s takes."""

RESPONSE_MEMORY: Final = 64 * 1024 * 1024
"""Bytes per worker that responses may take between origin and client, and what goes with them: at a
round trip of 100 ms that is 640 MB per second, twice what a worker can send."""

RESPONSE_MEMORY_GRAIN: Final = 16 * 1024
"""Bytes by which a connection's account may be off, so that small responses are not counted."""

UNANSWERED_UNCOUNTED: Final = 16
"""Requests per connection whose responses are not counted before they come: what a page asks for at
once costs no accounting."""

EXCHANGE_MEMORY: Final = 8 * 1024
"""Bytes that a running request takes by itself, as measured with 5000 of them."""

# --- udp ------------------------------------------------------------------------------------

UDP_RECEIVE_BUFFER: Final = 7 * 1024 * 1024
"""Bytes asked of SO_RCVBUF: a burst of 64 KB windows from many clients (quic-go asks the same)."""

UDP_SEND_BUFFER: Final = 7 * 1024 * 1024
"""Bytes asked of SO_SNDBUF."""

MAX_DATAGRAM_SIZE: Final = 1472
"""UDP payload bytes sent at most: a 1500-byte Ethernet frame less IPv4 and UDP headers."""

UDP_READ_SIZE: Final = 65536
"""Bytes of the receive buffer: the largest GRO batch, so that none is truncated."""

UDP_READS_PER_WAKEUP: Final = 64
"""Reads before other work gets its turn."""

FORWARD_MESSAGE: Final = 66_000
"""Bytes of a datagram on its way between workers, with its addresses."""

FORWARDED_PER_WAKEUP: Final = 64
"""Datagrams of other workers handled before other work gets its turn."""

UDP_BYTES_PER_WAKEUP: Final = 512 * 1024
"""Bytes read before other work gets its turn: a few milliseconds of it."""

UDP_MAX_SEGMENTS: Final = 64
"""Datagrams in one GSO call (UDP_MAX_SEGMENTS of older kernels)."""

UDP_MAX_PAYLOAD: Final = 65507
"""Bytes in one GSO call: the largest UDP payload over IPv4."""

UDP_SEND_QUEUE: Final = 4 * 1024 * 1024
"""Bytes a socket that wait for the kernel; beyond, datagrams are dropped."""

UDP_PATHS_REMEMBERED: Final = 16384
"""Addresses a socket whose path objects are kept for reuse."""

# --- quic -----------------------------------------------------------------------------------

MIN_INITIAL_DATAGRAM: Final = 1200
"""Bytes; RFC 9000 section 14.1: smaller datagrams with Initial packets are discarded."""

MIN_INITIAL_DCID: Final = 8
"""Bytes; RFC 9000 section 7.2: the client's first Destination Connection ID is at least this."""

CONNECTION_ID_LENGTH: Final = 8
"""Bytes of the connection IDs we issue: one steering byte and seven random ones."""

ACTIVE_CONNECTION_IDS: Final = 4
"""IDs kept for a client, and taken from it, at a time (quic-go has as many): each costs a frame in
the first round trip and memory, and a migration uses up one."""

MAX_CRYPTO_OFFSET: Final = 64 * 1024
"""Highest CRYPTO offset buffered; post-quantum ClientHellos with certificates stay below."""

MAX_STREAM_GAPS: Final = 1000
"""Pieces of a stream that wait for what is before them (quic-go has as many)."""

STREAM_PAGE: Final = 4096
"""Bytes of memory that a piece of a stream out of order takes at least: a page of most systems."""

MAX_STREAMS_BIDI: Final = 128
"""Concurrent requests a connection (nginx 128, Caddy 250)."""

MAX_STREAMS_UNI: Final = 8
"""Unidirectional streams a client opens: control, two QPACK, room for grease (RFC 9114 6.2)."""

CONNECTION_WINDOW: Final = 4 * 1024 * 1024
"""Bytes in all that a client may send ahead of the origin."""

STREAM_WINDOW: Final = 1024 * 1024
"""Bytes a stream that a client may send ahead of the origin."""

EARLY_PACKETS_HELD: Final = 16 * 1024
"""Bytes of datagrams, per connection in its handshake, that are kept because their packets came
before their keys: an initial congestion window of 10 datagrams (RFC 9001 section 5.7)."""

KEY_UPDATE_PACKETS: Final = 1 << 22
"""Packets sealed with the same keys before we update them, half of what RFC 9001 section 6.6 allows
for AES-GCM: some 6 GB."""

OLD_KEYS_PTOS: Final = 3
"""Probe timeouts after which the keys before a key update are discarded (RFC 9001 section 6.5)."""

STALE_DEADLINES: Final = 64
"""Entries of the timer heap, beyond as many as live ones, that may be stale before it is rebuilt:
constant work per deadline, amortised."""

RETRY_THRESHOLD: Final = 32
"""Half-open handshakes of unvalidated addresses, per worker, above which newcomers must validate
theirs. At 50 ms of round trip that is more than a worker can complete; forged Initials pin no more
than these."""

MAX_HALF_OPEN: Final = 2048
"""Half-open handshakes of unvalidated addresses, per worker, above which Initial packets of such
addresses are dropped; only reached when Retry is off."""

MAX_HALF_OPEN_PER_PREFIX: Final = 256
"""Half-open handshakes of one /24 or /56, per worker, above which its newcomers get a Retry."""

MAX_CONNECTIONS: Final = 20_000
"""Connections a worker: some 2 GB of memory."""

MAX_CONNECTIONS_PER_ADDRESS: Final = 5000
"""Connections of one address, per worker: a quarter of all, and the whole of a large office."""

MAX_CONNECTIONS_PER_PREFIX: Final = 10_000
"""Connections of one network, per worker: half of all."""

MAX_PREFIX_RATES: Final = 16_384
"""Clients or networks whose rates a table remembers; those seen longest ago are forgotten."""

FLEET_SYNC_INTERVAL: Final = 0.1
"""Seconds between two exchanges of request counts with the store of a fleet."""

FLEET_SYNC_CONCURRENCY: Final = 16
"""Questions to that store at a time."""

FLEET_TIMEOUT: Final = 1.0
"""Seconds that the store has to answer."""

FLEET_CLOCK_SKEW: Final = 5.0
"""Seconds that the wall clock of a fleet's host may be behind that of another."""

FLEET_KEYS: Final = 16
"""Keys in a file of shared keys: each may be tried for every ticket that bears its name."""

FLEET_STRIKES_WAITING: Final = 256
"""Connections of a worker whose early data waits for the store; that of others for a handshake."""

FLEET_REGISTER_CHECK: Final = 5.0
"""Seconds between two questions which register the store is."""

REFUSAL_LOG_INTERVAL: Final = 10.0
"""Seconds between two log lines about refusals of one kind."""

CLOSES_LOGGED_PER_SECOND: Final = 10.0
"""Log lines per second and worker about connections closed for what their clients did: enough to
see why an honest client was, too few to fill a disk."""

FLOOD_SHARE: Final = 8
"""Bytes received per byte of stream data in either direction; what exceeds it is overhead (nginx
uses the same share)."""

FLOOD_BURST: Final = 4 * 1024 * 1024
"""Bytes of overhead tolerated at once on a connection."""

FLOOD_RATE: Final = 16 * 1024.0
"""Bytes of overhead per second tolerated on a connection: about 500 packets of PING or ACK."""

FLOOD_CHECK_EVERY: Final = 256 * 1024
"""Bytes received between two checks for a flood."""

ABANDONED_PAGES: Final = 4
"""How often in a row all concurrent requests of a connection may be abandoned (CVE-2023-44487): 512
requests by default, where Envoy starts judging at 500 and nghttp2 allows 1000."""

ABANDONED_RATE: Final = 100.0
"""Abandoned requests per second tolerated on a connection, besides one for each request that
completes (nghttp2 allows 33 per second, Envoy half of all requests)."""

ABANDONED_MIN_LIFETIME: Final = 0.1
"""Seconds after which cancelling a request no longer counts as abandoning it: the limit on
concurrent streams bounds how often that can happen (Envoy uses 1 second)."""

HEADER_TIMEOUT: Final = 10.0
"""Seconds from the first byte of a request to its complete head."""

BODY_TIMEOUT: Final = 30.0
"""Seconds over which a request's content must come at MIN_BODY_RATE."""

MIN_BODY_RATE: Final = 4.0
"""Bytes per second below which a request's content counts as a slow-body attack: attack tools send
a few bytes every ten seconds, a sensor a reading (Kestrel: 240; nginx: a byte per 60 s)."""

MESSAGE_REST: Final = 300.0
"""Seconds that a stream of messages (gRPC, events) may rest before its next byte (Envoy's default
for idle streams)."""

RESPONSE_TIMEOUT: Final = 60.0
"""Seconds in which a client must take at least MIN_PROGRESS bytes of a response."""

RETRY_AFTER: Final = 1
"""Seconds after which a refused client may try again (`retry-after`)."""

MIN_PROGRESS: Final = 1024
"""Bytes that count as progress."""

PROGRESS_INTERVAL: Final = 1.0
"""Seconds between two looks at deadlines of progress and at memory."""

MEMORY_TAKE_BELOW: Final = 0.9
"""Share of the memory budget below which new work is taken again."""

MEMORY_BUDGET_SHARE: Final = 0.6
"""Share of the machine's memory, or of the control group's, that all workers may take together."""

MEMORY_TRIM_INTERVAL: Final = 5.0
"""Seconds between two tries to give freed memory back to the system: each may take 10 ms."""

HELD_REQUEST_TIMEOUT: Final = 30.0
"""Seconds that a request waits to be started before it is refused (503)."""

MEMORY_SHED_ABOVE: Final = 1.1
"""Share of the memory budget above which connections are closed."""

MEMORY_SHED_SHARE: Final = 0.05
"""Share of the connections that are closed at once, those that hold most."""

MAX_URI: Final = 16 * 1024
"""Bytes of a request's path and query (Caddy and nginx take 8 to 32 KB heads)."""

RETRY_TOKEN_LIFETIME: Final = 30.0
"""Seconds; a Retry token is used at once (RFC 9000 section 8.1.4)."""

NEW_TOKEN_LIFETIME: Final = 12 * 3600.0
"""Seconds a NEW_TOKEN token is good for, and that its key seals (RFC 9000 section 8.1.3)."""

TOKEN_KEY_LIFETIME: Final = 3600.0
"""Seconds a Retry token key seals; it opens for as long again, then it is gone."""

TICKET_LIFETIME: Final = 12 * 3600.0
"""Seconds a session ticket is good for, and that its key seals (RFC 8446 4.6.1: 7 days at most)."""

EARLY_DATA_LIFETIME: Final = 3600.0
"""Seconds after its issue that a ticket is good for 0-RTT data, once; bounds what is remembered."""

EARLY_DATA_AGE_TOLERANCE: Final = 10.0
"""Seconds between a ticket's age by the client's clock and by ours (RFC 8446 section 8.3)."""

EARLY_DATA_STRIKES: Final = 65536
"""Tickets used for 0-RTT data a worker and EARLY_DATA_LIFETIME; beyond, it is refused."""

IDLE_TIMEOUT: Final = 60.0
"""Seconds without a packet before a connection is dropped (RFC 9000 section 10.1)."""

HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds from the first Initial to a complete handshake."""

BASE_DATAGRAM_SIZE: Final = 1200
"""Bytes; what every path carries (RFC 9000 section 14.1), where discovery starts."""

MTU_PROBES: Final = 2
"""Lost probes of a size before a smaller one is tried (RFC 8899 section 5.1.2 allows 3)."""

MTU_RAISE_INTERVAL: Final = 600.0
"""Seconds until a larger size is looked for again (RFC 8899 section 5.1.1)."""

MTU_BLACK_HOLE_FLIGHTS: Final = 3
"""Flights in a row whose datagrams above BASE_DATAGRAM_SIZE were all lost while smaller ones got
through, before the path counts as one that swallows them (RFC 8899 section 4.3; quinn: 3)."""

MTU_BLACK_HOLE_COOLDOWN: Final = 60.0
"""Seconds after such a fall until a larger size is looked for again (as quinn has it)."""

INITIAL_WINDOW_PACKETS: Final = 10
"""Datagrams of the first congestion window (RFC 9002 section 7.2)."""

MIN_WINDOW_PACKETS: Final = 2
"""Datagrams of the smallest congestion window (RFC 9002 section 7.2)."""

PACING_BURST: Final = 64 * 1024
"""Bytes that leave at once at most: one GSO call."""

MAX_BATCH_PACKETS: Final = 44
"""Packets sealed in one pass: 64 KB of full datagrams, below the kernel's 64 segments."""

PACING_QUANTUM: Final = 0.001
"""Seconds between two bursts at least, so that pacing costs no timer a packet."""

SKIP_PACKETS_FIRST: Final = 256
"""Packets within which the first packet number is left out, to catch ACKs of what nobody got."""

SKIP_PACKETS_MOST: Final = 128 * 1024
"""Packets between two such numbers at most; the distance doubles each time."""

SKIPPED_REMEMBERED: Final = 4
"""Numbers left out that ACKs are compared with."""

ECN_TESTING_PACKETS: Final = 10
"""Packets marked on a path before the first answer to them (RFC 9000 appendix A.4)."""

ECN_TESTING_TIMEOUTS: Final = 2
"""Probe timeouts in a row after which marks stop: the path may swallow marked packets."""

ECN_BLACK_HOLE_FLIGHTS: Final = 3
"""Flights in a row whose marked packets were all lost while unmarked ones got through, before
marking ends (RFC 9000 section 13.4.2 names no number)."""

ECN_MARKED_RUNS: Final = 64
"""Runs of marked packet numbers remembered for comparison with ACK counts; each unmarked probe
begins another, and each ACK is compared with all."""

MAX_LOST_REMEMBERED: Final = 32
"""Runs of lost packets whose late acknowledgment is noticed; each ACK is compared with all."""

MAX_ACK_RANGES: Final = 64
"""Received packet number ranges remembered and acknowledged."""

ACK_DELAY: Final = 0.001
"""Seconds that an ACK of 1-RTT packets waits for company: what a timer resolves."""

MAX_ACK_DELAY: Final = 25
"""Milliseconds that we declare as the longest such wait (RFC 9000 section 18.2, its default)."""

ACK_DELAY_EXPONENT: Final = 3
"""Power of two of the microseconds that ACK delays are told in (RFC 9000 section 18.2)."""

ACK_ROOM: Final = 512
"""Bytes of a packet that an ACK frame may take, so that data still fits beside it."""

PTO_PROBES: Final = 2
"""Packets sent when a probe timeout expires (RFC 9002 section 6.2.4 allows two)."""

AEAD_FAILURES: Final = 1 << 36
"""Forged packets of a connection, in all its keys (RFC 9001 section 6.6, ChaCha20-Poly1305)."""

AMPLIFICATION_FACTOR: Final = 3
"""Bytes sent to an unvalidated address for each that came from it (RFC 9000 section 8.1)."""

MAX_PATHS: Final = 8
"""Network paths of a connection that are remembered."""

MAX_LOCAL_CHALLENGES: Final = 5
"""PATH_CHALLENGE frames of a path whose answer is still taken."""

MAX_REMOTE_CHALLENGES: Final = 32
"""PATH_CHALLENGE frames of a path that wait to be answered; further ones are dropped."""

MAX_RETIRED_CONNECTION_IDS: Final = 4 * ACTIVE_CONNECTION_IDS
"""Connection IDs that wait to be retired (RFC 9000 section 5.1.2 asks for twice the limit)."""

STATELESS_RESETS_PER_SECOND: Final = 100
"""Stateless resets a worker sends a second: answers to unknown packets are not a lever."""

ROSTER_ROWS: Final = 65_536
"""Clients of a worker, who are reset unasked when it dies; others learn of it when they next send.
A row is 64 bytes and takes memory once it is used."""

RESET_BURST: Final = 128
"""Such resets sent before other work of the supervisor gets its turn: about a millisecond."""

RESET_REPEAT_AFTER: Final = 0.3
"""Seconds until they are sent once more, in case the first was lost."""

RESETS_TIMEOUT: Final = 2.0
"""Seconds that the supervisor waits for resets to be sent before it closes the sockets."""

UNASKED_RESET_SIZE: Final = 64
"""Bytes that a reset nobody asked for stays below: it looks like any small packet."""

REFUSALS_PER_SECOND: Final = 200
"""Initial packets a worker sends a second to clients it does not let in; each costs a key."""

VERSION_NEGOTIATIONS_PER_SECOND: Final = 1000
"""Version Negotiation packets a worker sends a second, for the same reason."""

SEND_BUFFER_HIGH: Final = 256 * 1024
"""Unsent bytes a stream above which the origin is not read any more."""

SEND_BUFFER_LOW: Final = 64 * 1024
"""Unsent bytes a stream below which the origin is read again."""

SEND_BUFFER_CONNECTION: Final = 1024 * 1024
"""Unsent bytes of all streams of a connection above which each buffers no more than
SEND_BUFFER_FLOOR: many parallel responses need no more than the connection can send meanwhile."""

SEND_BUFFER_FLOOR: Final = 16 * 1024
"""Unsent bytes per stream above which the origin is not read any more while the connection or its
client has its share: every stream that is read gets on."""

# --- http -----------------------------------------------------------------------------------

MAX_FIELD_SECTION_SIZE: Final = 65536
"""Bytes of a decoded field section, name + value + 32 a field (RFC 9114 section 4.2.2)."""

MAX_FIELDS: Final = 128
"""Field lines per section, all Cookie lines counting as one (RFC 9114 section 4.2.1)."""

MAX_COOKIE_CRUMBS: Final = 512
"""Cookie lines per section, besides MAX_FIELDS, that may refer to QPACK's dynamic table: browsers
keep 180 cookies per site and send each on a line of its own (RFC 9114 section 4.2.1)."""

MAX_QPACK_STRING: Final = 65535
"""Bytes of a field name or value that pylsqpack can decode or encode."""

H3_OVERHEAD_BURST: Final = 1000
"""Frames and streams without content (unknown types, empty DATA, PRIORITY_UPDATE, MAX_PUSH_ID)
tolerated at once on an HTTP/3 connection (HAProxy counts such glitches likewise)."""

H3_OVERHEAD_RATE: Final = 100.0
"""Such frames per second tolerated on a connection."""

H3_OVERHEAD_PER_REQUEST: Final = 8
"""Such frames that come with a request: Chromium sends one or two PRIORITY_UPDATE frames, others
reserved frames and an empty DATA."""

MAX_CONTROL_FRAME: Final = 4096
"""Bytes of a frame on the control stream."""

HQ_MAX_REQUEST: Final = 4096
"""Bytes of an HTTP/0.9 request line (interop cases ask for names of 250 characters)."""

# --- proxy ----------------------------------------------------------------------------------

REQUEST_END_WAIT: Final = 5.0
"""Seconds that a GET (or another method without content by habit) waits for the end of its stream
before it is forwarded with a body of unknown length: some probe timeouts of a slow path."""

ALT_SVC_MAX_AGE: Final = 86400
"""Seconds a client may remember Alt-Svc (RFC 7838 section 3.1)."""

# --- upstream -------------------------------------------------------------------------------

UPSTREAM_CONNECT_TIMEOUT: Final = 5.0
"""Seconds for TCP and TLS to an origin."""

UPSTREAM_FIRST_BYTE_TIMEOUT: Final = 60.0
"""Seconds an origin may think before its response head (nginx proxy_read_timeout)."""

UPSTREAM_IDLE_TIMEOUT: Final = 60.0
"""Seconds between two pieces of a response."""

UPSTREAM_KEEPALIVE_TIMEOUT: Final = 60.0
"""Seconds an idle origin connection is kept."""

UPSTREAM_MAX_CONNECTIONS: Final = 256
"""HTTP/1.1 connections a server, per worker."""

UPSTREAM_RETRIES: Final = 1
"""Further tries of a request that no origin has processed."""

UPSTREAM_RECHECK: Final = 2.0
"""Seconds between the edge's own tries to connect to a server that could not be reached."""

UPSTREAM_HEALTH_INTERVAL: Final = 5.0
"""Seconds between two checks of a server, and for the answer to one."""

UPSTREAM_CHECK_FALL: Final = 2
"""Checks that fail in a row until a server is left alone; one that passes brings it back."""

UPSTREAM_MAX_WAITING: Final = 1024
"""Requests a server that wait for a connection; beyond, they are refused (503)."""

UPSTREAM_QUEUE_TIMEOUT: Final = 10.0
"""Seconds a request waits for a connection, beyond the time to connect."""

UPSTREAM_REPLAY_BODY: Final = 64 * 1024
"""Request body bytes kept so that a retry can send them again."""

UPSTREAM_CONTINUE_TIMEOUT: Final = 1.0
"""Seconds a body waits for 100 (Continue) before it is sent all the same."""

UPSTREAM_WRITE_HIGH: Final = 256 * 1024
"""Bytes that wait for an origin's socket above which the client is held back."""

UPSTREAM_WRITE_LOW: Final = 64 * 1024
"""Bytes that wait for an origin's socket below which the client may go on."""

UPSTREAM_MAX_HEAD: Final = 256 * 1024
"""Bytes of a response head or trailer section."""

UPSTREAM_MAX_FIELDS: Final = 512
"""Field lines of a response head or trailer section."""

UPSTREAM_INTERIM_BURST: Final = 64
"""Interim (1xx) responses that an origin may send at once for a request: an Early Hints field per
response, and then some."""

UPSTREAM_INTERIM_RATE: Final = 20.0
"""Interim responses per second for a request, in the long run: ten times what it takes to report
progress to a person, and little of a worker's time."""

UPSTREAM_H2_STREAM_WINDOW: Final = 256 * 1024
"""Bytes a stream that an HTTP/2 origin may send ahead of the client."""

UPSTREAM_H2_CONNECTION_WINDOW: Final = 16 * 1024 * 1024
"""Bytes a connection that an HTTP/2 origin may send ahead of its clients."""

UPSTREAM_H2_CONNECTIONS: Final = 8
"""HTTP/2 connections a server, per worker."""

UPSTREAM_H2_MAX_STREAMS: Final = 100
"""Requests at a time on an HTTP/2 connection, even if the origin allows more."""

UPSTREAM_H2_HEADER_TABLE: Final = 4096
"""Bytes of our HPACK encoder's table: RFC 7541's default, whatever the origin offers."""

UPSTREAM_PROBE_TIMEOUT: Final = 5.0
"""Seconds an HTTP/2 origin has for a PING once a request was given up unanswered."""

UPSTREAM_CLOSE_TIMEOUT: Final = 5.0
"""Seconds an HTTP/2 origin has to take what was still to be sent when its connection closes."""

UPSTREAM_H2_FLOOD_BURST: Final = 1000
"""Frames that carry nothing (PING, SETTINGS, empty DATA, ...) an HTTP/2 origin may send at once."""

UPSTREAM_H2_FLOOD_RATE: Final = 100.0
"""Such frames a second, beside eight for each piece of work (HAProxy counts glitches likewise)."""

STATIC_READ_SIZE: Final = 64 * 1024
"""Bytes read from a file at once: a GSO batch, and all of most pages."""

STATIC_MAX_OPEN: Final = 512
"""Files per root that are open at a time, half of MIN_DESCRIPTORS; further requests wait."""

STATIC_MAX_DEPTH: Final = 64
"""Directories below a root that are looked into."""

STATIC_MAX_LINKS: Final = 40
"""Symbolic links followed on the way to one file, as Linux does (path_resolution(7))."""

# --- worker, supervisor, admin ----------------------------------------------------------------

MIN_DESCRIPTORS: Final = 1024
"""Open files a worker should be allowed: its origin connections and some."""

DRAIN_NOTICE: Final = 0.5
"""Seconds between the two GOAWAY frames: a round trip of most clients."""

DRAIN_TIMEOUT: Final = 30.0
"""Seconds that running exchanges have after SIGTERM."""

STOP_GRACE: Final = 3.0
"""Seconds a worker has to exit once its drain time is over, before SIGKILL."""

CERTIFICATE_EXPIRY_WARNING: Final = 14 * 86400.0
"""Seconds before a certificate expires from which on that is said: half of what a certificate of
Let's Encrypt has left when it is due for renewal."""

CERTIFICATE_CHECK_INTERVAL: Final = 86400.0
"""Seconds between two looks at what the certificates have left."""

MAX_WORKERS: Final = 64
"""Workers of one edge: two generations of them share the 128 slots of connection IDs."""

MAX_DURATION: Final = 10 * 365 * 86400.0
"""Seconds that a duration may have, ten years: beyond it a unit was mistaken."""

MAX_VARINT: Final = (1 << 62) - 1
"""The largest number that QUIC can write (RFC 9000 section 16)."""

CONFIG_MAX_SIZE: Final = 4 * 1024 * 1024
"""Bytes of a configuration file; a larger one is something else."""

WORKER_START_TIMEOUT: Final = 30.0
"""Seconds from spawn to `ready`: an interpreter, imports and certificates on a loaded machine."""

WORKER_BACKOFF_MIN: Final = 0.1
"""Seconds before a dead worker is replaced the first time; doubles with each early death."""

WORKER_BACKOFF_MAX: Final = 10.0
"""Seconds between two tries to start a worker that keeps dying."""

WORKER_STABLE: Final = 30.0
"""Seconds a worker must live for its next death to count as a first one."""

WORKER_FAILED_STARTS: Final = 3
"""Workers in a row that end before they are ready, after which the last reload is taken back."""

WORKER_HEARTBEAT: Final = 10.0
"""Seconds between two questions whether a worker still answers, and for each answer."""

WORKER_HEARTBEATS_MISSED: Final = 6
"""Unanswered questions in a row (two minutes) after which a hung worker is replaced."""

CONTROL_MESSAGE_MAX: Final = 16 * 1024 * 1024
"""Bytes of one control message: ADMIN_MAX_ROWS connection records of 2 to 3 KB."""

CONTROL_MAX_PENDING: Final = 16
"""Questions in progress on one control channel; more are refused, not queued."""

CONTROL_TIMEOUT: Final = 5.0
"""Seconds an answer on the control channel may take."""

ADMIN_DEFAULT_ROWS: Final = 100
"""Connections a page when the caller does not say."""

ADMIN_MAX_ROWS: Final = 4000
"""Highest offset + limit of a page: what a worker may have to sort, copy and send at once."""

ADMIN_MAX_CONCURRENCY: Final = 32
"""Admin requests in progress; more are answered 503."""

ADMIN_MAX_EVENT_STREAMS: Final = 16
"""Server-sent event streams at once."""

ADMIN_EVENT_INTERVAL_MIN: Final = 0.1
ADMIN_EVENT_INTERVAL_MAX: Final = 60.0
"""Seconds between two events of such a stream."""

ADMIN_KEEPALIVE_TIMEOUT: Final = 5
"""Seconds an idle admin connection is kept."""

GC_THRESHOLDS: Final = (20_000, 20, 20)
"""New objects before a worker looks for reference cycles, and how rarely among older ones; Python's
700, 10, 10 cost a handshake and a small request a tenth of their time."""

# --- telemetry --------------------------------------------------------------------------------

LOG_BUFFER: Final = 4 * 1024 * 1024
"""Bytes of log lines waiting for a slow disk; further lines are dropped and counted."""

LOG_WRITE_SIZE: Final = 64 * 1024
"""Bytes of waiting access records that are written without waiting for the timer."""

LOG_FLUSH_INTERVAL: Final = 0.25
"""Seconds an access record waits for company before it is written."""

LOG_CLOSE_TIMEOUT: Final = 2.0
"""Seconds a process waits at its end for its last log lines to be written."""
