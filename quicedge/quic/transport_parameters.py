"""Transport parameters to and from bytes, and the rules on their values (RFC 9000 section 18)."""

from __future__ import annotations

import socket
import struct
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from quicedge.config.limits import MIN_INITIAL_DATAGRAM
from quicedge.quic.frames import (
    MAX_CONNECTION_ID_LENGTH,
    MAX_STREAM_COUNT,
    RESET_TOKEN_LENGTH,
    FrameError,
    decode_varint,
    encode_varint,
)

GREASE_QUIC_BIT = 0x2AB2
"""RFC 9287 section 3: taken note of for qlog."""


class ParameterError(ValueError):
    """Parameters that break a rule: a connection error TRANSPORT_PARAMETER_ERROR."""


class PreferredAddress(NamedTuple):
    """Where a client should go once the handshake is confirmed: host and port, by family."""

    ipv4: tuple[str, int] | None = None
    ipv6: tuple[str, int] | None = None


class PreferredAddressParameter(NamedTuple):
    """The server's preferred address (RFC 9000 section 9.6) and the connection ID to use there."""

    ipv4: tuple[str, int] | None
    ipv6: tuple[str, int] | None
    connection_id: bytes
    reset_token: bytes

    def encode(self) -> bytes:
        parts = []
        for family, empty, address in (
            (socket.AF_INET, bytes(6), self.ipv4),
            (socket.AF_INET6, bytes(18), self.ipv6),
        ):
            if address is None:
                parts.append(empty)
            else:
                parts.append(socket.inet_pton(family, address[0]) + address[1].to_bytes(2, "big"))
        parts += bytes((len(self.connection_id),)), self.connection_id, self.reset_token
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> PreferredAddressParameter:
        if len(data) < 25 or len(data) != 25 + data[24] + RESET_TOKEN_LENGTH:
            raise ParameterError("preferred_address has the wrong length")
        if not 1 <= data[24] <= MAX_CONNECTION_ID_LENGTH:
            raise ParameterError("preferred_address has an invalid connection ID")
        ipv4, ipv6 = data[:4], data[6:22]
        return cls(
            (socket.inet_ntop(socket.AF_INET, ipv4), int.from_bytes(data[4:6], "big"))
            if any(ipv4)
            else None,
            (socket.inet_ntop(socket.AF_INET6, ipv6), int.from_bytes(data[22:24], "big"))
            if any(ipv6)
            else None,
            data[25:-RESET_TOKEN_LENGTH],
            data[-RESET_TOKEN_LENGTH:],
        )


class VersionInformation(NamedTuple):
    """RFC 9368 section 3."""

    chosen: int
    available: tuple[int, ...]

    def encode(self) -> bytes:
        return struct.pack(f"!{1 + len(self.available)}I", self.chosen, *self.available)

    @classmethod
    def decode(cls, data: bytes) -> VersionInformation:
        if not data or len(data) % 4:
            raise ParameterError("version_information has the wrong length")
        chosen, *available = struct.unpack(f"!{len(data) // 4}I", data)
        # RFC 9368 section 4: version 0 MUST be treated as a parsing failure.
        if not chosen or 0 in available:
            raise ParameterError("version_information contains version 0")
        return cls(chosen, tuple(available))


class TransportParameters(msgspec.Struct, kw_only=True):
    """What one endpoint declares; None where it says nothing."""

    original_destination_connection_id: bytes | None = None
    max_idle_timeout: int | None = None
    stateless_reset_token: bytes | None = None
    max_udp_payload_size: int | None = None
    initial_max_data: int | None = None
    initial_max_stream_data_bidi_local: int | None = None
    initial_max_stream_data_bidi_remote: int | None = None
    initial_max_stream_data_uni: int | None = None
    initial_max_streams_bidi: int | None = None
    initial_max_streams_uni: int | None = None
    ack_delay_exponent: int | None = None
    max_ack_delay: int | None = None
    disable_active_migration: bool = False
    preferred_address: PreferredAddressParameter | None = None
    active_connection_id_limit: int | None = None
    initial_source_connection_id: bytes | None = None
    retry_source_connection_id: bytes | None = None
    version_information: VersionInformation | None = None
    max_datagram_frame_size: int | None = None

    def encode(self) -> bytes:
        parts = [
            _encode_integers(
                self.max_idle_timeout, self.max_udp_payload_size, self.initial_max_data,
                self.initial_max_stream_data_bidi_local, self.initial_max_stream_data_bidi_remote,
                self.initial_max_stream_data_uni, self.initial_max_streams_bidi,
                self.initial_max_streams_uni, self.ack_delay_exponent, self.max_ack_delay,
                self.active_connection_id_limit, self.max_datagram_frame_size,
            )
        ]  # fmt: skip
        for number, content in (
            (0x00, self.original_destination_connection_id),
            (0x02, self.stateless_reset_token),
            (0x0C, b"" if self.disable_active_migration else None),
            (0x0D, self.preferred_address and self.preferred_address.encode()),
            (0x0F, self.initial_source_connection_id),
            (0x10, self.retry_source_connection_id),
            (0x11, self.version_information and self.version_information.encode()),
        ):
            if content is not None:
                # All are shorter than 64 bytes, so that their length takes one.
                parts += (bytes((number, len(content))), content)
        return b"".join(parts)

    def server_only(self) -> str | None:
        """One that a client MUST NOT send (RFC 9000 section 18.2), by name."""
        if self.original_destination_connection_id is not None:
            return "original_destination_connection_id"
        if self.preferred_address is not None:
            return "preferred_address"
        if self.retry_source_connection_id is not None:
            return "retry_source_connection_id"
        return None if self.stateless_reset_token is None else "stateless_reset_token"

    @classmethod
    def decode(cls, data: bytes) -> TransportParameters:
        """Parse and check each by itself; raises ParameterError."""
        values: dict[str, Any] = {}
        others: set[int] = set()
        for number, content in split_parameters(data):
            name, kind = _PARAMETERS.get(number, _UNKNOWN)
            # RFC 9000 section 7.4: an endpoint SHOULD treat receipt of duplicate transport
            # parameters as a connection error of type TRANSPORT_PARAMETER_ERROR.
            if name in values or number in others:
                raise ParameterError("a transport parameter is repeated")
            if kind is int:
                length = len(content)
                if not length or _INTEGER_LENGTHS[content[0] >> 6] != length:
                    raise ParameterError(f"{name} is not one integer")
                values[name] = int.from_bytes(content, "big") & ((1 << (8 * length - 2)) - 1)
            elif name:
                values[name] = _value(name, kind, content)
            else:
                others.add(number)
        parameters = cls(**values)
        _check(parameters)
        return parameters


