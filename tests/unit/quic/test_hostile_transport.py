"""Clients that break RFC 9000 and 9001, and the error codes they are sent away with.

The cases are those that h3spec asks of a server, and some more.
"""

from __future__ import annotations

from typing import Any

import pytest
from aioquic import tls
from aioquic.quic.packet import QuicErrorCode as Code
from aioquic.quic.packet import QuicPreferredAddress

from quicedge.config.limits import CONNECTION_WINDOW, MAX_STREAMS_BIDI, MAX_STREAMS_UNI
from quicedge.config.limits import STREAM_WINDOW as STREAM
from tests.support.hostile import Hostile, varints, with_parameters
from tests.support.world import CLIENT, NOW

INITIAL, HANDSHAKE = tls.Epoch.INITIAL, tls.Epoch.HANDSHAKE
BEYOND_BIDI, BEYOND_UNI = 4 * MAX_STREAMS_BIDI + 400, 4 * MAX_STREAMS_UNI + 402
BIG = (1 << 62) - 1
ENCODING, STATE = Code.FRAME_ENCODING_ERROR, Code.STREAM_STATE_ERROR
LIMIT, FINAL = Code.STREAM_LIMIT_ERROR, Code.FINAL_SIZE_ERROR


def stream(stream_id: int, offset: int, data: bytes, fin: bool = False) -> bytes:
    return varints(0x0E | fin, stream_id, offset, len(data)) + data


def new_id(number: int, cid: bytes, *, retire: int = 0, token: bytes = bytes(16)) -> bytes:
    return varints(0x18, number, retire, len(cid)) + cid + token


