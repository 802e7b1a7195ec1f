"""What a datagram with a forged source can make a worker keep."""

from __future__ import annotations

import tracemalloc

from aioquic.buffer import Buffer
from aioquic.quic.packet import QuicErrorCode

from quicedge.config.limits import MAX_CRYPTO_OFFSET
from tests.support.initials import crypto_frame, initial
from tests.support.world import NOW, Path, World


def test_a_crypto_offset_beyond_any_handshake_closes_and_pins_nothing() -> None:
    world = World()
    world.receive(initial(crypto_frame(0, b"\1")))  # what is loaded once is not counted
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        world.receive(initial(crypto_frame(MAX_CRYPTO_OFFSET, b"x")), path=Path(("192.0.2.8", 1)))
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    close = next(c for c in world.endpoint.connections if c._close_event is not None)._close_event
    assert close.error_code == QuicErrorCode.CRYPTO_BUFFER_EXCEEDED
    # An ordinary newcomer's share; the gap below the offset would be 64 KB more.
    assert held < 150_000


def test_half_open_handshakes_never_exceed_their_cap() -> None:
    world = World(retry="off", max_half_open=5)
    for number in range(50):
        world.receive(initial(crypto_frame(10, b"x")), path=Path((f"192.0.2.{number}", 1)))
    assert len(world.endpoint.half_open) == 5
    assert len(world.endpoint.connections) == 5
    for later in range(1, 12):
        world.endpoint.handle_timers(NOW + later)
        world.endpoint.flush(NOW + later)
    assert not world.endpoint.half_open


def test_path_challenges_that_wait_for_their_answer_are_bounded() -> None:
    world = World()
    client = world.client()
    world.talk(client)
    (connection,) = world.endpoint.connections
    path = connection._network_paths[0]

    class Context:
        network_path = path

    for number in range(1000):
        challenge = Buffer(data=number.to_bytes(8, "big"))
        connection._handle_path_challenge_frame(Context(), 0x1A, challenge)  # type: ignore[arg-type]
    assert len(path.remote_challenges) <= 32
