"""The cases of the interop runner: what is asked of each side, over which link, and what counts.

Names, TESTCASE values, files and scenarios are the runner's own (quic-interop-runner,
`testcases_quic.py`); `interop/runner/checks` holds what counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from interop.runner.checks import Check, common, handshake, paths, resumption, transport

KB, MB = 1024, 1024 * 1024
SIMPLE = "simple-p2p --delay=15ms --bandwidth=10Mbps --queue=25"
_LINK = SIMPLE.removeprefix("simple-p2p ")
_HEAVY = "--rate_to_server=30 --rate_to_client=30 --burst_to_server=3 --burst_to_client=3"
_LIGHT = "--rate_to_server=2 --rate_to_client=2 --burst_to_server=3 --burst_to_client=3"


@dataclass(frozen=True)
class Case:
    """One test case. `files` are sizes in bytes; `server` and `client` the TESTCASE values."""

    name: str
    abbr: str
    desc: str
    files: tuple[int, ...]
    checks: tuple[Check, ...]
    server: str = "transfer"
    client: str = "transfer"
    scenario: str = SIMPLE
    timeout: float = 60.0
    host: str = "server4"
    name_length: int = 10
    chain_length: int = 1
    loopback: bool = False
    """Worth running with no link emulation and no capture: files and exit codes say enough."""
    measured: bool = False
    cross_traffic: bool = False


_ONE = (common.handshakes(1), common.version_1, common.files)
_HANDSHAKE = (*_ONE, common.no_retry)
_MANY = (common.handshakes(50), common.version_1, common.files)
_REBIND = (common.key_log, *_ONE, paths.new_paths_validated)

CASES: tuple[Case, ...] = (
    Case(
        "handshake",
        "H",
        "A handshake without Retry, one small file.",
        (KB,),
        _HANDSHAKE,
        *("handshake", "handshake"),
        loopback=True,
    ),
    Case(
        "transfer",
        "DC",
        "Three files over one connection: flow control and stream multiplexing.",
        (2 * MB, 3 * MB, 5 * MB),
        _ONE,
        loopback=True,
    ),
    Case(
        "longrtt",
        "LR",
        "A handshake over a round trip of 1.5 seconds.",
        (KB,),
        (*_ONE, handshake.repeated_client_hello),
        *("handshake", "handshake"),
        scenario="simple-p2p --delay=750ms --bandwidth=10Mbps --queue=25",
    ),
    Case(
        "chacha20",
        "C20",
        "A transfer under ChaCha20, the only cipher suite offered.",
        (3 * MB,),
        (*_ONE, handshake.only_chacha20),
        *("chacha20", "chacha20"),
        loopback=True,
    ),
    Case(
        "multiplexing",
        "M",
        "1999 small files over one connection, more than its first stream credit.",
        (32,) * 1999,
        (common.key_log, *_ONE, transport.stream_limit),
        loopback=True,
    ),
    Case(
        "retry",
        "S",
        "The server validates the address by Retry.",
        (10 * KB,),
        (*_ONE, handshake.retry_obeyed),
        *("retry", "retry"),
        loopback=True,
    ),
    Case(
        "resumption",
        "R",
        "The second connection resumes the first one's session.",
        (5 * KB, 10 * KB),
        (common.key_log, common.handshakes(2), resumption.resumed, common.version_1, common.files),
        *("resumption", "resumption"),
        loopback=True,
    ),
    Case(
        "zerortt",
        "Z",
        "The second connection's requests go as early data.",
        (32,) * 40,
        (common.handshakes(2), common.version_1, common.files, resumption.early_data),
        *("zerortt", "zerortt"),
        name_length=250,
        loopback=True,
    ),
    Case(
        "http3",
        "3",
        "Files over HTTP/3, in parallel.",
        (5 * KB, 10 * KB, 500 * KB),
        _ONE,
        *("http3", "http3"),
        loopback=True,
    ),
    Case(
        "blackhole",
        "B",
        "Nothing passes for two seconds in the middle of a transfer.",
        (10 * MB,),
        _ONE,
        scenario=f"blackhole {_LINK} --on=5s --off=2s",
    ),
    Case(
        "keyupdate",
        "U",
        "The client updates keys within the first megabyte.",
        (3 * MB,),
        (common.key_log, *_ONE, transport.key_updated),
        *("transfer", "keyupdate"),
        loopback=True,
    ),
    Case(
        "ecn",
        "E",
        "Both sides mark packets ECT and report the marks.",
        (100 * KB,),
        (common.key_log, *_HANDSHAKE, transport.ecn_used),
        *("ecn", "ecn"),
    ),
    Case(
        "amplificationlimit",
        "A",
        "A long certificate chain, and client packets lost: the server may send three times as"
        " much as it received.",
        (5 * KB,),
        (common.key_log, *_ONE, transport.no_amplification),
        scenario=f"droplist {_LINK} --drops_to_server=2,3,4,5,6,7",
        chain_length=9,
    ),
    Case(
        "handshakeloss",
        "L1",
        "Fifty connections where three packets in ten are lost.",
        (KB,) * 50,
        _MANY,
        *("multiconnect", "multiconnect"),
        scenario=f"drop-rate {_LINK} {_HEAVY}",
        timeout=300.0,
    ),
    Case(
        "transferloss",
        "L2",
        "A transfer where two packets in a hundred are lost.",
        (2 * MB,),
        _ONE,
        scenario=f"drop-rate {_LINK} {_LIGHT}",
    ),
    Case(
        "handshakecorruption",
        "C1",
        "Fifty connections where three packets in ten are corrupted.",
        (KB,) * 50,
        _MANY,
        *("multiconnect", "multiconnect"),
        scenario=f"corrupt-rate {_LINK} {_HEAVY}",
        timeout=300.0,
    ),
    Case(
        "transfercorruption",
        "C2",
        "A transfer where two packets in a hundred are corrupted.",
        (2 * MB,),
        _ONE,
        scenario=f"corrupt-rate {_LINK} {_LIGHT}",
    ),
    Case(
        "ipv6",
        "6",
        "A transfer over IPv6.",
        (5 * KB, 10 * KB),
        (*_ONE, transport.only_ipv6),
        host="server6",
    ),
    Case(
        "v2",
        "V2",
        "Compatible version negotiation from version 1 to version 2.",
        (KB,),
        (handshake.version_2_negotiated, common.files),
        *("v2", "v2"),
        loopback=True,
    ),
    Case(
        "rebind-port",
        "BP",
        "A NAT gives the client a new port, again and again.",
        (10 * MB,),
        _REBIND,
        scenario=f"rebind {_LINK} --first-rebind=1s --rebind-freq=5s",
    ),
    Case(
        "rebind-addr",
        "BA",
        "A NAT gives the client a new address and port, again and again.",
        (10 * MB,),
        (*_REBIND, paths.several_client_addresses),
        scenario=f"rebind {_LINK} --first-rebind=1s --rebind-freq=5s --rebind-addr",
    ),
    Case(
        "connectionmigration",
        "CM",
        "The client moves to the server's preferred address.",
        (2 * MB,),
        (*_REBIND, paths.new_connection_ids),
        *("connectionmigration", "transfer"),
        host="server46",
    ),
    Case(
        "versionnegotiation",
        "V",
        "The server answers an unknown version (not run by the interop runner today).",
        (KB,),
        (handshake.version_negotiation,),
        *("versionnegotiation", "versionnegotiation"),
    ),
    Case(
        "goodput",
        "G",
        "Goodput over the bare link.",
        (10 * MB,),
        _ONE,
        measured=True,
    ),
    Case(
        "crosstraffic",
        "C",
        "Goodput beside a TCP connection under CUBIC.",
        (25 * MB,),
        _ONE,
        timeout=180.0,
        measured=True,
        cross_traffic=True,
    ),
)

BY_NAME = {case.name: case for case in CASES}
