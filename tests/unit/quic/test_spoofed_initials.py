"""What a datagram with a forged source can make a worker keep."""

from __future__ import annotations

import tracemalloc

from aioquic.quic.packet import QuicErrorCode

from quicedge.config.limits import MAX_CRYPTO_OFFSET, MAX_REMOTE_CHALLENGES
from quicedge.quic.frames import PathChallenge
from tests.support.hostile import Hostile
from tests.support.initials import crypto_frame, initial
from tests.support.world import CLIENT, NOW, Path, World


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
    (close,) = (c.close_event for c in world.endpoint.connections if c.close_event is not None)
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
    challenges = b"".join(PathChallenge(n.to_bytes(8, "big")).encode() for n in range(100))
    hostile = Hostile().connect()
    for _ in range(10):
        hostile.world.endpoint.receive(hostile.packet(challenges), CLIENT, NOW)
    path = hostile.server.paths.active
    answered = len(path.responses)
    assert 0 < answered <= MAX_REMOTE_CHALLENGES
    assert hostile.verdict is None
