"""Every limit, timeout, buffer size and rate of the edge: name, unit and rationale.

Sections follow the packages. Those that `schema.py` uses as defaults are configurable; the rest are
fixed.
"""

from typing import Final

# --- shares -----------------------------------------------------------------------------------

SHARE_OF_ADDRESS: Final = 2
"""Multiple of the free amount of a shared resource that one address may hold (`shares.pool`): alone
it gets two thirds; after four that take all they may, 1/81 is still free."""

SHARE_OF_PREFIX: Final = 4
"""The same per network (IPv4 /24 or IPv6 /56): alone it gets four fifths."""

STALLED_AFTER: Final = 5.0
"""Seconds without progress after which a request may be dropped in favour of waiting ones: several
round trips and probe timeouts of a bad mobile path."""

STALLED_BYTES: Final = 1024
"""Bytes in that time that count as progress: a twelfth of what a client at 20 kbit/s takes."""

ADDRESSES_REMEMBERED: Final = 256
"""Client addresses whose packed form and network are remembered, per worker: each is asked for some
ten times in the course of a connection."""

RESPONSE_MEMORY: Final = 48 * 1024 * 1024
"""Bytes per worker for responses in flight from origins to clients, overhead included: at a round
trip of 100 ms that is 640 MB per second, twice what a worker can send."""

RESPONSE_MEMORY_GRAIN: Final = 16 * 1024
"""Granularity of a connection's account in bytes: small responses are not counted."""

UNANSWERED_UNCOUNTED: Final = 8
"""Requests per connection whose responses are not counted before they come: what a page asks for at
once costs no accounting."""

EXCHANGE_MEMORY: Final = 8 * 1024
"""Bytes of memory per request in progress, measured with 5000 of them."""

# --- udp ------------------------------------------------------------------------------------

UDP_RECEIVE_BUFFER: Final = 7 * 1024 * 1024
"""Bytes requested by SO_RCVBUF: a burst of 64 KB windows from many clients (as quic-go)."""

UDP_SEND_BUFFER: Final = 7 * 1024 * 1024
"""Bytes requested by SO_SNDBUF."""

MAX_DATAGRAM_SIZE: Final = 1472
"""Maximum UDP payload in bytes: a 1500-byte Ethernet frame less IPv4 and UDP headers."""

UDP_READ_SIZE: Final = 65536
"""Bytes of the receive buffer: the largest GRO batch, so that none is truncated."""

UDP_READS_PER_WAKEUP: Final = 256
"""Reads per wake-up, before other work runs: what one interval of a moderated socket may bring."""

FORWARD_MESSAGE: Final = 66_000
"""Maximum size in bytes of a datagram forwarded between workers, with its addresses."""

FORWARDED_PER_WAKEUP: Final = 64
"""Forwarded datagrams handled per wake-up, before other work runs."""

ANNOUNCE_ATTEMPTS: Final = 200
ANNOUNCE_RETRY: Final = 0.01
"""How often, and after how many seconds, the supervisor tries again to tell a worker of others
whose inbox is full of forwarded datagrams."""

FORWARD_LOOK_BACK: Final = 30.0
"""Seconds after a change of generations in which first packets may belong to handshakes that began
in the previous one: three times the default timeout of a handshake."""

FORWARD_RETURNED: Final = 4096
"""Connection IDs remembered of new connections that the previous generation does not know: one
handshake each, for the few round trips until the connection is open."""

UDP_BYTES_PER_WAKEUP: Final = 512 * 1024
"""Bytes read per wake-up, a few milliseconds of work, before other work runs."""

UDP_SECONDS_PER_WAKEUP: Final = 0.02
"""Seconds of handling datagrams after which other work of the loop gets its turn."""

MODERATED_RATE: Final = 12_000_000.0
"""Bytes received per second from which a socket is read once per interval: eight full datagrams per
interval, and many times what small requests and the acknowledgments of downloads bring."""

MODERATION_WINDOW: Final = 0.01
"""Seconds over which that rate is taken: some time slices of a peer on the same machine."""

MODERATION_INTERVAL: Final = 0.001
"""Seconds between reads of a moderated socket: the resolution of the event loop's timers."""

MODERATED_BUFFER_SHARE: Final = 0.15
"""Share of the kernel's receive buffer that the payload of one interval may have: the kernel counts
2304 bytes for a full datagram of 1472, and half of the buffer stays for bursts."""

UDP_MAX_SEGMENTS: Final = 64
"""Datagrams in one GSO call (UDP_MAX_SEGMENTS of older kernels)."""

UDP_MAX_PAYLOAD: Final = 65507
"""Bytes in one GSO call: the largest UDP payload over IPv4."""

UDP_SEND_QUEUE: Final = 4 * 1024 * 1024
"""Bytes per socket that wait for the kernel; beyond that, datagrams are dropped."""

UDP_CONTROLS_REMEMBERED: Final = 256
"""Combinations of local address, ECN mark and segment size per socket whose control messages are
cached."""

UDP_PATHS_REMEMBERED: Final = 16384
"""Addresses per socket whose path objects are cached."""

# --- tcp ------------------------------------------------------------------------------------

TCP_BACKLOG: Final = 4096
"""Connections per listening socket that wait to be accepted (Linux: net.core.somaxconn)."""

TCP_DEFER_ACCEPT: Final = 5
"""Seconds that the kernel keeps a connection on which the client has sent nothing to itself."""

TCP_KEEPALIVE_IDLE: Final = 60
"""Seconds of silence after which the kernel asks whether a client on TCP is still there: as long as
the system of a client that has closed its socket remembers it."""

TCP_KEEPALIVE_INTERVAL: Final = 15
"""Seconds between two such questions."""

TCP_KEEPALIVE_PROBES: Final = 4
"""Unanswered questions after which a client is gone: two minutes after its last word."""

TCP_NOTSENT_LOWAT: Final = 128 * 1024
"""Bytes per connection that the kernel takes ahead of the congestion window: 100 ms at 10 Mbit/s.
More would delay urgent responses behind others (Cloudflare and h2o use 16 to 128 KB)."""

TCP_ACCEPTS_PER_WAKEUP: Final = 32
"""Connections accepted per wake-up and socket, about a millisecond, before other work runs."""

TCP_ACCEPT_PAUSE: Final = 0.5
"""Seconds without accepting after the process has run out of descriptors."""

TCP_READ_SIZE: Final = 256 * 1024
"""Bytes of the read buffer that all connections of a worker share."""

TCP_WRITE_HIGH: Final = 256 * 1024
"""Bytes waiting for a client's socket above which its session pauses origins."""

TCP_WRITE_LOW: Final = 64 * 1024
"""Bytes waiting for a client's socket below which its session resumes them."""

TCP_CLOSE_CHECK: Final = 5.0
"""Seconds in which a client must acknowledge MIN_PROGRESS of what is left when we close, and then
close its own half (nginx: lingering_timeout)."""

TLS_MAX_DISCARDED: Final = 4 * 1024 * 1024
"""Bytes read from a client after we closed, so that it gets our last response: what an upload has
in flight at 300 Mbit/s and 100 ms."""

HANDSHAKE_GRACE: Final = 1.0
"""Seconds that a TLS handshake on TCP has before it gives way to newer ones of a network that has
MAX_HALF_OPEN_PER_PREFIX in progress: several round trips."""

PROXY_HEADER_MAX: Final = 4096
"""Bytes of a PROXY header, version 2: addresses take 52, TLVs of cloud load balancers some 300."""

TLS_ANSWERS_BURST: Final = 64
"""Answers of TLS on TCP, to key updates and attempts to renegotiate, that a client may ask for at
once."""

TLS_ANSWERS_RATE: Final = 1.0
"""Such answers per second: each key update derives two keys (16 us), and its answer waits until the
client reads. AES-GCM needs one per 2^24 records (RFC 8446 section 5.5)."""

