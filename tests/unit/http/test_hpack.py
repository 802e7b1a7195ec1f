"""HPACK against the library hpack, and its bounds."""

from __future__ import annotations

import pytest
from hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config.limits import H2_CACHED_SECTIONS, H2_HEADER_TABLE
from quicedge.http.hpack import FieldDecoder, FieldEncoder, HpackError, SectionBomb
from quicedge.http.message import Field

NAMES = st.sampled_from(
    [b":status", b":path", b"date", b"etag", b"cookie", b"set-cookie", b"x", b"x-long-name"]
)
VALUES = st.one_of(st.sampled_from([b"", b"200", b"/", b"a value"]), st.binary(max_size=300))
SECTIONS = st.lists(st.lists(st.tuples(NAMES, VALUES), max_size=8), max_size=12)
SIZES = st.lists(st.sampled_from([0, 60, 200, 4096, 10_000]), max_size=12)
LIMITS = 65_536, 128


@given(SECTIONS, SIZES, st.booleans())
def test_what_any_encoder_writes_is_read(
    sections: list[list[Field]], sizes: list[int], huffman: bool
) -> None:
    encoder, decoder = Encoder(), FieldDecoder(*LIMITS)
    for index, fields in enumerate(sections):
        if index < len(sizes):
            encoder.header_table_size = min(sizes[index], H2_HEADER_TABLE)
        block = encoder.encode(fields, huffman=huffman)
        assert decoder.decode(block).fields == fields


@given(SECTIONS, SIZES)
def test_what_is_written_any_decoder_reads(sections: list[list[Field]], sizes: list[int]) -> None:
    encoder, decoder = FieldEncoder(), Decoder()
    for index, fields in enumerate(sections * 2):
        if index < len(sizes):
            encoder.use_table(sizes[index])
            encoder.use_table(sizes[-1])
        decoded = decoder.decode(encoder.encode(fields), raw=True)
        assert [(bytes(name), bytes(value)) for name, value in decoded] == fields


def test_what_repeats_takes_a_byte_per_field() -> None:
    encoder = FieldEncoder()
    fields = [(b":status", b"200"), (b"content-type", b"text/html"), (b"server", b"edge")]
    first, second, third = (encoder.encode(fields) for _ in range(3))
    assert len(first) > 10
    assert len(second) > 10, "inserted when it occurs again"
    assert len(third) == len(fields)


def test_values_that_never_repeat_leave_the_table_alone() -> None:
    encoder = FieldEncoder()
    kept = [(b":status", b"200"), (b"server", b"edge")]
    for _ in range(3):
        encoder.encode(kept)
    for number in range(1000):
        encoder.encode([(b"request-id", b"%d" % number), (b"etag", b'"%d"' % number)])
    assert len(encoder.encode(kept)) == len(kept)


def test_cookies_that_a_server_sets_are_never_inserted() -> None:
    encoder = FieldEncoder()
    secret = [(b"set-cookie", b"session=0123456789abcdef")]
    assert len({len(encoder.encode(secret)) for _ in range(5)}) == 1


def test_equal_blocks_are_decoded_once() -> None:
    decoder, encoder = FieldDecoder(*LIMITS), Encoder()
    fields = [(b":method", b"GET"), (b"x", b"y")]
    encoder.encode(fields)
    first = decoder.decode(b"\x82\x40\x01x\x01y")
    same = decoder.decode(encoder.encode(fields))
    assert same is not first
    assert decoder.decode(b"\x82\xbe") is same
    decoder.decode(b"\x40\x01z\x01z")  # everything moves by one
    assert decoder.decode(b"\x82\xbe").fields == [(b":method", b"GET"), (b"z", b"z")]


def test_remembered_blocks_are_bounded() -> None:
    decoder = FieldDecoder(*LIMITS)
    for number in range(1000):
        decoder.decode(b"\x00\x01x\x03%03d" % number)
    assert len(decoder._sections) <= H2_CACHED_SECTIONS


@pytest.mark.parametrize(
    "block",
    [
        b"\x80", b"\xbe", b"\xff\xff\xff\xff\xff\xff\x7f", b"\x00\x05ab", b"\x00", b"\x40",
        b"\x82\x20", b"\x3f\xe2\x1f", b"\x00\x81\xff\x00", b"\x00\x01a\x84\xff\xff\xff\xff",
        b"\x7e\x01a", b"\x00\x01a\x81\x00",
    ],
    ids=[
        "index 0", "index beyond the table", "long integer", "short string", "no name",
        "no name to insert", "size update at the end", "size update beyond the setting",
        "padding of zeros", "end of string", "name beyond the table", "padding not of ones",
    ],
)  # fmt: skip
def test_malformed_blocks(block: bytes) -> None:
    with pytest.raises(HpackError):
        FieldDecoder(*LIMITS).decode(block)


@given(st.binary(max_size=200))
def test_no_block_raises_anything_else(block: bytes) -> None:
    decoder = FieldDecoder(1000, 10)
    for _ in range(2):
        try:
            decoder.decode(block)
        except (HpackError, SectionBomb):
            return


def test_a_section_beyond_the_limit_keeps_the_table_in_step() -> None:
    encoder, decoder = Encoder(), FieldDecoder(1000, 128)
    too_large = decoder.decode(encoder.encode([(b"a", b"1" * 900), (b"b", b"2" * 900)]))
    assert too_large.too_large
    assert [name for name, _ in too_large.fields] == [b"a"]
    after = decoder.decode(encoder.encode([(b"b", b"2" * 900)]))
    assert after.fields == [(b"b", b"2" * 900)]
    assert not after.too_large


def test_references_to_one_large_entry_expand_to_nothing_large() -> None:
    decoder, encoder = FieldDecoder(*LIMITS), Encoder()
    decoder.decode(encoder.encode([(b"x", b"y" * 4000)]))
    with pytest.raises(SectionBomb):
        decoder.decode(b"\xbe" * 100_000)


def test_strings_too_long_to_decode_are_too_large() -> None:
    decoder = FieldDecoder(1 << 20, 128)
    encoder = Encoder()
    for huffman in (True, False):
        section = decoder.decode(encoder.encode([(b"x", b"y" * 100_000)], huffman=huffman))
        assert section.fields != [(b"x", b"y" * 100_000)]
    assert decoder.decode(encoder.encode([(b"x", b"y")])).fields == [(b"x", b"y")]