RULES: list[tuple[str, bytes, int]] = [
    # --- frames that are no frames (RFC 9000 section 12.4) ---
    ("an unknown frame type", varints(0x41A), ENCODING),
    ("an unknown frame type of one byte", varints(0x21), ENCODING),
    ("a STREAM frame longer than its packet", varints(0x0A, 0, 500) + b"x", ENCODING),
    ("an ACK below zero", varints(0x02, 1, 0, 0, 5), ENCODING),
    ("an ACK of a packet never sent", varints(0x02, 5000, 0, 0, 0), Code.PROTOCOL_VIOLATION),
    ("a STREAM frame beyond 2^62", varints(0x0E, 0, BIG, 1) + b"x", ENCODING),
    ("an ACK whose gap goes below zero", varints(0x02, 2, 0, 1, 0, 5, 0), ENCODING),
    ("an ACK whose range goes below zero", varints(0x02, 3, 0, 1, 0, 0, 9), ENCODING),
    ("an ACK whose last of many goes below zero", varints(0x02, 9, 0, 3, 0, 0, 0, 0, 0, 0, 7),
     ENCODING),
    ("an ACK with ECN below zero", varints(0x03, 1, 0, 0, 5, 0, 0, 0), ENCODING),
    ("an ACK of a number not reached yet", varints(0x02, 60, 0, 0, 0), Code.PROTOCOL_VIOLATION),
    ("CRYPTO beyond 2^62", varints(0x06, BIG, 1) + b"x", ENCODING),
    # --- frames that only servers send (sections 19.7, 19.20) ---
    ("NEW_TOKEN from a client", varints(0x07, 4) + b"toke", Code.PROTOCOL_VIOLATION),
    ("HANDSHAKE_DONE from a client", varints(0x1E), Code.PROTOCOL_VIOLATION),
    ("an empty NEW_TOKEN", varints(0x07, 0), Code.PROTOCOL_VIOLATION),
    # --- streams that may not be used so (sections 3, 19.4, 19.5, 19.10) ---
    ("RESET_STREAM of our own stream", varints(0x04, 3, 0, 0), STATE),
    ("STREAM on our own unidirectional stream", stream(3, 0, b"x"), STATE),
    ("STREAM on a stream of ours that is not open", stream(1, 0, b"x"), STATE),
    ("STOP_SENDING of a stream we only receive", varints(0x05, 2, 0), STATE),
    ("STOP_SENDING of one that is not open", varints(0x05, 1, 0), STATE),
    ("MAX_STREAM_DATA of a stream we only receive", varints(0x11, 2, 9), STATE),
    ("MAX_STREAM_DATA of a stream that is not open", varints(0x11, 1, 9), STATE),
    ("STREAM_DATA_BLOCKED of our own stream", varints(0x15, 3, 9), STATE),
    ("RESET_STREAM of a stream of ours that is not open", varints(0x04, 1, 0, 0), STATE),
    ("STREAM_DATA_BLOCKED of one of ours that is not open", varints(0x15, 1, 9), STATE),
    ("STOP_SENDING far beyond what we have opened", varints(0x05, 401, 0), STATE),
    # --- limits (sections 4.1, 4.5, 4.6) ---
    ("more bidirectional streams than allowed", stream(BEYOND_BIDI, 0, b"x"), LIMIT),
    ("more unidirectional streams than allowed", stream(BEYOND_UNI, 0, b"x"), LIMIT),
    ("more than MAX_STREAM_DATA", stream(0, 1 << 30, b"x"), Code.FLOW_CONTROL_ERROR),
    ("RESET_STREAM beyond MAX_STREAM_DATA", varints(0x04, 0, 0, 1 << 30), Code.FLOW_CONTROL_ERROR),
    ("another final size", stream(0, 0, b"four", True) + stream(0, 4, b"x"), FINAL),
    ("a final size below what came", stream(0, 10, b"x") + varints(0x04, 0, 0, 5), FINAL),
    ("more of a stream than MAX_STREAM_DATA, to the byte", stream(0, STREAM, b"x"),
     Code.FLOW_CONTROL_ERROR),
    ("the first stream beyond the limit", stream(4 * 100, 0, b"x"), LIMIT),
    ("RESET_STREAM of a stream beyond the limit", varints(0x04, BEYOND_BIDI, 0, 0), LIMIT),
    ("STOP_SENDING of a stream beyond the limit", varints(0x05, BEYOND_BIDI, 0), LIMIT),
    ("MAX_STREAM_DATA of a stream beyond the limit", varints(0x11, BEYOND_BIDI, 9), LIMIT),
    ("STREAM_DATA_BLOCKED of one beyond the limit", varints(0x15, BEYOND_UNI, 9), LIMIT),
    ("a final size below what came, by FIN", stream(0, 9, b"x") + stream(0, 4, b"", True), FINAL),
    ("a second final size, higher", stream(0, 0, b"a", True) + stream(0, 0, b"ab", True), FINAL),
    ("a second final size, lower", stream(0, 5, b"a", True) + stream(0, 0, b"a", True), FINAL),
    ("RESET_STREAM above the final size", stream(0, 5, b"a", True) + varints(0x04, 0, 0, 7), FINAL),
    ("RESET_STREAM below the final size", stream(0, 5, b"a", True) + varints(0x04, 0, 0, 5), FINAL),
    ("data behind the final size", stream(0, 5, b"a", True) + stream(0, 6, b"x"), FINAL),
    ("unidirectional MAX_STREAMS beyond 2^60", varints(0x13, (1 << 60) + 1), ENCODING),
    ("unidirectional STREAMS_BLOCKED beyond", varints(0x17, (1 << 60) + 1), ENCODING),
    ("MAX_STREAMS beyond 2^60", varints(0x12, (1 << 60) + 1), ENCODING),
    ("STREAMS_BLOCKED beyond 2^60", varints(0x16, (1 << 60) + 1), ENCODING),
    # --- connection IDs (sections 19.15, 19.16) ---
    ("an empty new connection ID", varints(0x18, 9, 0) + b"\0" + bytes(16), ENCODING),
    ("a new connection ID of 21 bytes", varints(0x18, 9, 0) + b"\x15" + bytes(37), ENCODING),
    ("retiring more than there is", varints(0x18, 9, 10) + b"\x08" + bytes(24), ENCODING),
    ("RETIRE_CONNECTION_ID never issued", varints(0x19, 5000), Code.PROTOCOL_VIOLATION),
    ("RETIRE_CONNECTION_ID of its own packet", varints(0x19, 0), Code.PROTOCOL_VIOLATION),
    ("a sequence number for two connection IDs", new_id(1, b"another!"), Code.PROTOCOL_VIOLATION),
    ("the first sequence number for another", new_id(0, b"another!"), Code.PROTOCOL_VIOLATION),
    ("a connection ID with two sequence numbers", new_id(8, b"the same", retire=8)
     + new_id(9, b"the same", retire=8), Code.PROTOCOL_VIOLATION),
    ("a connection ID with two reset tokens", new_id(8, b"the same", retire=8)
     + new_id(8, b"the same", retire=8, token=b"x" * 16), Code.PROTOCOL_VIOLATION),
    ("more connection IDs than we said", b"".join(new_id(n, b"%08d" % n) for n in range(20, 30)),
     Code.CONNECTION_ID_LIMIT_ERROR),
    # --- paths and datagrams ---
    ("DATAGRAM that was not offered", varints(0x31, 2) + b"hi", Code.PROTOCOL_VIOLATION),
    # --- TLS (RFC 9001 sections 6 and 8.3) ---
    ("a TLS KeyUpdate message", varints(0x06, 0, 5) + b"\x18\0\0\x01\0", 0x10A),
    *[
        (f"a TLS message of type {kind} now", varints(0x06, 0, 4) + bytes((kind, 0, 0, 0)), 0x10A)
        for kind in (0, 1, 2, 4, 5, 8, 11, 13, 15, 20, 254, 255)
    ],
    ("CRYPTO beyond all reason", varints(0x06, 1 << 20, 1) + b"x", Code.CRYPTO_BUFFER_EXCEEDED),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "payload", "code"), RULES, ids=[rule[0] for rule in RULES])
