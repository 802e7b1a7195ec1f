"""Found by fuzzing: PADDING whose type is written in two bytes was read again and again.

A client could stop a worker that traced its connection.
"""

from __future__ import annotations

from quicedge.quic.frames import describe


def test_padding_with_a_long_type_is_passed_over() -> None:
    frames = describe(bytes.fromhex("4000000000018000000000"), 3)
    assert [frame["frame_type"] for frame in frames] == ["padding", "ping", "padding"]
    assert [frame.get("raw") for frame in frames] == [{"length": 5}, None, {"length": 5}]
