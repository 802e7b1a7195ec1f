"""Where a connection ID leads: the same for workers and for the kernel's program."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config.limits import CONNECTION_ID_LENGTH
from quicedge.udp.connection_id_codec import ConnectionIdCodec


def run(program: bytes, packet: bytes) -> int:
    """What the kernel does with a classic BPF program: the value it returns."""
    instructions = list(struct.iter_unpack("=HBBI", program))
    accumulator = at = 0
    while True:
        code, jump_true, jump_false, k = instructions[at]
        at += 1
        if code == 0x80:  # LD LEN
            accumulator = len(packet)
        elif code == 0x30:  # LD ABS, one byte
            if k >= len(packet):
                return 0
            accumulator = packet[k]
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


@given(st.integers(1, 128), st.data())
def test_an_id_leads_to_its_slot_in_packets_of_both_forms(slots: int, data: st.DataObject) -> None:
    codec = ConnectionIdCodec(slots)
    slot = data.draw(st.integers(0, slots - 1))
    cid = codec.make(slot, data.draw(st.binary(min_size=8, max_size=8)))
    assert len(cid) == CONNECTION_ID_LENGTH
    for packet in (b"\x40" + cid + bytes(20), b"\xc0\0\0\0\1\x08" + cid + bytes(20)):
        assert codec.slot_of(packet) == slot
        assert run(codec.program(), packet) == slot


@given(st.integers(1, 128), st.binary(max_size=40))
def test_the_kernel_and_workers_agree_on_any_datagram(slots: int, packet: bytes) -> None:
    codec = ConnectionIdCodec(slots)
    assert run(codec.program(), packet) == codec.slot_of(packet) < slots


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
