"""A sender paced to a packet at a time measured no delivery rate, so BBR forgot its bottleneck.

Only batches of two packets or more were sampled; for seconds there was none, the old estimates
ran out, and the rate fell to four fifths of the link until the next probe.
"""

from __future__ import annotations

import pytest

from tests.support.quicpair import make_pair
from tests.support.simnet import Link

RATE = 250_000
"""Bytes per second: a packet takes six milliseconds, so pacing never lets two go at once."""


@pytest.mark.parametrize("controller", ["bbr", "cubic"])
def test_a_slow_link_is_measured_and_filled(controller: str) -> None:
    pair = make_pair(
        down=Link(delay=0.02, rate=RATE, queue=30_000),
        up=Link(delay=0.02),
        server_options={"congestion_control_algorithm": controller},
    )
    server, client = pair.server.connection, pair.client.connection
    pair.run(lambda: bool(server.handshake_confirmed and client._handshake_confirmed))
    client.send_stream_data(0, b"?")
    pair.run(lambda: 0 in server.streams)
    received = 0

    def count(event: object) -> None:
        nonlocal received
        received += len(getattr(event, "data", b""))

    pair.client.on_event = count
    server.send_stream_data(0, bytes(20 * RATE))
    start = pair.now
    pair.run(lambda: received >= 10 * RATE)
    assert received / (pair.now - start) > 0.85 * RATE
    # Headers come on top of what the stream delivers.
    assert server.recovery.delivery_rate == pytest.approx(RATE, rel=0.1)