def test_frames_that_break_a_rule_end_the_connection(rule: str, payload: bytes, code: int) -> None:
    assert Hostile().connect().send(payload).verdict == code
    # The same behind a PING, which makes the packet one for aioquic's parser.
    assert Hostile().connect().send(b"\x01" + payload).verdict == code


def test_more_than_max_data_over_many_streams() -> None:
    hostile = Hostile().connect()
    window = CONNECTION_WINDOW
    limit = hostile.server.streams.receive_credit
    assert limit <= window
    stream_window = hostile.server.configuration.max_stream_data
    used, stream_id = 0, 0
    while hostile.verdict is None and stream_id < 4 * MAX_STREAMS_BIDI:
        hostile.send(stream(stream_id, stream_window - 1, b"x"))
        used += stream_window
        stream_id += 4
    assert hostile.verdict == Code.FLOW_CONTROL_ERROR
    assert used > limit


def test_a_packet_without_frames() -> None:
    hostile = Hostile().connect()
    client = hostile.client
    header = bytes((0x43,)) + client._peer_cid.cid + client._packet_number.to_bytes(4, "big")
    data = client._cryptos[tls.Epoch.ONE_RTT].send.encrypt_packet(
        header, b"", client._packet_number
    )
    hostile.world.endpoint.receive(data, CLIENT, NOW)
    hostile.world.endpoint.flush(NOW)
    assert hostile.verdict == Code.PROTOCOL_VIOLATION


@pytest.mark.parametrize("bits", [0x08, 0x10, 0x18])
def test_reserved_bits(bits: int) -> None:
    assert Hostile().connect().send(varints(0x01), reserved=bits).verdict == Code.PROTOCOL_VIOLATION


