"""RFC 9000 section 12.4, frame by frame: which packets may hold it, and where it may be cut.

`tests/unit/quic/test_hostile_transport.py` has the rules on what frames say.
"""

from __future__ import annotations

import pytest
from aioquic import tls
from aioquic.quic.packet import QuicErrorCode as Code

from tests.support.hostile import Hostile, varints
from tests.support.world import NOW, first_flight

INITIAL, EARLY = tls.Epoch.INITIAL, tls.Epoch.ZERO_RTT
HANDSHAKE, ONE_RTT = tls.Epoch.HANDSHAKE, tls.Epoch.ONE_RTT
LETTERS = {"I": INITIAL, "H": HANDSHAKE, "0": EARLY, "1": ONE_RTT}

# Each frame, and the packets of a client that may hold it (table 3; "-": only servers send it).
FRAMES: dict[str, tuple[bytes, str]] = {
    "PADDING": (varints(0x00), "IH01"),
    "PING": (varints(0x01), "IH01"),
    "ACK": (varints(0x02, 0, 0, 0, 0), "IH1"),
    "ACK with ECN": (varints(0x03, 0, 0, 0, 0, 0, 0, 0), "IH1"),
    "RESET_STREAM": (varints(0x04, 4, 0, 0), "01"),
    "STOP_SENDING": (varints(0x05, 0, 0), "01"),
    "CRYPTO": (varints(0x06, 0, 0), "IH1"),
    "NEW_TOKEN": (varints(0x07, 4) + b"toke", "-"),
    "STREAM": (varints(0x0E, 0, 0, 2) + b"hi", "01"),
    "MAX_DATA": (varints(0x10, 1 << 20), "01"),
    "MAX_STREAM_DATA": (varints(0x11, 0, 1 << 20), "01"),
    "MAX_STREAMS, bidirectional": (varints(0x12, 100), "01"),
    "MAX_STREAMS, unidirectional": (varints(0x13, 100), "01"),
    "DATA_BLOCKED": (varints(0x14, 1), "01"),
    "STREAM_DATA_BLOCKED": (varints(0x15, 0, 1), "01"),
    "STREAMS_BLOCKED, bidirectional": (varints(0x16, 1), "01"),
    "STREAMS_BLOCKED, unidirectional": (varints(0x17, 1), "01"),
    "NEW_CONNECTION_ID": (varints(0x18, 9, 9) + b"\x08" + bytes(range(24)), "01"),
    # Section 12.5: neither makes sense in 0-RTT, for nothing has come yet that it answers.
    "RETIRE_CONNECTION_ID": (varints(0x19, 1), "1"),
    "PATH_CHALLENGE": (varints(0x1A) + bytes(8), "01"),
    "PATH_RESPONSE": (varints(0x1B) + bytes(8), "1"),
    "CONNECTION_CLOSE, transport": (varints(0x1C, 0, 0, 2) + b"ok", "IH01"),
    "CONNECTION_CLOSE, application": (varints(0x1D, 0, 2) + b"ok", "01"),
    "HANDSHAKE_DONE": (varints(0x1E), "-"),
}
CASES = [(name, letter) for name in FRAMES for letter in LETTERS]


def greeted() -> Hostile:
    """A client that has sent its Initial packets alone."""
    return Hostile().greet()


def in_handshake() -> Hostile:
    """A client that has the server's flight and handshake keys, and has not finished."""
    hostile = greeted()
    client = hostile.client
    client._push_crypto_data = lambda: None  # type: ignore[method-assign]  # keeps its Finished
    for data in hostile.world.network.take():
        client.receive_datagram(data, ("server", 443), NOW)
    return hostile


def early() -> Hostile:
    """A client whose early data was accepted, and who has nothing but 0-RTT and Initial keys."""
    hostile = Hostile(early_data=b"terms")
    visitor = hostile.world.client()
    hostile.world.talk(visitor)
    ticket = visitor.last_ticket  # type: ignore[attr-defined]
    hostile.client = client = hostile.world.client(session_ticket=ticket)
    client.send_stream_data(0, b"early", end_stream=False)
    hostile.world.receive(*first_flight(client))
    (hostile.server,) = hostile.world.endpoint.half_open
    assert hostile.server.handshake.early_data_accepted
    return hostile