REDIRECT_IDLE: Final = 5.0
"""Seconds that a connection to port 80 is kept open without a request, or after we closed it."""

REDIRECTS_PER_TURN: Final = 32
"""Requests of one connection to port 80 that are answered per event loop iteration: 1 ms of it. The
256 KB that are read at once may hold thousands."""

TCP_INFO_AGE: Final = 1.0
"""Seconds for which what the kernel said of a connection is used again."""

# --- quic -----------------------------------------------------------------------------------

MIN_INITIAL_DATAGRAM: Final = 1200
"""Bytes; RFC 9000 section 14.1: smaller datagrams with Initial packets are discarded."""

MIN_INITIAL_DCID: Final = 8
"""Bytes; RFC 9000 section 7.2: the client's first Destination Connection ID is at least this."""

CONNECTION_ID_LENGTH: Final = 8
"""Length in bytes of the connection IDs we issue: one steering byte and seven random ones."""

ACTIVE_CONNECTION_IDS: Final = 4
"""Connection IDs active in either direction (as in quic-go): each costs memory and a frame in the
first round trip; a migration uses one up."""

MAX_SERVER_NAME: Final = 255
"""Bytes of a server name (SNI): what the DNS allows (RFC 1035 section 2.3.4; BoringSSL: 255)."""

MAX_AUTHORITY: Final = MAX_SERVER_NAME + 8
"""Bytes of an authority that is remembered: a server name and a port."""

CLIENT_CHAIN_LENGTH: Final = 8
"""Certificates in the chain of a client; private authorities have one intermediate or two. (A chain
is also bounded by MAX_CRYPTO_OFFSET in QUIC, and on TCP by OpenSSL's 100 KB.)"""

CLIENT_AUTHORITIES_SIZE: Final = 4096
"""Bytes of the names of authorities that a client is told when it is asked for a certificate."""

CLIENT_CRL_SIZE: Final = 4 * 1024 * 1024
"""Bytes of a file of authorities or revocation lists (75,000 revoked certificates)."""

CLIENT_AUTH_SIZE: Final = 8 * 1024 * 1024
"""Bytes of all such files, which the supervisor sends to its workers (CONTROL_MESSAGE_MAX)."""

CLIENT_REFUSALS_LOGGED: Final = 10
"""Log lines per second and worker on refused certificates of clients; all are counted."""

CLIENT_REVIEW_SECONDS: Final = 0.05
"""Seconds of each second in which client certificates of open connections are judged again after a
reload: 0.3 ms for each, or with a revocation list of 3 MB 12 ms, whose signature OpenSSL verifies
every time. New requests of all connections are judged when they come."""

TLS_HELLO_SIZE: Final = 64 * 1024
"""Bytes of a ClientHello on TCP that are awaited where server names decide whether clients are
asked for certificates; the rest of a longer one is OpenSSL's to judge."""

AUTHORITIES_REMEMBERED: Final = 1024
"""Authorities for which the routes and the fields for origins are remembered, per worker."""

NAMES_REMEMBERED: Final = 1024
"""Names of request fields that are known to be valid, or what becomes of them, per worker."""

FILTER_NAMES_REMEMBERED: Final = 64
"""Names of request fields that a filter is known to leave alone, per filter; and sets of names that
filters in Python write, per worker."""

REMEMBERED_NAME: Final = 64
"""Bytes of the longest of these names."""

MAX_CRYPTO_OFFSET: Final = 64 * 1024
"""Highest CRYPTO offset buffered; post-quantum ClientHellos with certificates stay below."""

FRAMES_PER_TURN: Final = 1024
"""Frames of one client per event loop iteration: about 5 ms, or 60 ms if each begins a request. The
full packets of an upload that one iteration reads (UDP_BYTES_PER_WAKEUP) hold fewer."""

DENSE_FRAMES_PER_PACKET: Final = 32
"""Frames per packet above which few packets of a client are handled in one go."""

DENSE_RUN: Final = 4
"""Packets of such a client that are handled in one go."""

DENSE_CLIENTS_REMEMBERED: Final = 1024
"""Such clients that are remembered; those seen longest ago are forgotten."""

WAITING_BYTES_PER_CLIENT: Final = 1024 * 1024
"""Bytes of datagrams of one client that wait for a later turn, twice what is read in one; beyond,
they are dropped, as a network would."""

WAITING_BYTES: Final = 8 * 1024 * 1024
"""The same of all clients."""

MAX_CRYPTO_GAPS: Final = 64
"""Out-of-order pieces buffered per CRYPTO stream: 64 KB of full packets, every other one lost."""

BYTES_PER_GAP: Final = 4096
"""Bytes of a receive window per out-of-order piece that is buffered: 256 pieces in 1 MB. Of packets
of 1200 bytes, lost at random at any rate, no more than a quarter begin a piece: one per 4800
bytes."""

ASSEMBLER_CHUNKS: Final = 64
"""Buffers that a contiguous piece of a stream is made of before they are joined into one."""

MAX_STREAMS_BIDI: Final = 128
"""Concurrent requests per connection (nginx: 128, Caddy: 250)."""

MAX_STREAMS_UNI: Final = 8
"""Unidirectional streams per client: control, two QPACK, room for grease (RFC 9114 section 6.2)."""

CONNECTION_WINDOW: Final = 4 * 1024 * 1024
"""Bytes that a client may send ahead of the origin, per connection."""

STREAM_WINDOW: Final = 1024 * 1024
"""Bytes that a client may send ahead of the origin, per stream."""

EARLY_PACKETS_HELD: Final = 16 * 1024
"""Bytes of datagrams buffered per handshake because their packets arrived before their keys: an
initial congestion window of 10 datagrams (RFC 9001 section 5.7)."""

KEY_UPDATE_PACKETS: Final = 1 << 22
"""Packets sealed with the same keys before we update them, half of what RFC 9001 section 6.6 allows
for AES-GCM: some 6 GB."""

MAX_SEALED_PACKETS: Final = (1 << 23) - (1 << 12)
"""Packets sealed with the same keys after which the connection is closed, if the peer never let us
update them: what RFC 9001 section 6.6 allows for AES-GCM, less what one call may seal."""

OLD_KEYS_PTOS: Final = 3
"""Probe timeouts after which the keys before a key update are discarded (RFC 9001 section 6.5)."""

TIMER_SLACK: Final = 0.004
"""Seconds that a deadline may move later without its timer being set anew: waking up in vain costs
more than setting it, but not than doing so at each step of a transfer."""

STALE_DEADLINES: Final = 64
"""Stale entries of the timer heap, in addition to as many as there are live ones, before it is
rebuilt: amortised constant work per deadline."""

RETRY_THRESHOLD: Final = 32
"""Half-open handshakes of unvalidated addresses per worker above which new clients must validate
theirs. At a round trip of 50 ms that is more than a worker can complete; forged Initials pin no
more than these."""

MAX_HALF_OPEN: Final = 2048
"""Half-open handshakes of unvalidated addresses per worker above which Initial packets from such
addresses are dropped; only reached when Retry is off."""

MAX_HALF_OPEN_PER_PREFIX: Final = 256
"""Half-open handshakes per /24 or /56 and worker above which its new clients receive a Retry."""

MAX_CONNECTIONS: Final = 20_000
"""Connections per worker: about 2 GB of memory."""

MAX_CONNECTIONS_PER_ADDRESS: Final = 5000
"""Connections per address and worker: a quarter of all; enough for a large office behind NAT."""

MAX_CONNECTIONS_PER_PREFIX: Final = 10_000
"""Connections per network and worker: half of all."""

MAX_PREFIX_RATES: Final = 16_384
"""Clients or networks per rate table; the least recently seen are evicted."""

FLEET_SYNC_INTERVAL: Final = 0.1
"""Seconds between exchanges of request counts with the shared store of a fleet."""

