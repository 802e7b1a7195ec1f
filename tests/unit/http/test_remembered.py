"""What is remembered is bounded in number and in length, whatever clients send."""

from __future__ import annotations

from quicedge.config.limits import REMEMBERED_NAME
from quicedge.http.remembered import Remembered, RememberedNames


def test_a_full_memory_of_names_keeps_those_that_always_pass() -> None:
    names = RememberedNames(4, [b"accept", b"host"])
    for number in range(9):
        names.remember(b"x-%d" % number)
        assert b"x-%d" % number in names
        assert {b"accept", b"host"} < names
        assert len(names) <= 4
    assert b"x-0" not in names


def test_a_name_longer_than_honest_ones_is_not_kept() -> None:
    names = RememberedNames(4)
    names.remember(b"x" * REMEMBERED_NAME)
    names.remember(b"x" * (REMEMBERED_NAME + 1))
    assert names == {b"x" * REMEMBERED_NAME}


def test_a_full_memory_of_texts_starts_again() -> None:
    texts = Remembered[int](3, 2)
    for number in range(5):
        texts.remember(b"%d" % number, number)
        assert texts[b"%d" % number] == number
        assert len(texts) <= 3
    texts.remember(b"too long", 1)
    assert texts == {b"3": 3, b"4": 4}
