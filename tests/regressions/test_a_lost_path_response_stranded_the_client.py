"""Found by `make soak`: a rebound client whose PATH_RESPONSE was lost never got its response.

The challenge had been acknowledged, so it was not sent again; after 0.6 s the edge went back to the
address that the NAT had given up, and waited there.
"""

from __future__ import annotations

from typing import Any

from tests.support.quicpair import make_pair
from tests.support.simnet import Link

NEW = ("192.0.2.1", 61000)
SIZE = 100_000


def test_a_client_whose_first_answers_are_lost_still_gets_its_response() -> None:
    pair = make_pair(Link(delay=0.05), Link(delay=0.05))
    server, client = pair.server.connection, pair.client.connection
    pair.transmit()
    pair.run(lambda: bool(server.handshake_confirmed and client._handshake_confirmed))
    old = pair.client.address
    pair.client.address = NEW
    unanswered = 2
    answer = client._write_path_response_frame

    def forgetful(builder: Any, challenge: bytes) -> None:
        nonlocal unanswered
        if unanswered:
            # As if the packet with the answer alone were lost: the ACK is not.
            unanswered -= 1
        else:
            answer(builder=builder, challenge=challenge)

    client._write_path_response_frame = forgetful
    send = server.poll_transmit
    # The NAT has forgotten the old address.
    server.poll_transmit = lambda now: [run for run in send(now) if run.path != old]
    received = 0

    def count(event: Any) -> None:
        nonlocal received
        received += len(getattr(event, "data", b""))

    pair.client.on_event = count
    client.send_stream_data(0, b"?", end_stream=True)
    pair.run(lambda: any(getattr(e, "stream_id", None) == 0 for e in pair.server.events))
    start = pair.now
    server.send_stream_data(0, bytes(SIZE), end_stream=True)
    pair.run(lambda: received == SIZE, limit=30)
    assert not unanswered
    assert server.paths.address == NEW
    assert pair.now - start < 2, "within a few round trips"
