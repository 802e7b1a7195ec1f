"""Where a connection ID leads: the same for workers and for the kernel's program."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import struct
from socket import AF_INET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config.limits import CONNECTION_ID_LENGTH, MAX_WORKERS
from quicedge.udp import kernel
from quicedge.udp.connection_id_codec import ConnectionIdCodec, Routes, bank_of, slot_number
from quicedge.udp.connection_id_layout import PLAIN, ConnectionIdLayout, QuicLbLayout
from quicedge.udp.quic_lb import QuicLb
from quicedge.udp.socket import open_socket

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
        elif code == 0xAC:  # XOR X
            accumulator ^= register
        elif code == 0x07:  # TAX
            register = accumulator
        elif code == 0x15:  # JEQ
            at += jump_true if accumulator == k else jump_false
        elif code == 0x35:  # JGE
            at += jump_true if accumulator >= k else jump_false
        elif code == 0x45:  # JSET
            at += jump_true if accumulator & k else jump_false
        elif code == 0x25:  # JGT
            at += jump_true if accumulator > k else jump_false
        elif code == 0x05:  # JA
            at += k
        elif code == 0x04:  # ADD
            accumulator = (accumulator + k) % (1 << 32)
        elif code == 0x54:  # AND
            accumulator &= k
        elif code == 0x94:  # MOD
            accumulator %= k
        elif code == 0x16:  # RET A
            return accumulator
        else:
            assert code == 0x06, code  # RET
            return k


@st.composite
def routings(draw: st.DrawFn) -> Routes:
    """One or two banks of workers, some of which may be gone, on sockets in any order."""
    active = draw(st.integers(0, 1))
    slots = [slot_number(active, worker) for worker in range(draw(st.integers(1, MAX_WORKERS)))]
    others = range(slot_number(1 - active, 0), slot_number(1 - active, 0) + MAX_WORKERS)
    slots += draw(st.lists(st.sampled_from(others), unique=True, max_size=MAX_WORKERS))
    numbers = draw(st.one_of(st.just(list(range(len(slots)))), st.permutations(range(len(slots)))))
    return Routes(active, dict(zip(slots, numbers, strict=True)))


def packets_to(cid: bytes) -> dict[str, bytes]:
    """Packets of all kinds with this destination connection ID."""
    long = bytes((len(cid),)) + cid + bytes(40)
    return {
        "short": b"\x40" + cid + bytes(40),
        "initial": b"\xc0\0\0\0\1" + long,
        "0-RTT": b"\xd0\0\0\0\1" + long,
        "handshake": b"\xe0\0\0\0\1" + long,
        "initial v2": b"\xd0\x6b\x33\x43\xcf" + long,
        "0-RTT v2": b"\xe0\x6b\x33\x43\xcf" + long,
        "handshake v2": b"\xf0\x6b\x33\x43\xcf" + long,
    }


@given(routings(), LAYOUTS, st.data())
def test_settled_packets_go_to_the_slot_in_their_id_and_first_ones_to_the_active_bank(
    routes: Routes, layout: ConnectionIdLayout, data: st.DataObject
) -> None:
    codec = ConnectionIdCodec(layout)
    slot = data.draw(st.sampled_from(sorted(routes.sockets)))
    cid = codec.make(slot, data.draw(st.binary(min_size=codec.entropy, max_size=codec.entropy)))
    assert len(cid) == codec.length == layout.length
    for kind, packet in packets_to(cid).items():
        assert codec.slot_of(packet) == slot
        to = codec.route(packet, routes)
        if kind in ("short", "handshake", "handshake v2") or bank_of(slot) == routes.active:
            assert to == slot, kind
        else:
            assert bank_of(to) == routes.active, kind
        assert run(codec.program(routes), packet) == routes.sockets[to], kind


@given(routings(), LAYOUTS, st.binary(min_size=1, max_size=60))
def test_the_kernel_and_workers_agree_on_any_datagram(
    routes: Routes, layout: ConnectionIdLayout, packet: bytes
) -> None:
    codec = ConnectionIdCodec(layout)
    to = codec.route(packet, routes)
    assert run(codec.program(routes), packet) == routes.sockets[to]


@given(st.integers(0, 127), st.integers(1, MAX_WORKERS))
def test_what_a_worker_that_is_gone_would_get_goes_to_the_active_bank(
    slot: int, workers: int
) -> None:
    """They answer with stateless resets."""
    codec = ConnectionIdCodec()
    routes = Routes(0, {worker: worker for worker in range(workers)})
    for packet in packets_to(codec.make(slot, bytes(codec.entropy))).values():
        assert run(codec.program(routes), packet) < workers


@given(
    routings(),
    LAYOUTS,
    st.binary(min_size=8, max_size=20),
    st.binary(max_size=20),
    st.binary(max_size=70),
)
def test_the_first_packets_of_a_client_reach_one_worker(
    routes: Routes, layout: ConnectionIdLayout, chosen: bytes, source: bytes, token: bytes
) -> None:
    codec = ConnectionIdCodec(layout)
    start = bytes((len(chosen),)) + chosen + bytes((len(source),)) + source
    initial = b"\xc0\0\0\0\1" + start + bytes((len(token),)) + token + bytes(40)
    early = b"\xd0\0\0\0\1" + start + b"\x44\xb0" + bytes(40)
    assert codec.route(initial, routes) == codec.route(early, routes)
    assert bank_of(codec.route(initial, routes)) == routes.active


def test_the_longest_program_is_one_that_the_kernel_takes() -> None:
    """64 workers on sockets in the order that is longest to describe."""
    slots = [*range(MAX_WORKERS), *range(64, 64 + MAX_WORKERS)]
    routes = Routes(1, dict(zip(slots, reversed(range(128)), strict=True)))
    with contextlib.ExitStack() as stack:
        port, group = 0, []
        for _ in range(128):
            sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(("127.0.0.1", port))
            port = sock.getsockname()[1]
            group.append(sock)
        codec = ConnectionIdCodec()
        codec.steer(group[0], routes)
        client = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        client.connect(("127.0.0.1", port))
        for slot in (0, 5, 63, 64, 99, 127):
            for kind, packet in packets_to(codec.make(slot, bytes(codec.entropy))).items():
                client.send(packet)
                receiver = group[routes.sockets[codec.route(packet, routes)]]
                receiver.settimeout(5)
                assert receiver.recv(2048) == packet, (slot, kind)


@pytest.mark.skipif(not kernel.IS_LINUX, reason="steering needs Linux")
@pytest.mark.parametrize("layout", [PLAIN, AWS, ENCRYPTED], ids=["plain", "AWS", "encrypted"])
def test_the_kernel_steers_as_workers_do(layout: ConnectionIdLayout) -> None:
    codec = ConnectionIdCodec(layout)
    workers = 3
    routes = Routes(0, {slot_number(0, worker): worker for worker in range(workers)})
    with contextlib.ExitStack() as stack:
        group = []
        port = 0
        for _ in range(workers):
            group.append(stack.enter_context(open_socket(AF_INET, "127.0.0.1", port,
                                                         reuse_port=True)))  # fmt: skip
            port = group[-1].getsockname()[1]
        codec.steer(group[0], routes)
        client = stack.enter_context(socket.socket(AF_INET, socket.SOCK_DGRAM))
        for number in range(60):
            slot = slot_number(0, number % workers)
            cid = codec.make(slot, random.Random(number).randbytes(codec.entropy))
            chosen = random.Random(-number).randbytes(8 + number % 13)
            for packet in (
                b"\x40" + cid + bytes(40),
                b"\xe0\0\0\0\1" + bytes((len(cid),)) + cid + bytes(40),
                b"\xc0\0\0\0\1" + bytes((len(chosen),)) + chosen + bytes(60),
            ):
                client.sendto(packet, ("127.0.0.1", port))
                arrived, _, _ = select.select(group, [], [], 5)
                assert [group.index(sock) for sock in arrived] == [codec.route(packet, routes)]
                arrived[0].recv(2000)


def test_plain_ids_are_a_slot_value_and_random_bytes() -> None:
    assert PLAIN.length == CONNECTION_ID_LENGTH


def test_ids_of_a_fleet_begin_as_balancers_expect_and_end_with_the_slot() -> None:
    codec = ConnectionIdCodec(AWS)
    cid = codec.make(5, bytes(range(codec.entropy)))
    assert cid.hex().startswith("0d010203040506070801020304")
    assert len(cid) == 14


def test_the_slot_of_a_fleet_is_not_visible() -> None:
    """All IDs of one slot: with one slot value only, the last byte still takes all values."""
    codec = ConnectionIdCodec(ENCRYPTED)
    last = {codec.make(7, bytes(5) + bytes((n, n ^ 5, 0, n)))[-1] for n in range(256)}
    assert len(last) > 128


def test_another_key_makes_other_ids_that_lead_to_the_same_slot() -> None:
    layout = QuicLbLayout(QuicLb(0, 2, 8, b"k" * 16), b"\1\2", b"secretly")
    codec = ConnectionIdCodec(layout)
    old = codec.make(3, bytes(codec.entropy))
    layout.use(QuicLb(1, 2, 8, b"K" * 16), b"\1\2")
    new = codec.make(3, bytes(codec.entropy))
    assert (old[0] >> 5, new[0] >> 5) == (0, 1)
    assert {codec.slot_of(b"\x40" + cid + bytes(30)) for cid in (old, new)} == {3}
    with pytest.raises(ValueError, match="restart"):
        layout.use(QuicLb(1, 3, 8), b"\1\2\3")


def test_all_values_of_a_slot_are_used() -> None:
    codec = ConnectionIdCodec()
    first = {codec.make(3, bytes((byte,)) + bytes(7))[0] for byte in range(256)}
    assert first == {3, 3 + 128}


def test_a_slot_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="slot 128"):
        ConnectionIdCodec().make(128, bytes(8))