STATES = {
    INITIAL: greeted, HANDSHAKE: in_handshake, EARLY: early,
    ONE_RTT: lambda: Hostile().connect(),
}  # fmt: skip


@pytest.mark.parametrize(("name", "letter"), CASES)
def test_which_packets_hold_which_frames(name: str, letter: str) -> None:
    """Section 12.4: an endpoint MUST treat a frame in a packet type that is not permitted as a
    connection error of type PROTOCOL_VIOLATION."""
    frame, permitted = FRAMES[name]
    epoch = LETTERS[letter]
    hostile = STATES[epoch]().send(frame, epoch)
    if letter not in permitted:
        assert hostile.verdict == Code.PROTOCOL_VIOLATION
    elif name.startswith("CONNECTION_CLOSE"):
        assert hostile.verdict == 0
    elif name == "ACK" and letter == "H":
        assert hostile.verdict in (None, Code.PROTOCOL_VIOLATION)  # whatever number it has begun at
    else:
        assert hostile.verdict is None


@pytest.mark.parametrize("name", [name for name, (_, where) in FRAMES.items() if "1" in where])
def test_a_frame_cut_short(name: str) -> None:
    """Section 12.4: FRAME_ENCODING_ERROR, wherever its packet ends too soon."""
    frame = FRAMES[name][0]
    for size in range(1, len(frame)):
        hostile = Hostile().connect().send(varints(1, 1, 1, 1) + frame[:size])
        assert hostile.verdict == Code.FRAME_ENCODING_ERROR, f"{size} of {len(frame)} bytes"


@pytest.mark.parametrize("count", [1, 63, 1 << 14, (1 << 62) - 1])
def test_an_ack_of_more_ranges_than_it_has(count: int) -> None:
    frame = varints(0x02, 0, 0, count, 0)
    assert Hostile().connect().send(frame).verdict == Code.FRAME_ENCODING_ERROR


@pytest.mark.parametrize("kind", [0x1F, 0x20, 0x2F, 0x32, 0x3F, 0x40, 0xAF, 0x4000, (1 << 62) - 1])
@pytest.mark.parametrize("epoch", [INITIAL, HANDSHAKE, EARLY, ONE_RTT])
def test_unknown_frame_types(kind: int, epoch: tls.Epoch) -> None:
    """Section 12.4: FRAME_ENCODING_ERROR."""
    hostile = STATES[epoch]().send(varints(kind), epoch)
    assert hostile.verdict == Code.FRAME_ENCODING_ERROR


@pytest.mark.parametrize("kind", [0x04, 0x07, 0x0E, 0x1E, 0x18])
def test_a_frame_type_in_more_bytes_than_it_needs_is_that_type(kind: int) -> None:
    """Section 12.4 lets us refuse it; what it may not do is slip past what the type is held to."""
    long_form = (kind | 0x4000).to_bytes(2, "big")
    hostile = Hostile().connect().send(long_form + varints(3, 0, 0) + bytes(40))
    assert hostile.verdict is not None


def test_a_first_initial_without_crypto() -> None:
    """Section 17.2.2: the first packet of a client always includes a CRYPTO frame."""
    hostile = Hostile()
    first_flight(hostile.client)
    hostile.client._packet_number = 0
    hostile.send_first(varints(0x01))
    assert hostile.verdict == Code.PROTOCOL_VIOLATION


def test_one_rtt_packets_before_the_handshake_is_complete_are_dropped() -> None:
    """RFC 9001 section 5.7: not processed, whatever their key phase says."""
    hostile = in_handshake()
    client = hostile.client
    crypto = client._cryptos[ONE_RTT]
    assert crypto.send.is_valid()
    hostile.send(varints(0x1E))
    crypto._update_key("local_update")  # section 6.1: MUST NOT before it is confirmed
    hostile.send(varints(0x1E))
    assert hostile.verdict is None
    assert not hostile.server.handshake_complete


def test_early_data_that_keeps_the_rules_is_taken() -> None:
    """The net itself: what it injects is understood."""
    hostile = early().send(varints(0x0E, 4, 0, 2) + b"hi", EARLY)
    assert hostile.verdict is None
    assert any(getattr(e, "data", b"") == b"hi" for e in hostile.world.handlers[-1].events)
