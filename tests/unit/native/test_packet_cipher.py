"""The compiled packet cipher and its twin in Python, fed alike, answer alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quicedge import native
from quicedge.quic.connection.send_buffer import SendBuffer
from quicedge.quic.frames import Ack, Ping, Stream
from quicedge.quic.packet_cipher import (
    MAX_NUMBER_LENGTH,
    SAMPLE_LENGTH,
    Item,
    PacketCipher,
    is_ack_with_ping,
)
from tests.support.twins import both

CID = bytes(range(8))
PN_AT = 1 + len(CID)
KEY_LENGTHS = {0x1301: 16, 0x1302: 32, 0x1303: 32}
SUITES = st.sampled_from(sorted(KEY_LENGTHS))
NUMBERS = st.one_of(
    st.integers(0, 1 << 40),
    # around the windows of 1 to 4 bytes
    st.builds(
        lambda power, times, off: max((1 << power) * times + off, 0),
        st.sampled_from([7, 8, 15, 16, 23, 24, 31, 32]), st.integers(1, 3), st.integers(-3, 3),
    ),
)  # fmt: skip

PURE, COMPILED = both("PacketCipher")


class Window:
    """Bytes of a stream from `offset` on."""

    def __init__(self, data: bytes, offset: int) -> None:
        self.data, self.offset = data, offset

    def read(self, start: int, stop: int) -> bytes:
        if start < self.offset or stop > self.offset + len(self.data):
            raise ValueError("bytes that are not buffered")
        return self.data[start - self.offset : stop - self.offset]


def ciphers(suite: int, seed: bytes = b"k") -> list[PacketCipher]:
    """The same key in both."""
    length = KEY_LENGTHS[suite]
    return [
        twin(suite, (seed * length)[:length], (seed * 12)[:12], b"h" * length)
        for twin in (PURE, COMPILED)
    ]


def alike(call: Callable[[Any], Any], twins: list[PacketCipher]) -> Any:
    """The answer of both, or the type of the exception that both raise."""
    answers = []
    for twin in twins:
        try:
            answers.append(call(twin))
        except (ValueError, OverflowError) as error:
            answers.append(type(error))
    assert answers[0] == answers[1]
    return answers[0]


@given(
    suite=SUITES,
    number=NUMBERS,
    pn_length=st.integers(1, 4),
    long=st.booleans(),
    rest=st.binary(max_size=40),
    payload=st.binary(max_size=1500),
)
def test_packets_are_sealed_and_opened_alike(
    suite: int, number: int, pn_length: int, long: bool, rest: bytes, payload: bytes
) -> None:
    twins = ciphers(suite)
    first = (0xC0 if long else 0x40) | (pn_length - 1)
    truncated = (number & ((1 << 8 * pn_length) - 1)).to_bytes(pn_length, "big")
    header = bytes((first,)) + rest + truncated
    sealed = alike(lambda twin: twin.seal_one(header, payload, number), twins)
    if len(payload) < MAX_NUMBER_LENGTH - pn_length:
        assert sealed is ValueError
        return
    if not long:
        short = alike(lambda twin: twin.seal_short(first, rest, number, payload), twins)
        assert short == sealed
    opened = alike(lambda twin: twin.open_one(sealed, len(header) - pn_length, number), twins)
    assert opened == (first, number, payload)


@given(
    suite=SUITES,
    number=NUMBERS,
    pn_length=st.integers(1, 4),
    stream_id=st.sampled_from([0, 63, 64, 16383, 16384, 1 << 30, (1 << 62) - 1]),
    data=st.binary(min_size=1, max_size=400),
    offset=st.one_of(st.integers(0, 1 << 20), st.integers((1 << 30) - 400, (1 << 30) + 400)),
    chunk=st.integers(1, 90),
    wide=st.booleans(),
    fin=st.booleans(),
)
def test_runs_are_sealed_alike_and_are_the_packets_one_by_one(
    suite: int, number: int, pn_length: int, stream_id: int, data: bytes, offset: int, chunk: int,
    wide: bool, fin: bool,
) -> None:  # fmt: skip
    twins = ciphers(suite)
    first = 0x40 | (pn_length - 1)
    buffer = Window(data, offset)
    stop = offset + len(data)
    joined = alike(
        lambda twin: twin.seal_run(
            first, CID, number, stream_id, buffer, offset, stop, chunk, wide, fin
        ),
        twins,
    )
    if joined is ValueError:
        assert not wide
        assert offset + len(data) > 1 << 30
        return
    datagrams = []
    end = 0
    while end < len(joined):
        at = len(datagrams) * chunk
        piece = data[at : at + chunk]
        last = at + chunk >= len(data)
        size = PN_AT + pn_length + 16 + len(piece) + (8 if wide else 4) + 1
        size += next(n for n in (1, 2, 4, 8) if stream_id < 1 << (8 * n - 2))
        packet = joined[end : end + size]
        end += size
        opened = PURE.open_one(twins[0], packet, PN_AT, number + len(datagrams))
        frame, _ = Stream.parse(opened[2], 1, opened[2][0])
        assert frame == Stream(stream_id, offset + at, piece, fin and last)
        datagrams.append(packet)
    assert end == len(joined)
    stop, nbytes, (item,) = alike(
        lambda twin: twin.open_run(0, datagrams, 0, CID, number, True), twins
    )
    assert (stop, nbytes) == (len(datagrams), len(joined))
    assert item[:2] == (number, number + len(datagrams))
    assert b"".join(piece[2] for piece in item[3]) == data


# --- runs as they arrive ------------------------------------------------------------------------

STREAMS = st.builds(
    lambda stream, start, size, fin: Stream(stream, start, b"d" * size, fin),
    st.sampled_from([0, 4, 400]), st.integers(0, 4).map(lambda n: n * 50),
    st.sampled_from([0, 50, 50, 50, 60]), st.sampled_from([False, False, False, True]),
)  # fmt: skip
FRAMES = st.one_of(
    STREAMS.map(lambda frame: frame.encode()),
    STREAMS.map(lambda frame: frame.encode()),
    st.integers(1, 30).map(bytes),  # PADDING
    st.just(Ping().encode()),
    st.lists(st.integers(1, 9), min_size=1, max_size=200).map(
        lambda gaps: Ack([(20 * n, 20 * n + gap) for n, gap in enumerate(gaps)], 5).encode()
    ),
    st.just(b"\x40\x0a\x00"),  # a STREAM frame's type in two bytes
    st.binary(min_size=1, max_size=20),  # anything
)
PAYLOADS = st.lists(FRAMES, max_size=4).map(lambda frames: b"".join(frames).ljust(4, b"\0"))


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[int, int, list[bytes], int]:
    """Suite, expected number and datagrams as a path may deliver them, and the key phase."""
    suite = draw(SUITES)
    twins = ciphers(suite)
    later = ciphers(suite, b"n")
    start = draw(NUMBERS)
    pn_length = draw(st.integers(1, 4))
    sent: list[bytes] = []
    number = start
    for payload in draw(st.lists(PAYLOADS, min_size=1, max_size=12)):
        kind = draw(st.sampled_from(["right"] * 8 + ["updated", "reserved", "gap", "spin"]))
        number += 1 + (kind == "gap")
        first = 0x40 | (pn_length - 1)
        first |= {"updated": 0x04, "reserved": 0x18, "spin": 0x20}.get(kind, 0)
        keys = later if kind == "updated" else twins
        sent.append(keys[0].seal_short(first, CID, number, payload))
    datagrams = list(sent)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(datagrams) - 1))
        match draw(st.sampled_from(["swap", "repeat", "damage", "cut"])):
            case "swap":
                datagrams.append(datagrams.pop(at))
            case "repeat":
                datagrams.append(datagrams[at])
            case "damage" if datagrams[at]:
                bit = draw(st.integers(0, 8 * len(datagrams[at]) - 1))
                changed = bytearray(datagrams[at])
                changed[bit // 8] ^= 1 << bit % 8
                datagrams[at] = bytes(changed)
            case "cut":
                datagrams[at] = datagrams[at][: draw(st.integers(0, 40))]
    return suite, max(start + draw(st.integers(-2, 2)), 0), datagrams, draw(st.integers(0, 1))


@settings(max_examples=300)
@given(arrivals())
def test_runs_are_opened_alike_whatever_arrives(arrived: tuple[int, int, list[bytes], int]) -> None:
    suite, expected, datagrams, phase = arrived
    twins = ciphers(suite)
    for join in (False, True):
        at = 0
        while at < len(datagrams):
            stop, nbytes, _ = alike(
                lambda twin, n=at, j=join: twin.open_run(phase, datagrams, n, CID, expected, j),
                twins,
            )
            assert nbytes == sum(map(len, datagrams[at:stop]))
            at = max(stop, at + 1)
    for data in datagrams:
        alike(lambda twin, packet=data: twin.open_one(packet, PN_AT, expected), twins)


def flat(items: list[Item]) -> list[tuple[int, int, bytes]]:
    """Stream bytes of items of a run: stream, offset and byte for each."""
    found = []
    for _, _, _, content, *_ in items:
        if isinstance(content, list):
            for stream_id, offset, data, _, _ in content:
                found += [(stream_id, offset + n, data[n : n + 1]) for n in range(len(data))]
        elif content is not None:
            at = 0
            while at < len(content):
                kind = content[at]
                if 0x08 <= kind <= 0x0F:
                    frame, at = Stream.parse(content, at + 1, kind)
                    found += [
                        (frame.stream_id, frame.offset + n, frame.data[n : n + 1])
                        for n in range(len(frame.data))
                    ]
                else:
                    assert kind == 0
                    at += 1
    return found


@pytest.mark.parametrize("twin", [PURE, COMPILED], ids=["pure", "compiled"])
@given(st.lists(st.lists(STREAMS, min_size=1, max_size=3), min_size=1, max_size=10))
def test_joined_packets_hold_what_they_held_apart(twin: Any, packets: list[list[Stream]]) -> None:
    cipher = twin(0x1301, b"k" * 16, b"i" * 12, b"h" * 16)
    datagrams = [
        cipher.seal_short(0x43, CID, number, b"".join(frame.encode() for frame in frames))
        for number, frames in enumerate(packets)
    ]
    _, _, apart = cipher.open_run(0, datagrams, 0, CID, 0, False)
    _, _, joined = cipher.open_run(0, datagrams, 0, CID, 0, True)
    assert flat(joined) == flat(apart)
    assert len(joined) == 1
    assert joined[0][4] == sum(map(len, packets)), "every frame is counted"
    ends = [(frame.stream_id, frame.offset + len(frame.data)) for frames in packets
            for frame in frames if frame.fin]  # fmt: skip
    assert [(p[0], p[1] + len(p[2])) for p in joined[0][3] if p[3]] == ends


@pytest.mark.parametrize("twin", [PURE, COMPILED], ids=["pure", "compiled"])
def test_a_transfer_in_order_is_one_piece(twin: Any) -> None:
    cipher = twin(0x1301, b"k" * 16, b"i" * 12, b"h" * 16)
    data = bytes(range(256)) * 200
    joined = cipher.seal_run(
        0x41, CID, 7, 4, Window(data, 1000), 1000, 1000 + len(data), 1200, False, True
    )
    size = PN_AT + 2 + 6 + 1200 + 16
    datagrams = [joined[at : at + size] for at in range(0, len(joined), size)]
    _, _, (item,) = cipher.open_run(0, datagrams, 0, CID, 7, True)
    packets = len(datagrams)
    assert item == (7, 7 + packets, 0x41, [(4, 1000, data, True, 0x0D)], packets, packets)


@given(suite=st.sampled_from([0, 0x1300, 0x1304, *KEY_LENGTHS]), sizes=st.tuples(
    *[st.sampled_from([0, 8, 12, 15, 16, 24, 32])] * 3))  # fmt: skip
def test_keys_of_wrong_length_are_refused_alike(suite: int, sizes: tuple[int, int, int]) -> None:
    accepted = []
    for twin in (PURE, COMPILED):
        try:
            twin(suite, *(b"k" * size for size in sizes))
        except ValueError:
            accepted.append(False)
        else:
            accepted.append(True)
    right = KEY_LENGTHS.get(suite)
    assert accepted == [sizes == (right, 12, right)] * 2


class Text:
    def read(self, start: int, stop: int) -> str:
        return "x" * (stop - start)


def test_other_than_bytes_is_refused_without_harm() -> None:
    cipher = COMPILED(0x1301, b"k" * 16, b"i" * 12, b"h" * 16)
    with pytest.raises(TypeError):
        cipher.open_run(0, [b"\x40" + CID + b"x" * 40, "text"], 0, CID, 0, True)
    with pytest.raises(TypeError):
        cipher.seal_run(0x40, CID, 0, 0, Text(), 0, 5, 1200, False, False)
    with pytest.raises(AttributeError):
        cipher.seal_run(0x40, CID, 0, 0, b"no buffer", 0, 5, 1200, False, False)


class Short:
    def read(self, start: int, stop: int) -> bytes:
        return b"x"


@pytest.mark.parametrize("size", [2, 1200, 2**62, 2**64 - 1])
def test_a_buffer_that_reads_less_than_a_run_is_refused(size: int) -> None:
    cipher = COMPILED(0x1301, b"k" * 16, b"i" * 12, b"h" * 16)
    with pytest.raises(ValueError, match="not buffered"):
        cipher.seal_run(0x40, CID, 0, 0, Short(), 0, size, 1, True, False)


def test_a_run_ends_before_what_is_not_a_short_header_packet_to_the_connection_id() -> None:
    twins = ciphers(0x1301)
    right = twins[0].seal_short(0x40, CID, 3, b"\0" * 30)
    least = PN_AT + MAX_NUMBER_LENGTH + SAMPLE_LENGTH
    for other in (b"", right[: least - 1], b"\xc0" + right[1:], b"\x40" + b"other id" + right[9:]):
        found = alike(
            lambda twin, o=other: twin.open_run(0, [b"", right, right, o, right], 1, CID, 3, True),
            twins,
        )
        assert found == (
            3, 2 * len(right), [(3, 4, 0x40, b"\0" * 30, 0, 0)] * 2
        )  # fmt: skip
        assert alike(
            lambda twin, o=other: twin.open_run(0, [o, right], 0, CID, 3, True), twins
        ) == (0, 0, [])  # fmt: skip
    assert alike(lambda twin: twin.open_run(0, [], 0, CID, 0, True), twins) == (0, 0, [])


def test_of_acks_in_a_row_those_remain_that_no_later_one_covers() -> None:
    twins = ciphers(0x1301)
    acks = [
        Ack([(0, 3)], 5), Ack([(0, 7)], 6, (7, 0, 0)), Ack([(2, 9)], 7), Ack([(0, 1), (2, 12)], 8),
    ]  # fmt: skip
    datagrams = [
        twins[0].seal_short(0x40, CID, number, ack.encode() + b"\0" * (number % 2))
        for number, ack in enumerate(acks)
    ]
    other = Ping().encode() + acks[0].encode()
    datagrams.append(twins[0].seal_short(0x40, CID, 4, other))
    datagrams.append(twins[0].seal_short(0x40, CID, 5, acks[0].encode()))
    _, _, items = alike(lambda twin: twin.open_run(0, datagrams, 0, CID, 0, True), twins)
    joined = ((3, [(0, 7)], 6, (7, 0, 0)), (2, [(0, 1), (2, 12)], 8, None))
    assert items == [
        (0, 4, 0x40, joined, 6, 0),
        (4, 5, 0x40, other, 0, 0),
        (5, 6, 0x40, ((2, [(0, 3)], 5, None),), 1, 0),
    ]


def test_acks_with_a_ping_behind_are_joined_and_counted() -> None:
    twins = ciphers(0x1301)
    ping = Ping().encode()
    payloads = [
        Ack([(0, 3)], 5).encode(),
        Ack([(0, 7)], 5).encode() + ping,
        Ack([(0, 9)], 5).encode() + b"\0\0" + ping + ping,
        Ack([(0, 12)], 5).encode() + ping + b"\0",
    ]
    datagrams = [
        twins[0].seal_short(0x40, CID, number, payload) for number, payload in enumerate(payloads)
    ]
    _, _, items = alike(lambda twin: twin.open_run(0, datagrams, 0, CID, 0, True), twins)
    assert items == [(0, 4, 0x40, ((2, [(0, 12)], 5, None),), 1 + 2 + 4 + 3, 3)]
    assert [is_ack_with_ping(payload) for payload in payloads] == [False, True, True, True]
    assert not is_ack_with_ping(ping + payloads[0])
    assert not is_ack_with_ping(payloads[1] + payloads[0])


@given(
    pieces=st.lists(st.sampled_from([1, 30, 500, 1023, 1024, 3000]), min_size=1, max_size=12),
    chunk=st.sampled_from([100, 1200, 1417]),
    data=st.data(),
)
def test_runs_take_the_bytes_of_either_send_buffer(
    pieces: list[int], chunk: int, data: st.DataObject
) -> None:
    content = bytes(range(251)) * 180
    end = sum(pieces)
    acked = data.draw(st.integers(0, end - 1))
    start = data.draw(st.integers(acked, end - 1))
    stop = data.draw(st.integers(start + 1, end))
    expected = None
    for make in (native.PURE["SendBuffer"], SendBuffer):
        buffer = make()
        for size in pieces:
            buffer.write(content[buffer.end : buffer.end + size], False)
        buffer.take(0, end)
        buffer.acked(0, acked, False)
        sealed = alike(
            lambda twin, b=buffer: twin.seal_run(
                0x41, CID, 9, 0, b, start, stop, chunk, False, False
            ),
            ciphers(0x1301),
        )
        assert expected in (None, sealed)
        expected = sealed
        assert alike(
            lambda twin, b=buffer: twin.seal_run(
                0x41, CID, 9, 0, b, start, end + 1, chunk, False, False
            ),
            ciphers(0x1301),
        ) is ValueError  # fmt: skip
    whole = Window(content, 0)
    assert expected == ciphers(0x1301)[0].seal_run(
        0x41, CID, 9, 0, whole, start, stop, chunk, False, False
    )


def test_the_core_in_use_is_the_one_that_was_chosen() -> None:
    chosen = COMPILED if native.compiled is not None else PURE
    assert PacketCipher is chosen
