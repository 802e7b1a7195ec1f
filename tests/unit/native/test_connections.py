"""Whole connections on both cores: packets sealed and opened alike, and the same facts told."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from aioquic.tls import CipherSuite

from quicedge.quic import frames, protection
from quicedge.quic.connection.drops import DropReason
from tests.support.quicpair import make_pair
from tests.support.simnet import Link, Pair, transmit
from tests.support.twins import both
from tests.unit.quic.test_pair import shake_hands, transfer_both_ways
from tests.unit.quic.test_runs import connected, deliver, flight, received

PURE, COMPILED = both("PacketCipher")
PURE_ACK, COMPILED_ACK = both("parse_ack")


class Watched:
    """Both ciphers with one key, which must always answer alike."""

    calls: ClassVar[Counter[str]] = Counter()

    def __init__(self, *key: Any) -> None:
        self._twins = PURE(*key), COMPILED(*key)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            pure, compiled = (getattr(twin, name)(*arguments) for twin in self._twins)
            assert pure == compiled, name
            Watched.calls[name] += 1
            if name == "open_run":
                for _, _, _, content, *_ in compiled[2]:
                    if isinstance(content, tuple):
                        note_ranges(*(len(ack[1]) for ack in content))
            return compiled

        return call


def note_ranges(*counts: int) -> None:
    """Keep the largest number of ranges of an ACK frame."""
    Watched.calls["ranges"] = max(Watched.calls["ranges"], *counts)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Every connection of the test seals, opens and parses ACK frames with both cores."""

    def parse_ack(*arguments: Any) -> Any:
        pure, compiled = PURE_ACK(*arguments), COMPILED_ACK(*arguments)
        assert pure == compiled
        note_ranges(len(pure[0]) if pure else 0)
        return compiled

    Watched.calls = Counter()
    monkeypatch.setattr(protection, "PacketCipher", Watched)
    monkeypatch.setattr(frames, "parse_ack", parse_ack)
    return Watched.calls


@pytest.mark.parametrize("suite", [
    CipherSuite.AES_128_GCM_SHA256, CipherSuite.AES_256_GCM_SHA384,
    CipherSuite.CHACHA20_POLY1305_SHA256,
])  # fmt: skip
@pytest.mark.parametrize("own_client", [False, True], ids=["aioquic client", "our client"])
def test_transfers_through_loss_and_reordering(
    watched: Counter[str], suite: CipherSuite, own_client: bool
) -> None:
    link = {"loss": 0.03, "jitter": 0.004, "duplicates": 0.05}
    options = {"cipher_suites": [suite]}
    pair = make_pair(
        Link(**link), Link(**link), client_options=options, server_options=options,
        own_client=own_client,
    )  # fmt: skip
    shake_hands(pair)
    transfer_both_ways(pair, 200_000)
    assert pair.server.connection.handshake.suite is suite
    assert watched["open_run"]
    assert watched["seal_run"]
    assert watched["seal_one"]
    assert watched["open_one"]
    assert watched["ranges"] > 2


def test_key_updates_of_either_side_in_mid_transfer(watched: Counter[str]) -> None:
    pair = make_pair(Link(loss=0.01, jitter=0.004), Link(loss=0.01, jitter=0.004), own_client=True)
    shake_hands(pair)
    for number, side in enumerate((pair.client, pair.server, pair.client)):
        side.connection.request_key_update()
        transfer_both_ways(pair, 60_000)
        assert pair.server.connection.handshake.phases.updates == number + 1
    assert watched["open_run"]


def test_acks_of_many_ranges(watched: Counter[str]) -> None:
    pair = connected()
    server, client = pair.server.connection, pair.client.connection
    client.send_stream_data(0, b"?")
    pair.run(lambda: received(pair, 0) == b"?")
    server.send_stream_data(0, bytes(400_000), end_stream=True)
    for turn in range(60):
        for number, (data, _, _) in enumerate(transmit(server, pair.now)):
            if number % 2 == turn % 2:
                client.receive_datagram(data, pair.server.address, pair.now)
        pair.now += 0.03
        deliver(pair, [data for data, _ in client.datagrams_to_send(pair.now)])
        server.handle_timeout(pair.now)
    assert watched["ranges"] > 10


