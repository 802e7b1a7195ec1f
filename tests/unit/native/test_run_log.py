"""The compiled log of sent runs and its twin in Python, fed alike, settle alike."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import quicedge.quic.connection.sent_packets  # noqa: F401  it declares the twin
from tests.support.ranges import runs
from tests.support.twins import both

PURE, COMPILED = both("RunLog")

STREAMS = [object(), object()]


@settings(max_examples=300)
@given(seed=st.integers(0, 1 << 32))
def test_packets_are_settled_alike_whatever_arrives(seed: int) -> None:
    rng = Random(seed)
    twins = PURE(), COMPILED()
    number, now = rng.randrange(3), 1.0
    offsets = [0, 0]
    largest = -1

    def alike(name: str, *arguments: Any) -> Any:
        answers = [getattr(twin, name)(*arguments) for twin in twins]
        assert answers[0] == answers[1], name
        return answers[0]

    for _ in range(rng.randrange(60)):
        now += rng.choice((0.0, 0.01, 0.1))
        match rng.choice(["append", "append", "acknowledge", "lose", "repeat"]):
            case "append":
                number += rng.choice((0, 0, 1))
                index = rng.randrange(2)
                packets, last = rng.randrange(1, 8), rng.randrange(1, 101)
                start = offsets[index]
                offsets[index] = end = start + (packets - 1) * 100 + last
                alike(
                    "append", number, number + packets, STREAMS[index], start, end, 100,
                    rng.random() < 0.1, 140, 40 + last, now, rng.randrange(1000), now - 0.1,
                    rng.random() < 0.5,
                )  # fmt: skip
                number += packets
            case "acknowledge" if number:
                first = rng.randrange(number)
                numbers = set(range(first, min(number, first + rng.randrange(1, 30))))
                numbers -= {rng.randrange(number) for _ in range(rng.randrange(4))}
                if numbers:
                    largest = max(largest, *numbers)
                    alike("acknowledge", runs(numbers))
            case "lose":
                alike("lose", largest, largest - 3, rng.choice((0.05, 0.3)), now)
            case "repeat":
                if alike("oldest_unrepeated") is not None:
                    alike("repeat_oldest")
        assert bool(twins[0]) == bool(twins[1])
    alike("acknowledge", [(0, number // 2 + 1)])
    alike("clear")
    assert not twins[1]
