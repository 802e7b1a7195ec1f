"""QPACK: errors that concern one request, and errors that end the connection."""

from __future__ import annotations

from random import Random

import pylsqpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config.limits import MAX_COOKIE_CRUMBS, MAX_FIELDS, QPACK_STATIC_UNCOUNTED
from quicedge.http import qpack
from quicedge.http.errors import H3ErrorCode
from quicedge.http.frames import FrameType, encode_frame, encode_varint
from quicedge.http.message import Fields
from quicedge.http.qpack import outline
from tests.unit.http.test_h3 import GET, Wire, headers, server

ENCODER = 6


def integer(value: int, bits: int, first: int) -> bytes:
    """RFC 7541 section 5.1."""
    mask = (1 << bits) - 1
    if value < mask:
        return bytes((first | value,))
    out = [first | mask]
    value -= mask
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


def lines(*fields: tuple[bytes, bytes]) -> bytes:
    """Literal field lines, which need no table."""
    return b"".join(
        integer(len(name), 3, 0x20) + name + integer(len(value), 7, 0) + value
        for name, value in fields
    )


def literals(*fields: tuple[bytes, bytes]) -> bytes:
    return encode_frame(FrameType.HEADERS, b"\0\0" + lines(*fields))


class Indexing:
    """A peer that uses the dynamic table, and its connection to a codec of ours."""

    def __init__(self, **settings: int) -> None:
        options = {"qpack_max_table_capacity": 4096, "qpack_blocked_streams": 16, **settings}
        self.wire: Wire = server(**options)
        self.encoder = pylsqpack.Encoder()
        self._acknowledged = 0
        self._type = b"\x02"
        self.instruct(self.encoder.apply_settings(4096, 16))

    def instruct(self, data: bytes) -> None:
        self.wire.h3.stream_data(ENCODER, self._type + data, False)
        self._type = b""

    def block(self, stream_id: int, fields: Fields) -> bytes:
        """Encode a section, its insertions sent ahead."""
        instructions, block = self.encoder.encode(stream_id, fields)
        self.instruct(instructions)
        return block

    def request(self, stream_id: int, *fields: tuple[bytes, bytes]) -> None:
        block = self.block(stream_id, [*GET, *fields])
        self.wire.h3.stream_data(stream_id, encode_frame(FrameType.HEADERS, block), True)

    def take_acknowledgments(self) -> bytes:
        """Give the encoder what our decoder stream says; raises for what it cannot be."""
        (stream,) = [data for data in self.wire.sent.values() if data[:1] == b"\x03"]
        sent = bytes(stream[1:])
        fresh, self._acknowledged = sent[self._acknowledged :], len(sent)
        self.encoder.feed_decoder(fresh)
        return fresh


def told(wire: Wire, name: str) -> list[int]:
    return [
        entry[1].stream_id if name == "on_stream_error" else entry[1]
        for entry in wire.told
        if entry[0] == name
    ]


OVER_LONG = {
    "a value": lines((b"x", b"y" * 65_536)),
    "a name": lines((b"x" * 65_536, b"y")),
    "a Huffman value": b"\x21x" + integer(45_000, 7, 0x80) + b"\x18\xc6\x31\x8c\x63" * 9_000,
}


@pytest.mark.parametrize("field", OVER_LONG.values(), ids=OVER_LONG.keys())
def test_a_field_that_is_too_long_costs_its_request_alone(field: bytes) -> None:
    peer = Indexing(max_field_section_size=1 << 20)
    for stream_id in range(0, 12, 4):
        peer.request(stream_id, (b"x-session", b"abc" * 20))
    block = peer.block(12, [*GET, (b"x-session", b"abc" * 20)])
    assert block[0] != 0, "no dynamic table in use"
    peer.wire.h3.stream_data(12, encode_frame(FrameType.HEADERS, block + field), True)
    assert told(peer.wire, "on_field_section_too_large") == [12]
    _go_on(peer)


def test_a_field_without_a_name_costs_its_request_alone() -> None:
    peer = Indexing()
    for stream_id in range(0, 12, 4):
        peer.request(stream_id, (b"x-session", b"abc" * 20))
    block = peer.block(12, [*GET, (b"x-session", b"abc" * 20)])
    assert block[0] != 0, "no dynamic table in use"
    peer.wire.h3.stream_data(12, encode_frame(FrameType.HEADERS, block + lines((b"", b"v"))), True)
    assert peer.wire.stream_errors() == [(12, H3ErrorCode.MESSAGE_ERROR)]
    _go_on(peer)


