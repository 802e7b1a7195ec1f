"""What is known of why a peer fails a case with quicedge, so that a hole in the table tells whose.

Each was read from captures, logs or the peer's own words. Exit code 127 needs no explanation: the
peer's program does not have the case.
"""

from __future__ import annotations

from collections.abc import Mapping

_QH3_SERVER = "qh3's server raises `packet builder capacity exhausted` in its own code"
_GTLS_SERVER = "gtlsserver does the same to its own client"
_ONE_PATH = "the client does not move to a preferred address"

PEER_FAULTS: Mapping[tuple[str, str, str], str] = {
    # (client, server, case)
    ("qh3", "quicedge", "retry"): "forbidden by RFC 9000 section 17.2.5.3",
    ("gtls", "quicedge", "zerortt"): (
        "no request among them: three padded probes of ngtcp2 for a larger datagram"
    ),
    ("gtls", "quicedge", "handshakecorruption"): "gtlsclient gave up after 30 seconds",
    ("quic-go", "quicedge", "connectionmigration"): _ONE_PATH,
    ("qh3", "quicedge", "connectionmigration"): _ONE_PATH,
    ("quic-go", "quicedge", "versionnegotiation"): (
        "the client looks for words that quic-go no longer uses; the negotiation is right"
    ),
    ("qh3", "quicedge", "v2"): (
        "its hello has two datagrams, and it takes no version 2 once the first was acknowledged in "
        "version 1 (RFC 9369 section 4.1)"
    ),
    ("quicedge", "qh3", "amplificationlimit"): _QH3_SERVER,
    ("quicedge", "qh3", "v2"): _QH3_SERVER,
    ("quicedge", "qh3", "rebind-port"): _QH3_SERVER,
    ("quicedge", "qh3", "rebind-addr"): _QH3_SERVER,
    ("quicedge", "qh3", "handshakeloss"): _QH3_SERVER,
    ("quicedge", "qh3", "handshakecorruption"): _QH3_SERVER,
    ("quicedge", "gtls", "rebind-port"): _GTLS_SERVER,
    ("quicedge", "gtls", "connectionmigration"): _GTLS_SERVER,
    ("quicedge", "gtls", "handshakeloss"): (
        "gtlsserver gave up after ten seconds, with all lost that it had sent; it has 60 since"
    ),
    ("gtls", "quicedge", "v2"): "ngtcp2 0.12 knows a draft's version 2 alone",
    ("quicedge", "gtls", "v2"): "ngtcp2 0.12 knows a draft's version 2 alone",
}