FLEET_SYNC_CONCURRENCY: Final = 16
"""Concurrent queries to that store."""

FLEET_TIMEOUT: Final = 1.0
"""Seconds that the store may take to answer."""

FLEET_CLOCK_SKEW: Final = 5.0
"""Seconds by which the wall clocks of a fleet's hosts may differ."""

FLEET_KEYS: Final = 16
"""Keys in a file of shared keys: each may be tried for every ticket that carries its name."""

SHARED_KEY_PERIOD: Final = 4 * 3600.0
"""Seconds for which a key of a directory or of Redis seals: 2**32 times (NIST SP 800-38D section
8.3) at 300 000 handshakes per second of the whole fleet."""

SHARED_KEYS_KEPT: Final = 3
"""Former keys that still open: those of 12 hours, the lifetime of tickets and tokens."""

SHARED_KEY_CHECK: Final = 30.0
"""Seconds between looks at that store."""

FLEET_STRIKES_WAITING: Final = 256
"""Connections per worker whose early data waits for the store; that of others waits for the
handshake."""

FLEET_REGISTER_CHECK: Final = 5.0
"""Seconds between checks of the store's identity."""

RENEWALS_PER_TICK: Final = 500
"""Connections per second whose IDs are replaced after a change of their key: each costs some 100
us, so that others wait for 50 ms at most."""

FLEET_HOPS: Final = 1
"""Hosts that a datagram may be forwarded to: the owner either has the connection or lost it."""

FLEET_DATAGRAMS_PER_SECOND: Final = 50_000.0
"""Messages to other hosts per worker, at 8 to 11 us each half a core (`docs/scale.md`). Beyond,
they are dropped: forwarding must leave room for the rest of the work."""

FLEET_PROBE_INTERVAL: Final = 1.0
"""Seconds between probes of each peer."""

FLEET_PROBES_MISSED: Final = 3
"""Probes without an answer after which a peer is taken to be down."""

FLEET_PEER_TIMEOUT: Final = 3.5
"""Seconds after its start from which a worker takes peers that it has not been told of to be down:
what so many probes take."""

FLEET_RESOLVE_INTERVAL: Final = 5.0
"""Seconds between look-ups of the names of peers."""

FLEET_PEERS: Final = 1024
"""Addresses of peers; each is probed once per interval."""

FLEET_ADDRESS_CHECK: Final = 10.0
"""Seconds for which a host remembers whether it has an address: a virtual one may move."""

FLEET_SENDERS_REMEMBERED: Final = 16_384
"""Sending processes whose keys and replay windows are kept: 128 hosts with 64 workers, twice."""

FLEET_REPLAY_WINDOW: Final = 1024
"""Messages by which those of one sender may overtake each other (RFC 4303 appendix A2 has 64;
paths between hosts may be many)."""

FLEET_NONCE: Final = 8
"""Bytes of the nonce in a fleet's connection IDs: random, and repeated once in 2**32."""

FLEET_MAX_SERVER_ID: Final = 10
"""Bytes of a server ID: those of 20 (RFC 9000 section 17.2) that the first one, the nonce and the
slot leave."""

REFUSAL_LOG_INTERVAL: Final = 10.0
"""Seconds between log lines about the same kind of refusal."""

CLOSES_LOGGED_PER_SECOND: Final = 10.0
"""Log lines per second and worker about connections closed for client misbehaviour: enough to see
why an honest client was closed, too few to fill a disk."""

FLOOD_SHARE: Final = 8
"""Bytes received per byte of stream data in either direction; what exceeds it is overhead (nginx
uses the same share)."""

FLOOD_BURST: Final = 4 * 1024 * 1024
"""Bytes of overhead tolerated at once on a connection."""

FLOOD_RATE: Final = 16 * 1024.0
"""Bytes of overhead per second tolerated on a connection: about 500 packets of PING or ACK."""

FLOOD_CHECK_EVERY: Final = 256 * 1024
"""Bytes received between flood checks."""

ABANDONED_PAGES: Final = 4
"""How often in a row all concurrent requests of a connection may be abandoned (CVE-2023-44487): 512
requests by default (Envoy starts at 500, nghttp2 allows 1000)."""

ABANDONED_RATE: Final = 100.0
"""Abandoned requests per second tolerated on a connection, besides one for each request that
completes (nghttp2 allows 33 per second, Envoy half of all requests)."""

ABANDONED_MIN_LIFETIME: Final = 0.1
"""Seconds after which cancelling a request no longer counts as abandoning it: the limit on
concurrent streams bounds how often that can happen (Envoy uses 1 second)."""

HEADER_TIMEOUT: Final = 10.0
"""Seconds from the first byte of a request to its complete head."""

BODY_TIMEOUT: Final = 30.0
"""Seconds over which request content must arrive at MIN_BODY_RATE."""

MIN_BODY_RATE: Final = 4.0
"""Bytes per second below which a request's content counts as a slow-body attack: attack tools send
a few bytes every ten seconds, a sensor a reading (Kestrel: 240; nginx: a byte per 60 s)."""

MESSAGE_REST: Final = 300.0
"""Seconds that a message stream (gRPC, events) may be silent before its next byte (Envoy's default
for idle streams)."""

RESPONSE_TIMEOUT: Final = 60.0
"""Seconds within which a client must take at least MIN_PROGRESS bytes of a response."""

RETRY_AFTER: Final = 1
"""Seconds after which a refused client may try again (`retry-after`)."""

KEEPALIVE_TIMEOUT: Final = 60.0
"""Seconds without a request after which a connection on TCP is closed (nginx: 75, Caddy: 300):
browsers keep theirs for longer, and connect again."""

MIN_PROGRESS: Final = 1024
"""Bytes that count as progress."""

PROGRESS_INTERVAL: Final = 1.0
"""Seconds between checks of progress deadlines and memory."""

MEMORY_TAKE_BELOW: Final = 0.9
"""Share of the memory budget below which new work is accepted again."""

MALLOC_TRIM_THRESHOLD: Final = 8 * 1024 * 1024
"""Bytes of free heap that the C library keeps before it gives the end of the heap back."""

MALLOC_MMAP_THRESHOLD: Final = 4 * 1024 * 1024
"""Bytes of a block from which it is mapped by itself: above the largest buffer of a transfer."""

MEMORY_BUDGET_SHARE: Final = 0.6
"""Share of the memory of the machine, or of the control group, for all workers together."""

MEMORY_TRIM_INTERVAL: Final = 5.0
"""Seconds between attempts to return freed memory to the system: each may take 10 ms."""

HELD_REQUEST_TIMEOUT: Final = 30.0
"""Seconds that a request waits to be started before it is refused (503)."""

MEMORY_SHED_ABOVE: Final = 1.1
"""Share of the memory budget above which connections are closed."""

MEMORY_SHED_SHARE: Final = 0.05
"""Share of the connections closed per check, those that hold most memory first."""

MAX_URI: Final = 16 * 1024
"""Bytes of a request's path and query (Caddy and nginx accept heads of 8 to 32 KB)."""

LOGGED_VALUE: Final = MAX_URI
"""Bytes of a path, an authority or a user agent that an access record shows: whole as far as the
edge serves them, and no more of what it refuses."""

RETRY_TOKEN_LIFETIME: Final = 30.0
"""Seconds; a Retry token is used at once (RFC 9000 section 8.1.4)."""

NEW_TOKEN_LIFETIME: Final = 12 * 3600.0
"""Seconds that a NEW_TOKEN token is valid and that its key seals (RFC 9000 section 8.1.3)."""

TOKEN_KEY_LIFETIME: Final = 3600.0
"""Seconds that a Retry token key seals; it opens for as long again, then it is discarded."""

TICKET_LIFETIME: Final = 12 * 3600.0
"""Seconds that a ticket is valid and its key seals (RFC 8446 section 4.6.1: at most 7 days)."""

