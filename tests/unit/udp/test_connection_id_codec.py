"""Where a connection ID leads: the same for workers and for the kernel's program."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config.limits import CONNECTION_ID_LENGTH
from quicedge.udp.connection_id_codec import ConnectionIdCodec
from quicedge.udp.connection_id_layout import PLAIN, ConnectionIdLayout, QuicLbLayout
from quicedge.udp.quic_lb import QuicLb

AWS = QuicLbLayout(QuicLb(0, 8, 4), bytes.fromhex("0102030405060708"), b"\x9e\x37\x79\xb9" * 2)
ENCRYPTED = QuicLbLayout(QuicLb(3, 2, 8, b"k" * 16), b"\1\2", b"secretly")
LAYOUTS = st.sampled_from([PLAIN, AWS, ENCRYPTED])


def run(program: bytes, packet: bytes) -> int:
    """What the kernel does with a classic BPF program: the value it returns."""
    instructions = list(struct.iter_unpack("=HBBI", program))
    accumulator = at = register = 0
    while True:
        code, jump_true, jump_false, k = instructions[at]
        at += 1
        if code == 0x80:  # LD LEN
            accumulator = len(packet)
        elif code == 0x30:  # LD ABS, one byte
            if k >= len(packet):
                return 0
            accumulator = packet[k]
        elif code == 0x20:  # LD ABS, four bytes
            if k + 4 > len(packet):
                return 0
            accumulator = int.from_bytes(packet[k : k + 4], "big")
        elif code == 0x24:  # MUL
            accumulator = accumulator * k & 0xFFFFFFFF
        elif code == 0x74:  # RSH
            accumulator >>= k
        elif code == 0xA4:  # XOR
            accumulator ^= k
        elif code == 0xA8:  # XOR X
            accumulator ^= register
        elif code == 0x07:  # TAX
            register = accumulator
        elif code == 0x15:  # JEQ
            at += jump_true if accumulator == k else jump_false
        elif code == 0x35:  # JGE
            at += jump_true if accumulator >= k else jump_false
        elif code == 0x45:  # JSET
            at += jump_true if accumulator & k else jump_false
        elif code == 0x94:  # MOD
            accumulator %= k
        elif code == 0x16:  # RET A
            return accumulator
        else:
            assert code == 0x06, code  # RET
            return k


@given(st.integers(1, 128), LAYOUTS, st.data())
def test_an_id_leads_to_its_slot_in_packets_of_both_forms(
    slots: int, layout: ConnectionIdLayout, data: st.DataObject
) -> None:
    codec = ConnectionIdCodec(slots, layout)
    slot = data.draw(st.integers(0, slots - 1))
    cid = codec.make(slot, data.draw(st.binary(min_size=codec.entropy, max_size=codec.entropy)))
    assert len(cid) == codec.length == layout.length
    for packet in (
        b"\x40" + cid + bytes(40), b"\xc0\0\0\0\1" + bytes((len(cid),)) + cid + bytes(40)
    ):  # fmt: skip
        assert codec.slot_of(packet) == slot
        assert run(codec.program(), packet) == slot


@given(st.integers(1, 128), LAYOUTS, st.binary(max_size=60))
def test_the_kernel_and_workers_agree_on_any_datagram(
    slots: int, layout: ConnectionIdLayout, packet: bytes
) -> None:
    codec = ConnectionIdCodec(slots, layout)
    assert run(codec.program(), packet) == codec.slot_of(packet) < slots


@given(LAYOUTS, st.binary(min_size=8, max_size=20), st.binary(max_size=20), st.binary(max_size=70))
def test_the_first_packets_of_a_client_reach_one_worker(
    layout: ConnectionIdLayout, chosen: bytes, source: bytes, token: bytes
) -> None:
    codec = ConnectionIdCodec(16, layout)
    start = bytes((len(chosen),)) + chosen + bytes((len(source),)) + source
    initial = b"\xc0\0\0\0\1" + start + bytes((len(token),)) + token + bytes(40)
    early = b"\xd0\0\0\0\1" + start + b"\x44\xb0" + bytes(40)
    assert codec.slot_of(initial) == codec.slot_of(early)


def test_plain_ids_are_a_slot_value_and_random_bytes() -> None:
    assert PLAIN.length == CONNECTION_ID_LENGTH


def test_ids_of_a_fleet_begin_as_balancers_expect_and_end_with_the_slot() -> None:
    codec = ConnectionIdCodec(8, AWS)
    cid = codec.make(5, bytes(range(codec.entropy)))
    assert cid.hex().startswith("0d010203040506070801020304")
    assert len(cid) == 14


def test_the_slot_of_a_fleet_is_not_visible() -> None:
    """All IDs of one slot: with one slot value only, the last byte still takes all values."""
    codec = ConnectionIdCodec(128, ENCRYPTED)
    last = {codec.make(7, bytes(5) + bytes((n, n ^ 5, 0, n)))[-1] for n in range(256)}
    assert len(last) > 128


def test_another_key_makes_other_ids_that_lead_to_the_same_slot() -> None:
    layout = QuicLbLayout(QuicLb(0, 2, 8, b"k" * 16), b"\1\2", b"secretly")
    codec = ConnectionIdCodec(4, layout)
    old = codec.make(3, bytes(codec.entropy))
    layout.use(QuicLb(1, 2, 8, b"K" * 16), b"\1\2")
    new = codec.make(3, bytes(codec.entropy))
    assert (old[0] >> 5, new[0] >> 5) == (0, 1)
    assert {codec.slot_of(b"\x40" + cid + bytes(30)) for cid in (old, new)} == {3}
    with pytest.raises(ValueError, match="restart"):
        layout.use(QuicLb(1, 3, 8), b"\1\2\3")


def test_all_values_of_a_slot_are_used() -> None:
    codec = ConnectionIdCodec(8)
    first = {codec.make(3, bytes((byte,)) + bytes(7))[0] for byte in range(256)}
    assert first == set(range(3, 256, 8))


@pytest.mark.parametrize("slots", [0, 129])
def test_numbers_of_slots_that_one_byte_cannot_encode_are_refused(slots: int) -> None:
    with pytest.raises(ValueError, match="number of slots"):
        ConnectionIdCodec(slots)


def test_a_slot_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="slot 8"):
        ConnectionIdCodec(8).make(8, bytes(8))