@pytest.mark.parametrize(
    "payload",
    [stream(0, 0, b"x"), varints(0x10, 9), varints(0x1E), varints(0x1D, 0, 0), varints(0x19, 0),
     varints(0x1A) + bytes(8), varints(0x18, 1, 0) + b"\x08" + bytes(24), varints(0x07, 1) + b"x"],
)  # fmt: skip
def test_initial_packets_hold_but_few_frames(payload: bytes) -> None:
    """RFC 9000 section 12.4 table 3; other frames MUST be PROTOCOL_VIOLATION."""
    assert Hostile().greet().send(payload, INITIAL).verdict == Code.PROTOCOL_VIOLATION


# --- transport parameters (section 7.4) ----------------------------------------------------------


def _set(**members: Any) -> Any:
    def change(parameters: Any) -> None:
        for name, value in members.items():
            assert hasattr(parameters, name)
            setattr(parameters, name, value)

    return change


_PREFERRED = QuicPreferredAddress(
    ipv4_address=("192.0.2.1", 4433), ipv6_address=None, connection_id=b"12345678",
    stateless_reset_token=bytes(16),
)  # fmt: skip

PARAMETERS = [
    ("initial_source_connection_id is missing", _set(initial_source_connection_id=None), b""),
    ("initial_source_connection_id is another", _set(initial_source_connection_id=b"other"), b""),
    ("original_destination_connection_id", _set(original_destination_connection_id=b"x" * 8), b""),
    ("retry_source_connection_id", _set(retry_source_connection_id=b"x" * 8), b""),
    ("stateless_reset_token", _set(stateless_reset_token=bytes(16)), b""),
    ("preferred_address", _set(preferred_address=_PREFERRED), b""),
    ("max_udp_payload_size below 1200", _set(max_udp_payload_size=1199), b""),
    ("ack_delay_exponent above 20", _set(ack_delay_exponent=21), b""),
    ("max_ack_delay of 2^14", _set(max_ack_delay=1 << 14), b""),
    ("active_connection_id_limit below 2", _set(active_connection_id_limit=1), b""),
    ("initial_max_streams_bidi beyond 2^60", _set(initial_max_streams_bidi=(1 << 60) + 1), b""),
    ("initial_max_streams_uni beyond 2^60", _set(initial_max_streams_uni=(1 << 60) + 1), b""),
    ("disable_active_migration with content", None, varints(0x0C, 1) + b"x"),
    ("a value without its length", None, varints(0x77)),
    ("one twice", None, varints(0x04, 1, 9)),
    ("one cut short", None, varints(0x77, 40) + b"x"),
    ("a value longer than its length", None, varints(0x0B, 1) + b"\x40"),
]


@pytest.mark.parametrize(
    ("change", "raw"), [case[1:] for case in PARAMETERS], ids=[case[0] for case in PARAMETERS]
)
def test_transport_parameters_that_break_a_rule(change: Any, raw: bytes) -> None:
    hostile = with_parameters(change, raw).greet()
    assert hostile.verdict == Code.TRANSPORT_PARAMETER_ERROR


def test_unknown_transport_parameters_are_ignored() -> None:
    hostile = with_parameters(None, varints(0x1F * 31 + 27, 3) + b"abc").connect()
    assert hostile.verdict is None


# --- TLS (RFC 9001 section 8) --------------------------------------------------------------------


def test_no_common_application_protocol() -> None:
    """Section 8.1: MUST be no_application_protocol."""
    assert Hostile(alpn_protocols=["nonsense"]).greet().verdict == 0x178


def test_no_application_protocol_at_all() -> None:
    hostile = Hostile()
    hostile.client.configuration.alpn_protocols = None
    hostile = _reconnect(hostile)
    assert hostile.greet().verdict == 0x178