EARLY_DATA_LIFETIME: Final = 3600.0
"""Seconds after its issue that a ticket is valid for 0-RTT, once; bounds what is remembered."""

EARLY_DATA_AGE_TOLERANCE: Final = 10.0
"""Seconds by which the client's and our age of a ticket may differ (RFC 8446 section 8.3)."""

EARLY_DATA_STRIKES: Final = 65536
"""Used 0-RTT tickets per worker and EARLY_DATA_LIFETIME; beyond that, early data is rejected."""

IDLE_TIMEOUT: Final = 60.0
"""Seconds without a packet before a connection is dropped (RFC 9000 section 10.1)."""

HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds from the first Initial to a complete handshake."""

BASE_DATAGRAM_SIZE: Final = 1200
"""Bytes; supported by every path (RFC 9000 section 14.1), where discovery starts."""

MTU_PROBE_AFTER: Final = 32 * 1024
"""Bytes sent on a path before larger datagrams are probed: a probe and its ACK cost small exchanges
more than they could gain, and a transfer nothing."""

MTU_PROBES: Final = 2
"""Lost probes of one size before a smaller one is tried (RFC 8899 section 5.1.2 allows 3)."""

MTU_RAISE_INTERVAL: Final = 600.0
"""Seconds until a larger size is probed again (RFC 8899 section 5.1.1)."""

MTU_BLACK_HOLE_FLIGHTS: Final = 3
"""Consecutive flights whose datagrams above BASE_DATAGRAM_SIZE were all lost while smaller ones got
through, before the path counts as a black hole (RFC 8899 section 4.3; quinn: 3)."""

MTU_BLACK_HOLE_COOLDOWN: Final = 60.0
"""Seconds after black hole detection until a larger size is probed again (as in quinn)."""

INITIAL_WINDOW_PACKETS: Final = 10
"""Datagrams of the first congestion window (RFC 9002 section 7.2)."""

MIN_WINDOW_PACKETS: Final = 2
"""Datagrams of the smallest congestion window (RFC 9002 section 7.2)."""

PACING_BURST: Final = 64 * 1024
"""Maximum burst in bytes: one GSO call."""

PACING_QUANTUM_BURST: Final = 256 * 1024
"""Maximum burst in bytes of a sender whose rate makes more of one quantum: some GSO calls."""

MAX_BATCH_PACKETS: Final = 44
"""Packets sealed in one pass: 64 KB of full datagrams, below the kernel's 64 segments."""

SEND_BUFFER_JOINED: Final = 1024
"""Bytes below which pieces written to a stream are joined in its send buffer: an object of Python
takes some fifty bytes of its own."""

PACE_STEPS: Final = 32
"""Pacing follows once the congestion window or the rate has changed by more than 1/PACE_STEPS."""

PACING_QUANTUM: Final = 0.001
"""Minimum seconds between bursts, so that pacing costs no timer per packet."""

HOLD_IN_FLIGHT: Final = 24 * 1024
"""Bytes in flight from which a run waits for room: sixteen full packets, of which even a receiver
that acknowledges every tenth one acknowledges some at once."""

SKIP_PACKETS_FIRST: Final = 256
"""Packets within which the first packet number is skipped, to detect optimistic ACKs (RFC 9000
section 21.4)."""

SKIP_PACKETS_MOST: Final = 128 * 1024
"""Maximum distance between skipped packet numbers; it doubles each time."""

SKIPPED_REMEMBERED: Final = 4
"""Skipped packet numbers that ACKs are compared with."""

ECN_TESTING_PACKETS: Final = 10
"""Packets marked on a path before the first is acknowledged (RFC 9000 appendix A.4)."""

ECN_TESTING_TIMEOUTS: Final = 2
"""Consecutive probe timeouts after which marking stops: the path may drop marked packets."""

ECN_BLACK_HOLE_FLIGHTS: Final = 3
"""Consecutive flights whose marked packets were all lost while unmarked ones got through, before
marking stops (RFC 9000 section 13.4.2 gives no number)."""

ECN_MARKED_RUNS: Final = 64
"""Runs of marked packet numbers remembered for validation of ECN counts; each unmarked probe starts
another, and each ACK is compared with all."""

MAX_LOST_REMEMBERED: Final = 32
"""Runs of lost packets remembered to detect spurious losses; each ACK is compared with all."""

MAX_ACK_RANGES: Final = 64
"""Received packet number ranges remembered and acknowledged."""

ACK_DELAY: Final = 0.001
"""Seconds that an ACK of 1-RTT packets waits for company: what a timer resolves."""

LONE_ACK_DELAY: Final = 0.02
"""Seconds that an ACK of a single 1-RTT packet waits, below MAX_ACK_DELAY by what timers may be
late: the response to the request in it mostly comes sooner and takes the ACK along. A second
packet is acknowledged promptly (RFC 9000 section 13.2.2)."""

MAX_ACK_DELAY: Final = 25
"""Milliseconds that we declare as the longest such wait (RFC 9000 section 18.2, its default)."""

ACK_DELAY_EXPONENT: Final = 3
"""Power of two of the microseconds in which ACK delays are encoded (RFC 9000 section 18.2)."""

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
"""Stateless resets per second and worker, so that unknown packets cannot be used for reflection."""

ROSTER_ROWS: Final = 65_536
"""Clients per worker that are reset when it dies; others are reset when they next send. A row
has 64 bytes and takes memory once it is used."""

RESET_BURST: Final = 128
"""Such resets sent per turn of the supervisor's loop: about a millisecond."""

RESET_REPEAT_AFTER: Final = 0.3
"""Seconds until they are repeated, in case the first was lost."""

RESETS_TIMEOUT: Final = 2.0
"""Seconds that the supervisor waits for resets to be sent before it closes the sockets."""

UNSOLICITED_RESET_SIZE: Final = 64
"""Maximum bytes of an unsolicited reset: it looks like any small packet."""

REFUSALS_PER_SECOND: Final = 200
"""CONNECTION_REFUSED packets per second and worker; each costs a key derivation."""

VERSION_NEGOTIATIONS_PER_SECOND: Final = 1000
"""Version Negotiation packets per second and worker, against reflection."""

SEND_BUFFER_HIGH: Final = 256 * 1024
"""Unsent bytes per stream above which reading from the origin pauses."""

SEND_BUFFER_LOW: Final = 64 * 1024
"""Unsent bytes per stream below which reading from the origin resumes."""

SEND_BUFFER_CONNECTION: Final = 1024 * 1024
"""Unsent bytes per connection above which each stream buffers no more than SEND_BUFFER_FLOOR: many
parallel responses need no more than the connection can send meanwhile."""

SEND_BUFFER_FLOOR: Final = 16 * 1024
"""Unsent bytes per stream above which reading from the origin pauses while the connection or its
client is at its share: every stream still makes progress."""

# --- http -----------------------------------------------------------------------------------

MAX_FIELD_SECTION_SIZE: Final = 65536
"""Bytes of a decoded field section: name + value + 32 per field (RFC 9114 section 4.2.2)."""

MAX_FIELDS: Final = 128
"""Field lines per section, all Cookie lines counting as one (RFC 9114 section 4.2.1)."""

MAX_COOKIE_CRUMBS: Final = 512
"""Cookie lines per section, besides MAX_FIELDS, that may refer to QPACK's dynamic table: browsers
keep 180 cookies per site and send each on a line of its own (RFC 9114 section 4.2.1)."""

H3_SECTIONS_REMEMBERED: Final = 512
"""Field sections of HTTP/3 requests that are remembered per worker, decoded and validated."""

H3_REMEMBERED_SECTION: Final = 2048
"""Bytes of such a section as it is encoded: with what it is decoded to, at most 8 MB in all."""

