"""A plain mutator, for where atheris does not run: seeds cut, joined, repeated and flipped."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

MOST = 4096
"""Bytes of an input."""


def inputs(seeds: Sequence[bytes], rng: random.Random) -> Iterator[bytes]:
    """The seeds, then mutations of them without end."""
    yield from seeds
    while True:
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 6)):
            _mutate(data, seeds, rng)
        yield bytes(data[:MOST])


def mutate(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """`data` with one change, which may take a piece of `others`."""
    changed = bytearray(data)
    _mutate(changed, others, rng)
    return bytes(changed)


def _mutate(data: bytearray, seeds: Sequence[bytes], rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.randint(1, 16))
    kind = rng.randrange(6)
    if kind == 0:
        data[at:at] = rng.randbytes(rng.randint(1, 8))
    elif kind == 1:
        del data[at:end]
    elif kind == 2 and data:
        data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
    elif kind == 3:
        data[at:end] = data[at:end] * rng.randint(2, 8)
    elif kind == 4:
        # Lengths and offsets at the edges of their encodings.
        edge = rng.choice((0x00, 0x3F, 0x40, 0x7FFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF))
        data[at:end] = edge.to_bytes(8, "big").lstrip(b"\0") or b"\0"
    else:
        other = rng.choice(seeds)
        cut = rng.randrange(len(other) + 1)
        data[at:] = other[cut:]