def _go_on(peer: Indexing) -> None:
    """The table is intact: it takes more than it holds, so what is in use no longer is evicted."""
    peer.take_acknowledgments()
    for index in range(400):
        peer.request(16 + 4 * index, (b"x-session", b"%d" % (index // 4) * 30))
        peer.take_acknowledgments()
    heads = [entry for entry in peer.wire.told if entry[0] == "on_headers"]
    assert len(heads) == 3 + 400
    assert heads[-1][2][-1] == (b"x-session", b"99" * 30)


def test_every_stream_given_up_is_cancelled_for_the_peer_s_encoder() -> None:
    """RFC 9204 section 2.2.2.2: entries stay in use until then."""
    peer = Indexing()
    block = peer.block(0, GET)
    peer.wire.h3.stream_data(0, encode_frame(FrameType.HEADERS, block)[:-1], False)
    peer.wire.h3.drop(0)
    assert peer.take_acknowledgments() == b"\x40"
    peer.wire.h3.stream_data(0, b"x" * 100, True)
    peer.wire.h3.stream_data(4, b"\x01" + encode_varint(1 << 20), False)
    assert told(peer.wire, "on_field_section_too_large") == [4]
    assert peer.take_acknowledgments() == b"\x44"


@pytest.mark.parametrize("is_reset", [False, True], ids=["by us", "by the peer"])
def test_an_abandoned_blocked_stream_delivers_nothing_when_unblocked(
    is_reset: bool,
) -> None:
    peer = Indexing()
    block = b"\x02\x00\x80" + lines(*GET)
    rest = encode_frame(FrameType.DATA, b"content")
    peer.wire.h3.stream_data(0, encode_frame(FrameType.HEADERS, block) + rest, True)
    before = peer.wire.consumed
    if is_reset:
        peer.wire.h3.stream_reset(0, 0x10C)
        assert peer.wire.told.pop() == ("on_reset", 0, 0x10C)
    else:
        peer.wire.h3.drop(0)
    assert peer.take_acknowledgments() == b"\x40"
    assert peer.wire.consumed - before == len(rest)
    peer.instruct(b"\x41a\x01b")
    assert not peer.wire.told
    assert not peer.wire.h3.unfinished_heads()


def test_a_malformed_request_does_not_hold_up_those_unblocked_with_it() -> None:
    peer = Indexing()
    block = b"\x02\x00\x80" + lines(*GET)
    bad = block + lines((b"", b"v"))
    peer.wire.h3.stream_data(0, encode_frame(FrameType.HEADERS, bad), True)
    for stream_id in (4, 8):
        peer.wire.h3.stream_data(stream_id, encode_frame(FrameType.HEADERS, block), True)
    assert not peer.wire.told
    peer.instruct(b"\x41a\x01b")
    assert peer.wire.stream_errors() == [(0, H3ErrorCode.MESSAGE_ERROR)]
    assert told(peer.wire, "on_headers") == [4, 8]
    assert told(peer.wire, "on_end") == [4, 8]


@pytest.mark.parametrize("count", [130, 180, 1_000])
def test_cookie_crumbs_count_as_one_field(count: int) -> None:
    crumbs = [(b"cookie", b"c%d=value" % index) for index in range(count)]
    wire = server()
    wire.h3.stream_data(0, headers([*GET, *crumbs]), True)
    assert told(wire, "on_headers") == [0]
    indexing = Indexing()
    for stream_id in range(0, 16, 4):
        indexing.request(stream_id, *crumbs)
    assert told(indexing.wire, "on_headers") == [0, 4, 8, 12]


def test_cookie_crumbs_count_in_the_size_of_their_section() -> None:
    wire = server()
    wire.h3.stream_data(0, headers([*GET, *[(b"cookie", b"c=d")] * 2_000]), True)
    assert told(wire, "on_field_section_too_large") == [0]


def test_references_to_the_dynamic_table_are_bounded() -> None:
    peer = Indexing()
    peer.instruct(b"\x41a\x01b")
    most = MAX_FIELDS + MAX_COOKIE_CRUMBS
    for stream_id, count in ((0, MAX_FIELDS), (4, most + 1)):
        block = b"\x02\x00" + b"\x80" * count
        peer.wire.h3.stream_data(stream_id, encode_frame(FrameType.HEADERS, block), True)
    assert told(peer.wire, "on_headers") == [0]
    assert told(peer.wire, "on_field_section_too_large") == [4]


@given(st.binary(max_size=200))
def test_an_outline_of_any_bytes(block: bytes) -> None:
    seen = outline(block)
    assert 0 <= seen.dynamic <= seen.lines <= len(block)


def test_an_outline_counts_as_the_decoder_does() -> None:
    for fields in (GET, [*GET, (b"user-agent", b"x" * 300), (b"x-y", b"")]):
        _, block = pylsqpack.Encoder().encode(0, fields)
        seen = outline(block)
        assert (seen.lines, seen.dynamic, seen.nameless) == (len(fields), 0, False)
        assert seen.longest >= max(len(value) for _, value in fields[4:]) if fields[4:] else True


def test_negative_base_is_checked_against_the_required_insert_count() -> None:
    """RFC 9204 section 4.5.1.2: a Base of Required Insert Count - Delta Base - 1 is fine."""
    peer = Indexing()
    peer.instruct(b"\x41a\x01b")
    block = b"\x02\x80\x10" + lines(*GET)  # Base 0, post-base index 0
    peer.wire.h3.stream_data(0, encode_frame(FrameType.HEADERS, block), True)
    assert peer.wire.told[0] == ("on_headers", 0, [(b"a", b"b"), *GET], True)


ENDINGS = ["to its end", "reset", "dropped"]


@given(st.randoms(use_true_random=False))
def test_every_byte_is_credited_once_whatever_becomes_of_its_stream(random: Random) -> None:
    """Insertions late or early, sections malformed or too long, streams reset or dropped."""
    peer = Indexing(max_field_section_size=1 << 20)
    insertions, streams = [], []
    for stream_id in range(0, 4 * random.randint(1, 8), 4):
        fields = [*GET, (b"x-%d" % random.randint(0, 2), b"v" * random.randint(0, 60))]
        instructions, block = peer.encoder.encode(stream_id, fields)
        insertions.append((ENCODER, instructions, False))
        block += random.choice([b"", b"", lines((b"", b"v")), OVER_LONG["a value"]])
        data = encode_frame(FrameType.HEADERS, block)
        data += encode_frame(FrameType.DATA, b"d" * random.randint(1, 30))
        instructions, block = peer.encoder.encode(stream_id, [(b"x-sum", b"1")])
        insertions.append((ENCODER, instructions, False))
        data += encode_frame(FrameType.HEADERS, block)
        cut = random.randint(0, len(data))
        streams.append([(stream_id, data[:cut], False), (stream_id, data[cut:], True)])
    start, received = peer.wire.consumed, 0
    queues = [insertions, *streams]
    while queues := [queue for queue in queues if queue]:
        queue = random.choice(queues)
        stream_id, data, end = queue.pop(0)
        peer.wire.h3.stream_data(stream_id, data, end)
        received += len(data)
        what = random.choice(ENDINGS) if stream_id != ENCODER else ENDINGS[0]
        if what == "reset" and not end:
            peer.wire.h3.stream_reset(stream_id, 0x10C)
            queue.clear()
        elif what == "dropped":
            peer.wire.h3.drop(stream_id)
    assert peer.wire.consumed - start + peer.wire.payload == received
    assert not peer.wire.h3.unfinished_heads()


def test_sections_without_dynamic_references_are_decoded_without_counting_their_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted: list[int] = []

    def counting(block: bytes) -> qpack.Outline:
        counted.append(len(block))
        return outline(block)

    monkeypatch.setattr(qpack, "outline", counting)
    decoder = qpack.FieldDecoder(4096, 16, 128, 32 * 1024)
    fields = [(b"x-%d" % number, b"a value of ordinary length") for number in range(100)]
    _, block = pylsqpack.Encoder().encode(0, fields)
    assert len(block) > 2000
    assert decoder.decode(0, block)[1] == fields
    assert not counted
    with pytest.raises(qpack.SectionTooLarge):
        decoder.decode(4, b"\0\0" + b"\xd1" * QPACK_STATIC_UNCOUNTED)
    assert counted


@pytest.mark.parametrize("line", [b"\x80", b"\x10", b"\x40\x01a", b"\x00\x01a"])
def test_a_section_that_says_it_refers_to_nothing_dynamic_cannot(line: bytes) -> None:
    """Otherwise its lines would have to be counted."""
    encoder = pylsqpack.Encoder()
    instructions = encoder.apply_settings(4096, 16)
    for _ in range(3):
        more, block = encoder.encode(0, [(b"x", b"y" * 30)])
        instructions += more
    assert block[0]
    decoder = qpack.FieldDecoder(4096, 16, 128, 32 * 1024)
    decoder.feed(instructions)
    assert decoder.decode(0, block)[1] == [(b"x", b"y" * 30)]
    with pytest.raises(qpack.DecompressionFailed):
        decoder.decode(4, b"\0\0" + line)