QPACK_STATIC_UNCOUNTED: Final = 4096
"""Bytes of an encoded field section without references to the dynamic table up to which its lines
are not counted before it is decoded, to at most a megabyte."""

MAX_QPACK_STRING: Final = 65535
"""Bytes of a field name or value that pylsqpack can decode or encode."""

H3_OVERHEAD_BURST: Final = 1000
"""Frames and streams without content (unknown types, empty DATA, PRIORITY_UPDATE, MAX_PUSH_ID)
tolerated as a burst per HTTP/3 connection (HAProxy counts them as glitches)."""

H3_OVERHEAD_RATE: Final = 100.0
"""Such frames per second tolerated per connection."""

H3_OVERHEAD_PER_REQUEST: Final = 8
"""Such frames allowed per request: Chromium sends one or two PRIORITY_UPDATE frames, others send
reserved frames and an empty DATA."""

MAX_CONTROL_FRAME: Final = 4096
"""Bytes of a frame on the control stream."""

H1_PIPELINED: Final = 64 * 1024
"""Bytes that a client may send ahead of the request that is being answered, before reading from its
connection stops."""

H1_UNTAKEN_HIGH: Final = 256 * 1024
"""Bytes of request content not taken by the origin from which reading from the client pauses."""

H1_UNTAKEN_LOW: Final = 64 * 1024
"""The same, below which it resumes."""

H1_WRITE_SIZE: Final = 64 * 1024
"""Response bytes written immediately rather than at the end of the event loop iteration."""

H1_DRAINED: Final = 64 * 1024
"""Bytes of a refused request, still to come, that are read and dropped so that its connection
persists."""

DELIVERY_CHECK_FIRST: Final = 0.005
"""Seconds after a long response until the kernel is first asked whether the client has all."""

DELIVERY_CHECK_LAST: Final = 1.0
"""Maximum seconds between such questions; they double each time."""

H1_REMEMBERED_BLOCKS: Final = 1024
"""Validated field sections of HTTP/1.1 requests that are remembered per worker: a client repeats
most of them."""

H1_REMEMBERED_BLOCK: Final = 4096
"""Bytes of a field section that is remembered: at most 4 MB in all."""

H1_REMEMBERED_LINES: Final = 4096
"""Validated request lines that are remembered per worker."""

H1_REMEMBERED_LINE: Final = 256
"""Bytes of a request line that is remembered: at most 1 MB in all."""

H1_PIECE: Final = 2048
"""Bytes per chunk, on average, below which the chunks of a read are joined before they are
forwarded."""

H1_CHUNK_LINE: Final = 256
"""Bytes of the line before a chunk, extensions included; known clients send none."""

H1_CHUNK_BURST: Final = 4096
"""Chunks of an HTTP/1.1 request, beyond their share, that are decoded at once: 4 ms of work."""

H1_CHUNK_RATE: Final = 2000.0
"""Chunks per second and connection that may be of any size: readings of a few bytes, each sent by
itself."""

H1_CHUNK_SHARE: Final = 16
"""Bytes of content per chunk from which chunks may come at any rate."""

H2_MAX_FRAME_SIZE: Final = 16_384
"""Bytes of a frame's payload that we accept: the least that RFC 9113 section 4.2 allows, so that a
frame of one stream never delays those of others for long."""

H2_HEADER_TABLE: Final = 4096
"""Bytes of the HPACK tables in either direction: the default of RFC 7541, whatever a client
offers; each connection holds two."""

H2_MAX_STRING: Final = 65_535
"""Bytes of a field name or value that are decoded; longer ones make the section too large."""

H2_SECTION_FACTOR: Final = 2
"""Header blocks up to this multiple of the allowed section size, encoded and decoded, are answered
431; larger ones are not decoded and end the connection, whose HPACK state is lost with them."""

H2_CACHED_SECTIONS: Final = 16
"""Decoded header blocks remembered per connection: clients repeat themselves."""

H2_CACHED_BLOCK: Final = 1024
"""Bytes of a header block that is remembered."""

H2_CACHED_FIELDS: Final = 64
"""Encoded response fields remembered per connection."""

H2_OVERHEAD_BURST: Final = 1000
"""Frames without content (PING, SETTINGS, WINDOW_UPDATE, PRIORITY, CONTINUATION, empty DATA,
unknown types, ...) tolerated as a burst per HTTP/2 connection, as H3_OVERHEAD_BURST."""

H2_OVERHEAD_RATE: Final = 100.0
"""Such frames per second tolerated per connection."""

H2_OVERHEAD_PER_REQUEST: Final = 8
"""Such frames allowed per request: its priority, resets, window updates for its response."""

H2_OVERHEAD_PER_DATA: Final = 4
"""Such frames allowed per DATA frame in either direction: WINDOW_UPDATE for stream and connection,
and a PING to measure the bandwidth (gRPC)."""

H2_BYTES_PER_UPDATE: Final = 256
"""Bytes of a DATA frame that was cut short by the client's window per such frame allowed: windows
of a few bytes make us send a frame for each."""

H2_FRAMES_PER_TURN: Final = 256
"""Frames of one client per event loop iteration, as UPSTREAM_H2_FRAMES_PER_TURN."""

H2_EARLY_RESPONSE_LEAD: Final = 0.1
"""Seconds between an early response and the reset that stops the rest of its request: a client that
gets both at once may report the reset alone (curl 7.88)."""

H2_RESETS_REMEMBERED: Final = 256
"""Streams per connection that we have reset, or that are over, whose late frames are recognised."""

H2_WRITE_HIGH: Final = 256 * 1024
"""Bytes waiting for a client's socket above which no more DATA is written."""

H2_WRITE_LOW: Final = 64 * 1024
"""Bytes waiting for a client's socket below which DATA is written again."""

H2_UNSENT_FRAMES: Final = 2 * 1024 * 1024
"""Bytes of heads and control frames that may wait for a client that does not read: MAX_STREAMS_BIDI
response heads of 16 KB each."""

# --- proxy ----------------------------------------------------------------------------------

REQUEST_END_WAIT: Final = 5.0
"""Seconds that a GET (or another method that usually has no content) waits for the end of its
stream before it is forwarded with a body of unknown length: several PTOs of a slow path."""

ALT_SVC_MAX_AGE: Final = 86400
"""Seconds that a client may cache Alt-Svc (RFC 7838 section 3.1)."""

ALT_SVC_PATIENCE: Final = 300.0
"""Default of `alt_svc.patience` in seconds: browsers try HTTP/3 at their next connection, and come
back to a broken one after five minutes."""

ALT_SVC_PATIENCE_MIN: Final = 1.0
"""Minimum of `alt_svc.patience` in seconds: a handshake over a bad path, and a worker's report."""

ALT_SVC_PATIENCE_MAX: Final = 86400.0
"""Maximum of `alt_svc.patience` in seconds: clients remember no longer by default."""

ALT_SVC_ENOUGH: Final = 20
"""Networks to whose clients HTTP/3 was advertised and none arrived, before it is withdrawn: one
network that drops UDP says nothing about the others."""

ALT_SVC_CERTAINTY: Final = 7.0
"""As many times the usual number of networks per arrival must get the advertisement in vain: by
chance that happens once in a thousand times (exp(-7))."""

ALT_SVC_MOST: Final = 2000
"""Networks without an arrival that are enough however rarely clients arrive."""

ALT_SVC_RETRY: Final = 600.0
"""Seconds from the withdrawal of Alt-Svc to the first trial."""

ALT_SVC_TRIAL_SHARE: Final = 20
"""HTTP/3 is advertised to one client in so many during a trial."""

ALT_SVC_TRIAL_PERIOD: Final = 600.0
"""Seconds until other clients are on trial: a few connections of a browser."""

ALT_SVC_ARRIVAL_MEMORY: Final = 3600.0
"""Seconds for which an arrived client counts as one that can speak HTTP/3."""