_INTEGERS = (0x01, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0A, 0x0B, 0x0E, 0x20)
"""Numbers of the integer parameters."""


@lru_cache(maxsize=16)
def _encode_integers(*values: int | None) -> bytes:
    """Our integers, in the order of `_INTEGERS`: the same for all connections of a configuration,
    and for the peers of a client that remembers theirs."""
    parts: list[bytes] = []
    for number, value in zip(_INTEGERS, values, strict=True):
        if value is not None:
            content = encode_varint(value)
            parts += (bytes((number,)), encode_varint(len(content)), content)
    return b"".join(parts)


_UNKNOWN: tuple[str, type] = ("", bytes)
_PARAMETERS: dict[int, tuple[str, type]] = {
    0x00: ("original_destination_connection_id", bytes),
    0x01: ("max_idle_timeout", int),
    0x02: ("stateless_reset_token", bytes),
    0x03: ("max_udp_payload_size", int),
    0x04: ("initial_max_data", int),
    0x05: ("initial_max_stream_data_bidi_local", int),
    0x06: ("initial_max_stream_data_bidi_remote", int),
    0x07: ("initial_max_stream_data_uni", int),
    0x08: ("initial_max_streams_bidi", int),
    0x09: ("initial_max_streams_uni", int),
    0x0A: ("ack_delay_exponent", int),
    0x0B: ("max_ack_delay", int),
    0x0C: ("disable_active_migration", bool),
    0x0D: ("preferred_address", PreferredAddressParameter),
    0x0E: ("active_connection_id_limit", int),
    0x0F: ("initial_source_connection_id", bytes),
    0x10: ("retry_source_connection_id", bytes),
    0x11: ("version_information", VersionInformation),
    0x20: ("max_datagram_frame_size", int),
}
"""Name and kind of value, by number."""

_INTEGER_LENGTHS = (1, 2, 4, 8)
"""Bytes of a variable-length integer by its first two bits."""


def _value(name: str, kind: type, content: bytes) -> object:
    if kind is bytes:
        return content
    if kind is bool:
        if content:
            raise ParameterError(f"{name} has content")
        return True
    decoder = PreferredAddressParameter if kind is PreferredAddressParameter else VersionInformation
    return decoder.decode(content)


def _check(parameters: TransportParameters) -> None:
    """RFC 9000 section 18.2 and 4.6: values that are invalid by themselves."""
    limit = parameters.active_connection_id_limit
    if limit is not None and limit < 2:
        raise ParameterError("active_connection_id_limit must be no less than 2")
    if (parameters.ack_delay_exponent or 0) > 20:
        raise ParameterError("ack_delay_exponent must be <= 20")
    if (parameters.max_ack_delay or 0) >= 1 << 14:
        raise ParameterError("max_ack_delay must be < 2^14")
    if (parameters.initial_max_streams_bidi or 0) > MAX_STREAM_COUNT:
        raise ParameterError("initial_max_streams_bidi cannot exceed 2^60")
    if (parameters.initial_max_streams_uni or 0) > MAX_STREAM_COUNT:
        raise ParameterError("initial_max_streams_uni cannot exceed 2^60")
    size = parameters.max_udp_payload_size
    if size is not None and size < MIN_INITIAL_DATAGRAM:
        raise ParameterError(f"max_udp_payload_size must be >= {MIN_INITIAL_DATAGRAM}")
    token = parameters.stateless_reset_token
    if token is not None and len(token) != RESET_TOKEN_LENGTH:
        raise ParameterError("stateless_reset_token must have 16 bytes")


def split_parameters(data: bytes) -> list[tuple[int, bytes]]:
    """Numbers with their values as they stand there; raises ParameterError when cut short."""
    found: list[tuple[int, bytes]] = []
    at, stop = 0, len(data)
    try:
        while at < stop:
            # Almost all numbers and lengths take one byte.
            number, length = data[at], data[at + 1]
            if number < 0x40 and length < 0x40:
                at += 2
            else:
                number, at = decode_varint(data, at)
                length, at = decode_varint(data, at)
            end = at + length
            if end > stop:
                raise ParameterError("truncated transport parameter")
            found.append((number, data[at:end]))
            at = end
    except (FrameError, IndexError) as error:
        raise ParameterError("truncated transport parameter") from error
    return found


def unknown_parameters(data: bytes) -> list[tuple[int, bytes]]:
    """Those that we know nothing of: grease, as a rule."""
    return [item for item in split_parameters(data) if item[0] not in _PARAMETERS]
