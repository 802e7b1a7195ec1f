"""What filters do to the content of messages."""

from __future__ import annotations


def content(value: object) -> bytes:
    """What a filter gives as content; raises TypeError unless it is bytes."""
    if not isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(f"content must be bytes, not {type(value).__name__}")
    return bytes(value)


class BodyTransform:
    """Changes content on its way; this one passes it on. Objects serve one message.

    Return what can be sent on now; the rest may be kept until there is enough of it, as long as
    that is bounded. The content comes as it is sent: with its content coding.
    """

    def write(self, data: bytes) -> bytes:
        """A part of the content; any number of them."""
        return data

    def end(self) -> bytes:
        """The content is complete: what is left to send."""
        return b""

    def close(self) -> None:
        """The message is over, completely or not: release what is held. Called last."""