ALT_SVC_TABLE: Final = 16384
"""Client addresses remembered per listener, with and without an arrival: 1 to 2 MB each."""

ALT_SVC_REPORT_MAX: Final = 1024
"""Client addresses per listener in one report of a worker, about one per second; others are not
counted."""

ALT_SVC_CHECK_INTERVAL: Final = 5.0
"""Seconds between checks of whether clients have arrived."""

DNS_DEADLINE: Final = 2.0
"""Seconds in which all HTTPS records of a `quicedge check` are looked up, or not."""

DNS_TRIES: Final = 3
"""Queries for one name within that time: resolvers answer from their cache or within a second."""

DNS_MAX_RESPONSE: Final = 4096
"""Bytes of a DNS response that are read: more than resolvers send over UDP."""

DISCOVERY_MIN_TTL: Final = 1.0
"""Seconds between look-ups of the servers of an upstream, at least: Consul's records have a TTL of
0 by default."""

DISCOVERY_MAX_TTL: Final = 300.0
"""Seconds between them, at most: a record of a day must not hide a move for a day."""

DISCOVERY_JITTER: Final = 0.1
"""Share of that time by which a look-up may be late, so that workers do not ask in step."""

DISCOVERY_RETRY: Final = 1.0
"""Seconds until a failed look-up is repeated; twice as many after each further one."""

DISCOVERY_MAX_RETRY: Final = 30.0
"""Seconds of that, at most."""

DISCOVERY_LOOK_UP: Final = 10.0
"""Seconds for one look-up, with all addresses of the targets of a service."""

DISCOVERY_QUERY: Final = 5.0
"""Seconds for the records of one name and type, of all resolvers (resolv.conf(5): `timeout`)."""

DISCOVERY_TRY: Final = 2.0
"""Seconds until the next resolver is asked."""

DISCOVERY_QUERIES: Final = 8
"""Queries per upstream and worker at once: a service of many servers must not flood a resolver."""

DISCOVERY_UDP_SIZE: Final = 1232
"""Bytes of a response over UDP: one packet on any path (DNS Flag Day 2020); others come by TCP."""

DISCOVERY_ANSWER: Final = 16 * 1024
"""Bytes of a response over TCP: SRV records of DISCOVERY_SERVERS targets whose names have 40
characters. A longer one is refused."""

DISCOVERY_SERVERS: Final = 256
"""Servers that one name may stand for; the first of more are used, the same by every worker."""

DISCOVERY_RECORDS: Final = 1024
"""Names and types per upstream and worker whose records are kept: two for each server, and room."""

DISCOVERY_LEAST_WEIGHT: Final = 0.01
"""Weight of servers with that of 0 in their SRV record: a very small chance beside others (RFC
2782)."""

DISCOVERY_SHOWN: Final = 8
"""Servers that are named when a change is logged."""

HTTPS_RECORD_TTL: Final = 3600
"""Seconds of life of the HTTPS records that `quicedge check` suggests."""

HTTPS_RECORD_NAMES: Final = 64
"""Hosts whose HTTPS records one `quicedge check` looks up; of others it says what to publish."""

TUNNEL_IDLE_TIMEOUT: Final = 3600.0
"""Seconds without a byte in either direction after which a tunnel (WebSocket) ends (HAProxy's
documentation: `timeout tunnel 1h`): pings every minute keep it open, forgotten ones end."""

TUNNEL_HALF_CLOSED: Final = 60.0
"""Seconds without a byte that a tunnel may stay half-closed: one side has nothing more to say."""

TUNNEL_CLOSE_TIMEOUT: Final = 5.0
"""Seconds that the peers of a tunnel have for the closing handshake once it has begun, or to end
their half once the other side has closed (several round trips of a bad mobile path)."""

TUNNEL_DRAIN_SPREAD: Final = 10.0
"""Maximum seconds over which a draining worker closes its WebSockets, so that their clients do not
reconnect all at once; half of the drain timeout if that is less."""

TUNNEL_FRAMES_PER_READ: Final = 4096
"""WebSocket frames in one read (up to 256 KB) above which frames are no longer followed: a
millisecond of work. Messages of 64 bytes on average stay below it."""

NEVER_TUNNELLED: Final = frozenset(("h2", "h2c", "h3", "http", "tls"))
"""Protocols that clients never switch to: they would hide requests from routing, policy and logs
(h2c smuggling), or end at the edge."""

MAX_TUNNELS: Final = 10_000
"""Tunnels per route and worker; an idle one takes 10 KB (HTTP/3 to HTTP/1.1, measured) and a
connection to the origin."""

# --- upstream -------------------------------------------------------------------------------

UPSTREAM_JOINED: Final = 64 * 1024
"""Bytes of a request up to which pieces are joined for one write to an HTTP/1.1 origin; more are
written from where they are."""

UPSTREAM_CONNECT_TIMEOUT: Final = 5.0
"""Seconds for TCP and TLS to an origin."""

UPSTREAM_FIRST_BYTE_TIMEOUT: Final = 60.0
"""Seconds until an origin's response head (nginx: proxy_read_timeout)."""

UPSTREAM_IDLE_TIMEOUT: Final = 60.0
"""Seconds between reads of a response."""

UPSTREAM_KEEPALIVE_TIMEOUT: Final = 60.0
"""Seconds that an idle origin connection is kept open."""

UPSTREAM_KEEPALIVE_IDLE: Final = 60
"""Seconds without a segment until the kernel probes an origin's connection (TCP_KEEPIDLE)."""

UPSTREAM_KEEPALIVE_INTERVAL: Final = 10
"""Seconds between such probes (TCP_KEEPINTVL)."""

UPSTREAM_KEEPALIVE_PROBES: Final = 6
"""Unanswered probes after which the connection is dead (TCP_KEEPCNT): two minutes in all."""

UPSTREAM_MAX_CONNECTIONS: Final = 256
"""HTTP/1.1 connections per server and worker."""

UPSTREAM_RETRIES: Final = 1
"""Retries of a request that no origin has processed."""

UPSTREAM_RECHECK: Final = 2.0
"""Seconds between connection attempts to an unreachable server."""

UPSTREAM_HEALTH_INTERVAL: Final = 5.0
"""Seconds between health checks of a server, and until the answer to one."""

BALANCE_BOUND: Final = 1.25
"""Times its share of the running requests that a server may have before a hashed key goes to the
next one: HAProxy's usual hash-balance-factor."""

SPLIT_GROUPS: Final = 10_000
"""Groups of clients that a split divides among upstreams: shares in steps of 0.01 %, as those of
nginx's split_clients."""

SPLIT_STEP: Final = 6181
"""Groups from one turn of a split to the next: the golden section of SPLIT_GROUPS, which spreads
turns evenly however many there are, and prime to it, so that all come before any comes again."""

SPLIT_SIDES: Final = 100
"""Upstreams of one split."""

SPLITS_REMEMBERED: Final = 64
"""Different divisions of the groups that are kept, 10 KB each: routes mostly have the same."""

LATENCY_HALF_LIFE: Final = 10.0
"""Seconds after which a measured latency counts half."""

LATENCY_UNKNOWN: Final = 60.0
"""Seconds that each request is expected to take on a server that has not answered any yet: one
request finds out how fast it is, not all of them."""

LATENCY_OF_FAILURE: Final = 1.0
"""Seconds that a request without a response counts as, at least: failing fast must attract none."""

RETRY_BUDGET_BURST: Final = 20
"""Retries per upstream and worker beyond the budget: the restart of a server with few requests."""

RETRY_BUDGET: Final = 0.2
"""Retries as a share of the requests of an upstream: Finagle's default."""

HEDGE_SHARE: Final = 0.1
"""Second attempts as a share of the requests: twice what the usual quantile, the 95th, asks for."""

