"""Path MTU discovery: from the ceiling down, and back to 1200 when a path swallows datagrams."""

from __future__ import annotations

import pytest

from quicedge.config.limits import MTU_BLACK_HOLE_COOLDOWN
from quicedge.quic.pmtud import PathMtu


def search(path: int, ceiling: int = 1472, now: float = 0.0) -> tuple[PathMtu, list[int]]:
    """Probe a path that carries datagrams up to `path` bytes."""
    mtu = PathMtu(ceiling)
    probes = []
    while (size := mtu.next_probe(now)) is not None:
        assert mtu.next_probe(now) is None  # one at a time
        probes.append(size)
        mtu.on_probe(size, size <= path)
    return mtu, probes


@pytest.mark.parametrize(
    ("path", "found"), [(1500, 1472), (1472, 1472), (1452, 1404), (1380, 1352), (1300, 1280),
                        (1210, 1200)],
)  # fmt: skip
def test_the_largest_step_that_fits_is_found(path: int, found: int) -> None:
    mtu, probes = search(path)
    assert mtu.current == found
    assert len(probes) <= 8


def test_a_larger_size_is_looked_for_again_later() -> None:
    mtu, _ = search(1300)
    assert mtu.next_probe(10) is None
    assert mtu.next_probe(601) == 1472


def test_a_black_hole_falls_back_to_the_base_for_a_while() -> None:
    mtu, _ = search(1500)
    mtu.on_black_hole(5.0)
    assert mtu.current == 1200
    assert mtu.next_probe(5.0 + MTU_BLACK_HOLE_COOLDOWN - 1) is None
    assert mtu.next_probe(5.0 + MTU_BLACK_HOLE_COOLDOWN) == 1472


def test_a_probe_from_before_the_black_hole_says_nothing() -> None:
    mtu = PathMtu(1472)
    size = mtu.next_probe(0.0)
    assert size == 1472
    mtu.on_black_hole(5.0)
    assert not mtu.on_probe(size, delivered=True)
    assert mtu.current == 1200


def test_the_peer_may_take_less() -> None:
    mtu = PathMtu(1472)
    mtu.limit(1300)
    assert mtu.next_probe(0) == 1300


def test_nothing_to_find_below_the_base() -> None:
    assert PathMtu(1200).next_probe(0) is None
