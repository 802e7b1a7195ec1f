"""Transport parameters to and from bytes (RFC 9000 section 18)."""

from __future__ import annotations

from collections.abc import Iterable

from quicedge.quic.frames import FrameError, decode_varint, encode_varint

ORIGINAL_DESTINATION_CONNECTION_ID = 0x00
MAX_IDLE_TIMEOUT = 0x01
STATELESS_RESET_TOKEN = 0x02
MAX_UDP_PAYLOAD_SIZE = 0x03
INITIAL_MAX_DATA = 0x04
INITIAL_MAX_STREAM_DATA_BIDI_LOCAL = 0x05
INITIAL_MAX_STREAM_DATA_BIDI_REMOTE = 0x06
INITIAL_MAX_STREAM_DATA_UNI = 0x07
INITIAL_MAX_STREAMS_BIDI = 0x08
INITIAL_MAX_STREAMS_UNI = 0x09
ACK_DELAY_EXPONENT = 0x0A
MAX_ACK_DELAY = 0x0B
PREFERRED_ADDRESS = 0x0D
ACTIVE_CONNECTION_ID_LIMIT = 0x0E
INITIAL_SOURCE_CONNECTION_ID = 0x0F
RETRY_SOURCE_CONNECTION_ID = 0x10
VERSION_INFORMATION = 0x11
MAX_DATAGRAM_FRAME_SIZE = 0x20


def encode_parameters(parameters: Iterable[tuple[int, int | bytes | None]]) -> bytes:
    """Ids with their values, in this order; those without a value are left out."""
    parts: list[bytes] = []
    for parameter, value in parameters:
        if value is None:
            continue
        content = encode_varint(value) if isinstance(value, int) else value
        parts += (encode_varint(parameter), encode_varint(len(content)), content)
    return b"".join(parts)


def split_parameters(data: bytes) -> list[tuple[int, bytes]]:
    """Ids with their values as they stand there; raises FrameError when cut short."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data):
        parameter, at = decode_varint(data, at)
        length, at = decode_varint(data, at)
        end = at + length
        if end > len(data):
            raise FrameError("truncated transport parameter")
        found.append((parameter, data[at:end]))
        at = end
    return found