HEDGE_SAMPLES: Final = 512
"""Requests whose times are kept for a quantile, per upstream or route."""

HEDGE_MIN_SAMPLES: Final = 100
"""Times below which a quantile is not known: one in twenty is beyond the 95th."""

HEDGE_REFRESH: Final = 32
"""Requests between two computations of a quantile, which take 30 us each."""

BREAKER_FAILURES: Final = 0.5
"""Share of failed requests from which on a circuit opens: the default of resilience4j."""

BREAKER_WINDOW: Final = 10.0
"""Seconds over which requests are counted: the default of Hystrix."""

BREAKER_SLICES: Final = 10
"""Parts of that window, which expire one by one."""

BREAKER_NETWORKS: Final = 256
"""Networks of clients whose requests are counted apart in that window; others are one."""

BREAKER_SUSPECT_WAIT: Final = 1.0
"""Seconds by which a network whose trial has failed, or takes long, waits longer for the next one
than others."""

BREAKER_MIN_REQUESTS: Final = 20
"""Requests in the window below which a circuit stays closed: the default of Hystrix."""

BREAKER_OPEN: Final = 5.0
"""Seconds that a circuit stays open the first time: the default of Hystrix."""

BREAKER_PROBES: Final = 5
"""Requests in a row that must succeed until a circuit is closed again."""

OUTLIER_FAILURES: Final = 5
"""Failed requests in a row after which a server is ejected: Envoy's default."""

OUTLIER_EJECTION: Final = 30.0
"""Seconds of the first ejection: Envoy's default."""

SLOW_START_SHARE: Final = 0.1
"""Share of its requests that a server gets at the beginning of a slow start."""

EJECTIONS_COUNTED: Final = 10
"""Ejections, or openings of a circuit, in a row by whose number the time is multiplied, at most."""

EJECTION_FORGOTTEN: Final = 300.0
"""Seconds of good answers after which earlier ejections, or openings of a circuit, no longer
count."""

UPSTREAM_CHECK_FALL: Final = 2
"""Consecutive failed checks after which a server is taken out; one that passes brings it back."""

UPSTREAM_MAX_WAITING: Final = 1024
"""Requests per server that wait for a connection, or `max_connections` if that is more; further
ones are refused (503)."""

UPSTREAM_SPARE_DEADLINES: Final = 1024
"""Timers per upstream that wait for the next request: as many as requests usually run at once."""

UPSTREAM_QUEUE_TIMEOUT: Final = 10.0
"""Seconds that a request waits for a connection, in addition to the connect timeout."""

UPSTREAM_REPLAY_BODY: Final = 64 * 1024
"""Request body bytes kept for retries."""

UPSTREAM_CONTINUE_TIMEOUT: Final = 1.0
"""Seconds that a body waits for 100 (Continue) before it is sent anyway."""

UPSTREAM_WRITE_HIGH: Final = 256 * 1024
"""Bytes waiting for an origin's socket above which reading from the client pauses."""

UPSTREAM_WRITE_LOW: Final = 64 * 1024
"""Bytes waiting for an origin's socket below which reading from the client resumes."""

UPSTREAM_MAX_HEAD: Final = 256 * 1024
"""Bytes of a response head or trailer section."""

UPSTREAM_LINES_REMEMBERED: Final = 1024
"""Validated field lines of HTTP/1.1 responses that are remembered per worker: origins repeat most
of theirs."""

UPSTREAM_REMEMBERED_LINE: Final = 256
"""Bytes of such a line: at most 0.5 MB in all."""

UPSTREAM_HEADS_REMEMBERED: Final = 256
"""Heads of small HTTP/1.1 responses that are remembered per worker, as they were read."""

UPSTREAM_REMEMBERED_HEAD: Final = 1024
"""Bytes of such a head: with its fields, at most 1 MB in all."""

UPSTREAM_MAX_FIELDS: Final = 512
"""Field lines of a response head or trailer section."""

UPSTREAM_INTERIM_BURST: Final = 64
"""Interim (1xx) responses tolerated as a burst per request: one Early Hints response per field, and
then some."""

UPSTREAM_INTERIM_RATE: Final = 20.0
"""Interim responses per second and request, sustained: ten times what progress reports to a person
take, and little CPU time."""

UPSTREAM_H2_STREAM_WINDOW: Final = 256 * 1024
"""Bytes that an HTTP/2 origin may send ahead of the client, per stream."""

UPSTREAM_H2_CONNECTION_WINDOW: Final = 16 * 1024 * 1024
"""Bytes that an HTTP/2 origin may send ahead of its clients, per connection."""

UPSTREAM_H2_CONNECTIONS: Final = 8
"""HTTP/2 connections per server and worker."""

UPSTREAM_H2_MAX_STREAMS: Final = 100
"""Concurrent requests per HTTP/2 connection, even if the origin allows more."""

UPSTREAM_H2_HEADER_TABLE: Final = 4096
"""Bytes of our HPACK encoder's table: the default of RFC 7541, whatever the origin offers."""

UPSTREAM_PROBE_TIMEOUT: Final = 5.0
"""Seconds that an HTTP/2 origin has to answer a PING after a request timed out unanswered."""

UPSTREAM_TERMINATE_TIMEOUT: Final = 1.0
"""Seconds that a stopping worker waits for terminated origin connections to be gone."""

UPSTREAM_CLOSE_TIMEOUT: Final = 5.0
"""Seconds that an HTTP/2 origin has to take pending data when its connection closes."""

UPSTREAM_H2_FLOOD_BURST: Final = 1000
"""No-op frames (PING, SETTINGS, empty DATA, ...) tolerated as a burst from an HTTP/2 origin."""

UPSTREAM_H2_FLOOD_RATE: Final = 100.0
"""Such frames per second, besides eight per unit of useful work (HAProxy: glitches)."""

UPSTREAM_H2_FRAMES_PER_TURN: Final = 256
"""Frames of one HTTP/2 origin connection that are handled per event loop iteration: 3 ms of it. The
256 KB that are read at once hold fewer, unless most are below 1 KB."""

APP_MAX_REQUESTS: Final = 1000
"""Calls of an application in one worker; further requests wait."""

WSGI_THREADS: Final = 10
"""Threads per worker that run a WSGI application: further requests wait for one."""

APP_STARTUP_TIMEOUT: Final = 20.0
"""Seconds that the startup of an application may take, unless the configuration says otherwise."""

APP_SHUTDOWN_TIMEOUT: Final = 2.0
"""Seconds that the shutdown of an application may take; less than STOP_GRACE."""

APP_WEBSOCKET_MAX_MESSAGE: Final = 16 * 1024 * 1024
"""Bytes of a message from a client, decompressed; beyond: close with 1009. As uvicorn's default."""

APP_WEBSOCKET_PING_INTERVAL: Final = 20.0
"""Seconds between two pings to the client of an application; one without any answer until the next
ends the WebSocket. As uvicorn's default."""

STATIC_READ_SIZE: Final = 64 * 1024
"""Bytes per read of a file: a GSO batch, and the whole of most pages."""

STATIC_MAX_OPEN: Final = 512
"""Open files per root, half of MIN_DESCRIPTORS; further requests wait."""

STATIC_MAX_DEPTH: Final = 64
"""Depth of directories below a root that are served."""

STATIC_MAX_LINKS: Final = 40
"""Symbolic links followed per lookup, as in Linux (path_resolution(7))."""

# --- worker, supervisor, admin ----------------------------------------------------------------

MIN_DESCRIPTORS: Final = 1024
"""Open files that a worker should be allowed: its origin connections and some."""

DRAIN_NOTICE: Final = 0.5
"""Seconds between the two GOAWAY frames: a round trip to most clients."""

DRAIN_TIMEOUT: Final = 30.0
"""Seconds that exchanges in progress have to finish after SIGTERM."""