# --- the same facts from both ---------------------------------------------------------------------


class Apart:
    """The cipher in Python, which joins nothing: as for a connection that is traced."""

    def __init__(self, *key: Any) -> None:
        self._cipher = PURE(*key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cipher, name)

    def open_run(
        self, phase: int, run: list[bytes], at: int, cid: bytes, expected: int, join: bool
    ) -> Any:
        return self._cipher.open_run(phase, run, at, cid, expected, False)


def facts(pair: Pair, before: tuple[int, int]) -> dict[str, Any]:
    """What the server tells of what it received since `before`."""
    server = pair.server.connection
    return {
        "streams": {stream_id: received(pair, stream_id) for stream_id in (0, 4)},
        "packets": server.counters.packets_received - before[0],
        "frames": server.counters.frames_received - before[1],
        "dropped": dict(server.counters.packets_dropped),
        "reordered": server.counters.packets_reordered,
        "updates": server.handshake.phases.updates,
        "window": server.streams.window.used,
        "state": server.state,
        "close": server.close_event,
    }


def given(cipher: Any, monkeypatch: pytest.MonkeyPatch, scenario: Callable[[Pair], Any]) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(protection, "PacketCipher", cipher)
        pair = connected()
        counters = pair.server.connection.counters
        before = counters.packets_received, counters.frames_received
        scenario(pair)
        return facts(pair, before)


def a_spoiled_run(pair: Pair) -> None:
    client = pair.client.connection
    client.send_stream_data(0, bytes(range(256)) * 40)
    client.send_stream_data(4, b"4" * 5000, end_stream=True)
    run = flight(pair)
    rng = random.Random(5)
    run[3], run[4] = run[4], run[3]
    run.insert(6, run[5])
    run.insert(2, run[2][:-1] + bytes((run[2][-1] ^ 1,)))
    run.append(run[1][:25])
    run.append(b"\x40" + rng.randbytes(60))
    deliver(pair, run)


def a_key_update_within_a_run(pair: Pair) -> None:
    client = pair.client.connection
    client.send_stream_data(0, b"a" * 5000)
    run = flight(pair)
    client.request_key_update()
    client.send_stream_data(0, b"b" * 5000)
    run += flight(pair)
    half = len(run) // 2
    run[half - 1], run[half] = run[half], run[half - 1]
    deliver(pair, [*run, run[half]])


def a_close_within_a_run(pair: Pair) -> None:
    client = pair.client.connection
    client.send_stream_data(0, b"a" * 6000)
    early = flight(pair)
    client.send_stream_data(0, b"b" * 6000)
    late = flight(pair)
    client.close(error_code=7, reason_phrase="enough")
    closing = [data for data, _ in client.datagrams_to_send(pair.now)]
    assert closing
    deliver(pair, early + closing + late)


SCENARIOS = [a_spoiled_run, a_key_update_within_a_run, a_close_within_a_run]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_both_cores_and_single_packets_yield_the_same_facts(
    scenario: Callable[[Pair], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = given(Apart, monkeypatch, scenario)
    assert given(PURE, monkeypatch, scenario) == expected
    assert given(COMPILED, monkeypatch, scenario) == expected
    assert expected["packets"] > 4
    match scenario.__name__:
        case "a_spoiled_run":
            assert expected["streams"] == {0: bytes(range(256)) * 40, 4: b"4" * 5000}
            assert expected["dropped"][DropReason.DUPLICATE] == 1
            assert expected["dropped"][DropReason.DECRYPTION_FAILURE] == 1
        case "a_key_update_within_a_run":
            assert expected["streams"][0] == b"a" * 5000 + b"b" * 5000
            assert expected["updates"] == 1
        case "a_close_within_a_run":
            assert expected["streams"][0] == b"a" * 6000
            assert expected["close"].error_code == 7
