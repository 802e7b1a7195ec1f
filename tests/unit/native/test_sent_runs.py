"""Runs sealed, sent and recorded in one call: the compiled log and its twin send the same."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quicedge import native
from quicedge.config.limits import MAX_BATCH_PACKETS
from quicedge.quic.connection.sent_packets import SentRun
from quicedge.quic.frames import Stream
from tests.support.ranges import runs
from tests.support.twins import both

LOGS, BUFFERS, CIPHERS = both("RunLog"), both("SendBuffer"), both("PacketCipher")
CID = b"8 octets"
HEAD = 1 + len(CID)


class End:
    """One twin: a log, the cipher of its connection, and some streams."""

    def __init__(self, which: int, suite: int, streams: list[int]) -> None:
        length = 16 if suite == 0x1301 else 32
        self.log = LOGS[which]()
        self.cipher = CIPHERS[which](suite, b"k" * length, b"i" * 12, b"h" * length)
        self.buffers = {stream_id: BUFFERS[which]() for stream_id in streams}

    def send(
        self, stream_id: int, number: int, until: int, size: int, most: int, pn_length: int = 2
    ) -> SentRun | None:
        sent: SentRun | None = self.log.send(
            self.cipher, 0x40 | (pn_length - 1), CID, number, STREAMS[stream_id], stream_id,
            self.buffers[stream_id], until, size, most, 5.0, 70, 4.5, True,
        )  # fmt: skip
        return sent


STREAMS = {stream_id: object() for stream_id in (0, 64, 1 << 20)}


@settings(max_examples=150)
@given(seed=st.integers(0, 1 << 32))
def test_whatever_is_written_acknowledged_and_lost_the_same_is_sent(seed: int) -> None:
    rng = Random(seed)
    suite = rng.choice((0x1301, 0x1302, 0x1303))
    twins = [End(which, suite, list(STREAMS)) for which in (0, 1)]
    size = rng.choice((200, 1200, 1472))
    number = 0

    def alike(act: Any) -> Any:
        answers = [act(twin) for twin in twins]
        assert answers[0] == answers[1]
        return answers[0]

    for _ in range(rng.randrange(30)):
        stream_id = rng.choice(list(STREAMS))
        match rng.choice(["write", "send", "send", "acknowledge", "lose"]):
            case "write" if twins[0].buffers[stream_id].fin_offset is None:
                data, fin = rng.randbytes(rng.choice((0, 50, 1500, 9000))), rng.random() < 0.05
                for twin in twins:
                    twin.buffers[stream_id].write(data, fin)
            case "send":
                buffer = twins[0].buffers[stream_id]
                until = max(buffer.end - rng.choice((0, 0, 700)), 0)
                most, pn_length = rng.choice((0, 1, 2, 5, MAX_BATCH_PACKETS)), rng.choice((2, 4))
                arguments = stream_id, number, until, size, most, pn_length
                found = alike(lambda twin, a=arguments: twin.send(*a))
                if found is not None:
                    check(found, number, stream_id, size, pn_length, twins[1])
                    number += found[1]
            case "acknowledge" | "lose" as outcome if number:
                first = rng.randrange(number)
                stop = min(number, first + rng.randrange(1, 12))
                acked = runs(set(range(first, stop)))
                settled = alike(lambda twin, a=acked: twin.log.acknowledge(a))
                for stream, start, end, fin in settled[1] if settled else ():
                    key = next(key for key, value in STREAMS.items() if value is stream)
                    for twin in twins:
                        if outcome == "lose":
                            twin.buffers[key].lost(start, end, fin)
                        else:
                            twin.buffers[key].acked(start, end, fin)
        alike(lambda twin: (twin.log.oldest, bool(twin.log)))
        for key in STREAMS:
            alike(lambda twin, k=key: (twin.buffers[k].pending, twin.buffers[k].highest))


def check(sent: SentRun, number: int, stream_id: int, size: int, pn_length: int, end: End) -> None:
    """What was sent are full packets of the stream, but for the last."""
    data, packets, start, stop, fin, chunk, last_size, fresh, again, _ = sent
    datagrams = [data[at : at + size] for at in range(0, len(data), size)]
    assert len(datagrams) == packets
    assert len(datagrams[-1]) == last_size
    assert fresh + again == stop - start
    at = start
    for index, packet in enumerate(datagrams):
        opened = end.cipher.open_one(packet, HEAD, number + index)
        assert opened is not None
        frame, _ = Stream.parse(opened[2], 1, opened[2][0])
        last = index == packets - 1
        assert (frame.stream_id, frame.offset, frame.fin) == (stream_id, at, fin and last)
        assert len(frame.data) == chunk or last
        at += len(frame.data)
    assert at == stop


def ends() -> list[End]:
    return [End(which, 0x1301, [0]) for which in (0, 1)]


@pytest.mark.parametrize("end", ends(), ids=["pure", "compiled"])
def test_what_does_not_fill_a_packet_is_left_for_one_that_others_share(end: End) -> None:
    end.buffers[0].write(bytes(1000), False)
    assert end.send(0, 0, 1000, 1200, 44) is None
    assert end.buffers[0].pending == (0, 1000)
    assert not end.log
    end.buffers[0].write(bytes(1000), False)
    assert end.send(0, 0, 2000, 1200, 0) is None
    sent = end.send(0, 0, 2000, 1200, 1)
    assert sent is not None
    assert (sent[1], len(sent[0])) == (1, 1200)
    assert sent[9]


@pytest.mark.parametrize("end", ends(), ids=["pure", "compiled"])
def test_a_size_without_room_for_data_sends_nothing(end: End) -> None:
    end.buffers[0].write(bytes(1000), True)
    for size in (0, 20, HEAD + 2 + 6 + 16):
        assert end.send(0, 0, 1000, size, 44) is None
    assert end.buffers[0].pending == (0, 1000)


@pytest.mark.parametrize("end", ends(), ids=["pure", "compiled"])
def test_numbers_that_were_used_are_refused_and_nothing_is_taken(end: End) -> None:
    end.buffers[0].write(bytes(9000), True)
    assert end.send(0, 5, 4000, 1200, 2) is not None
    if isinstance(end.log, LOGS[1]):
        with pytest.raises(ValueError, match="not in order"):
            end.send(0, 6, 9000, 1200, 2)
        assert end.buffers[0].pending is not None
        assert end.buffers[0].pending[0] < 4000


def test_a_cipher_of_another_kind_is_asked_to_seal() -> None:
    end = End(1, 0x1301, [0])
    same = End(1, 0x1301, [0])
    for each in (end, same):
        each.buffers[0].write(bytes(range(256)) * 20, True)
    end.cipher = End(0, 0x1301, [0]).cipher
    assert end.send(0, 0, 5120, 1200, 44) == same.send(0, 0, 5120, 1200, 44)


def test_the_log_in_use_is_the_one_that_was_chosen() -> None:
    from quicedge.quic.connection.sent_packets import RunLog

    assert RunLog is (LOGS[1] if native.compiled is not None else LOGS[0])