UPGRADE_DRAIN: Final = 3600.0
"""Seconds that requests in progress have at workers whose successors serve already: nobody waits
for their end."""

CLOSING_LINGER: Final = 1.0
"""Seconds that a drained worker still answers clients who missed its CONNECTION_CLOSE: the closing
period (RFC 9000 section 10.2), three probe timeouts, at round trips of up to 100 ms or so."""

STOP_GRACE: Final = 3.0
"""Seconds that a worker has to exit after the drain timeout, before SIGKILL."""

STATE_FILE_MAX: Final = 1024 * 1024
"""Bytes of a file in the state directory: secrets, keys and certificates are far smaller."""

CERTIFICATE_EXPIRY_WARNING: Final = 14 * 86400.0
"""Seconds before a certificate's expiry from which on warnings are logged: half of what a Let's
Encrypt certificate has left when it is due for renewal."""

PEM_POLL_INTERVAL: Final = 5.0
"""Seconds between looks at the files of certificates; a look costs microseconds."""

CERTIFICATE_CHECK_INTERVAL: Final = 86400.0
"""Seconds between checks of certificate expiry."""

PORT_ATTEMPTS: Final = 16
"""Attempts to find a port that is free for both UDP and TCP, when the configuration says 0."""

MAX_WORKERS: Final = 64
"""Workers per edge: two generations share the 128 slots of connection IDs."""

MAX_DURATION: Final = 10 * 365 * 86400.0
"""Maximum duration in seconds, ten years: anything longer is a wrong unit."""

MAX_VARINT: Final = (1 << 62) - 1
"""The largest QUIC variable-length integer (RFC 9000 section 16)."""

CONFIG_MAX_SIZE: Final = 4 * 1024 * 1024
"""Bytes of a configuration file; a larger one is something else."""

WORKER_START_TIMEOUT: Final = 30.0
"""Seconds from spawn to `ready`: an interpreter, imports and certificates on a loaded machine."""

FORK_MESSAGE_MAX: Final = 4096
"""Bytes of a message between the supervisor and its fork server."""

FORK_DESCRIPTORS: Final = 253
"""File descriptors per message on a unix socket (SCM_MAX_FD of Linux)."""

HANDOVER_MAX: Final = 1024 * 1024
"""Bytes of a message between two supervisors, or of a worker to its next one: a few hundred per
listening address."""

HANDOVER_DESCRIPTORS: Final = 200
"""Descriptors per message; Linux takes 253."""

HANDOVER_TIMEOUT: Final = 10.0
"""Seconds that a supervisor waits for the other's message at a handover."""

UPGRADE_TIMEOUT: Final = 90.0
"""Seconds until a new program must serve: an interpreter, and thrice the time of a worker's start
on a loaded machine."""

ADOPTION_TIMEOUT: Final = 5.0
"""Seconds that a worker and its next supervisor wait for each other's messages."""

ADOPTION_RETRY: Final = 0.02
"""Seconds between attempts to adopt a worker that has not noticed yet that it is an orphan."""

ORPHAN_PATIENCE: Final = 300.0
"""Seconds that a worker without a supervisor serves on. Service managers restart one in seconds;
where nobody does, workers should not serve for ever what nobody can change."""

WORKER_BACKOFF_MIN: Final = 0.1
"""Seconds before a dead worker is first replaced; doubles with each early death."""

WORKER_BACKOFF_MAX: Final = 10.0
"""Maximum seconds between attempts to start a worker that keeps dying."""

WORKER_STABLE: Final = 30.0
"""Seconds that a worker must live for the backoff to be reset."""

WORKER_FAILED_STARTS: Final = 3
"""Consecutive failed worker starts after which the last reload is reverted."""

WORKER_HEARTBEAT: Final = 10.0
"""Seconds between heartbeats of a worker, and until the answer to each."""

WORKER_HEARTBEATS_MISSED: Final = 6
"""Consecutive unanswered heartbeats (two minutes) after which a hung worker is replaced."""

CONTROL_MESSAGE_MAX: Final = 16 * 1024 * 1024
"""Bytes per control message: ADMIN_MAX_ROWS connection snapshots of 2 to 3 KB."""

CONTROL_MAX_PENDING: Final = 16
"""Calls in progress per control channel; more are refused, not queued."""

CONTROL_TIMEOUT: Final = 5.0
"""Seconds that an answer on the control channel may take."""

COMMAND_MAX: Final = 64 * 1024
"""Bytes of a request on the control socket."""

COMMAND_REQUEST_TIMEOUT: Final = 5.0
"""Seconds that a client of the control socket may take for its request, and to read the reply."""

COMMAND_LAST_REPLIES: Final = 0.5
"""Seconds that an edge that ends gives the commands in progress for their replies."""

COMMANDS_AT_ONCE: Final = 16
"""Commands in progress on the control socket; more are refused."""

ADMIN_DEFAULT_ROWS: Final = 100
"""Connections per page by default."""

ADMIN_MAX_ROWS: Final = 4000
"""Maximum offset + limit of a page: what a worker may have to sort, copy and send at once."""

ADMIN_MAX_CONCURRENCY: Final = 32
"""Concurrent admin connections: a new one replaces the one that has waited longest for its request;
requests are answered 503 only while all connections are being answered."""

ADMIN_MAX_REQUEST: Final = 512 * 1024
"""Bytes per admin request, head and content: a configuration with two thousand routes."""

ADMIN_REQUEST_TIMEOUT: Final = 10.0
"""Seconds from the start of an admin connection, or the first byte of a later request, to the end
of that request."""

ADMIN_SEND_TIMEOUT: Final = 30.0
"""Seconds that a client may leave an admin response unread once it no longer fits into buffers; a
dashboard in a background tab keeps reading."""

ADMIN_MAX_EVENT_STREAMS: Final = 16
"""Concurrent server-sent event streams."""

ADMIN_EVENT_INTERVAL_MIN: Final = 0.1
ADMIN_EVENT_INTERVAL_MAX: Final = 60.0
"""Bounds of the seconds between events of such a stream."""

ADMIN_KEEPALIVE_TIMEOUT: Final = 5
"""Seconds that an idle admin connection is kept open."""

GC_THRESHOLDS: Final = (20_000, 20, 20)
"""Thresholds of `gc.set_threshold` for workers; the defaults, 700, 10, 10, cost a handshake and a
small request a tenth of their time."""

# --- telemetry --------------------------------------------------------------------------------

ROUTES_FROM_ZERO: Final = 500
"""Most routes whose metric series all exist from the start: those of a route take 5 KB of a scrape.
With more routes, series appear with the first request."""

LOG_BUFFER: Final = 4 * 1024 * 1024
"""Bytes of log lines waiting for the disk; further lines are dropped and counted."""

LOG_WRITE_SIZE: Final = 64 * 1024
"""Bytes of waiting access records that trigger a write before the timer."""

LOG_FLUSH_INTERVAL: Final = 0.25
"""Seconds that an access record waits for the batch to fill."""

LOG_CLOSE_TIMEOUT: Final = 2.0
"""Seconds that a process waits at exit for its last log lines to be written."""

COMPARISON_CONNECTIONS: Final = 256
"""Recent connections per protocol and worker that protocols are compared by: enough for a 95th
percentile, 100 KB."""

COMPARISON_ENOUGH: Final = 30
"""Connections from which on medians are shown without a warning; of fewer, a 95th percentile is
hardly more than the maximum."""

COMPARISON_GOODPUT_BYTES: Final = 256 * 1024
COMPARISON_GOODPUT_SECONDS: Final = 0.01
"""Acknowledged bytes, and seconds of sending, from which on a connection has a goodput: what fits
into the first windows says more of the round trip than of the rate."""

COMPARISON_LOSS_PACKETS: Final = 50
"""Packets sent from which on a connection has a loss ratio: one of 50 is 2%."""