def test_no_transport_parameters() -> None:
    """Section 8.2: MUST be missing_extension."""
    hostile = Hostile()
    fresh = _fresh(hostile)
    initialize = fresh._initialize

    def without(peer_cid: bytes) -> None:
        initialize(peer_cid)
        fresh.tls.handshake_extensions.clear()

    fresh._initialize = without  # type: ignore[method-assign]
    fresh.connect(("server", 443), NOW)
    hostile.client = fresh
    assert hostile.greet().verdict == 0x16D


def _fresh(hostile: Hostile) -> Any:
    from aioquic.quic.connection import QuicConnection

    return QuicConnection(configuration=hostile.client.configuration)


def _reconnect(hostile: Hostile) -> Hostile:
    fresh = _fresh(hostile)
    fresh.connect(("server", 443), NOW)
    hostile.client = fresh
    return hostile


def test_limits_never_shrink() -> None:
    """Sections 4.1 and 4.6: a receiver MUST ignore MAX_* frames that do not increase the limit."""
    hostile = Hostile().connect()
    server = hostile.server
    hostile.send(stream(0, 0, b"hello"))

    def limits() -> tuple[int, ...]:
        return (
            server.streams.send_limit, server.streams.get(0).send.limit,
            server.streams.max_bidi, server.streams.max_uni,
        )  # fmt: skip

    before = limits()
    assert min(before) > 3
    hostile.send(varints(0x10, 1) + varints(0x11, 0, 1) + varints(0x12, 1) + varints(0x13, 1))
    assert (limits(), hostile.verdict) == (before, None)
    hostile.send(varints(0x10, 1 << 30) + varints(0x11, 0, 1 << 30) + varints(0x12, 1 << 60))
    assert limits()[:3] == (1 << 30, 1 << 30, 1 << 60)
    assert hostile.verdict is None


def test_what_comes_twice_ends_nothing() -> None:
    """Sections 19.15 and 19.16: the same frame again MUST NOT be an error; nor the end again of a
    stream that is over."""
    hostile = Hostile().connect()
    client = hostile.client
    again = b"".join(
        new_id(known.sequence_number, known.cid, token=known.stateless_reset_token)
        for known in client._host_cids
        if known.sequence_number
    )
    hostile.send(again).send(again)
    retired = varints(0x19, 1)
    hostile.send(retired).send(retired)
    whole = stream(0, 0, b"whole", True)
    hostile.send(whole).send(whole).send(varints(0x04, 0, 0, 5)).send(varints(0x05, 0, 0))
    assert hostile.verdict is None


def test_a_packet_number_is_taken_once() -> None:
    """Section 12.3: a duplicate MUST be discarded."""
    hostile = Hostile().connect()
    data = hostile.packet(stream(0, 0, b"once"))
    hostile.world.receive(data, data)
    hostile.world.receive(data)
    taken = [getattr(e, "data", b"") for e in hostile.world.handlers[0].events]
    assert b"".join(taken) == b"once"


def test_handshake_and_initial_packets_after_the_handshake_are_dropped() -> None:
    """RFC 9001 section 4.9: their keys are gone."""
    hostile = Hostile()
    client = hostile.client
    client._discard_epoch = lambda epoch: None  # type: ignore[method-assign]  # keeps its own keys
    hostile.connect()
    hostile.send(varints(0x1E), HANDSHAKE).send(varints(0x1E), INITIAL)
    assert hostile.verdict is None


def test_honest_frames_end_nothing() -> None:
    """The net itself: what it injects is understood."""
    hostile = Hostile().connect()
    hostile.send(varints(0x01)).send(stream(0, 0, b"hello", True)).send(varints(0x10, 1 << 30))
    # RFC 9000 section 19.18 leaves it to us whether an unsolicited one is an error.
    hostile.send(varints(0x1B) + b"12345678")
    hostile.send(varints(0x1A) + b"12345678").send(varints(0x14, 5)).send(varints(0x17, 5))
    assert hostile.verdict is None
    assert any(getattr(e, "data", b"") == b"hello" for e in hostile.world.handlers[0].events)
